"""The GraphQL playground: GraphiQL, served from the package with a policy that forbids all other sources."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

PAGE_PATH: Final = "/graphql/playground"
STATIC: Final = Path(__file__).parent / "static"

# GraphiQL's editor inserts style elements, hence 'unsafe-inline' for styles only. 'self' in connect-src includes the
# WebSocket of the same origin.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "worker-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "font-src 'self' data:",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "form-action 'none'",
    )
)
_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
# Listed here because the system's own table may have other types, and with nosniff a wrong one breaks the page.
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".ttf": "font/ttf",
    ".txt": "text/plain; charset=utf-8",
}
# Files without a content hash in their name: they must be revalidated. All other names change with the content.
_UNHASHED: Final = frozenset({"THIRD_PARTY.txt", "manifest.json"})


def playground_routes() -> list[BaseRoute]:
    """Returns the routes of the page at `/graphql/playground` and of its files. They need no credentials."""
    compressed = [Middleware(GZipMiddleware, minimum_size=1024, compresslevel=6)]
    assets = _Assets(frozenset(_bundled_names()) | {"manifest.json"})
    return [
        Route(PAGE_PATH, _page, middleware=compressed),
        Route(f"{PAGE_PATH}/{{name}}", assets.serve, middleware=compressed),
    ]


def _bundled_names() -> list[str]:
    manifest = json.loads((STATIC / "manifest.json").read_text(encoding="utf-8"))
    return [name for name in manifest["files"] if name != "index.html"]


async def _page(_request: Request) -> Response:
    return _file("index.html", "no-cache")


class _Assets:
    """Serves exactly the files that the manifest lists."""

    __slots__ = ("_names",)

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    async def serve(self, request: Request) -> Response:
        """Returns the requested file, or 404."""
        name: str = request.path_params["name"]
        if name not in self._names:
            raise HTTPException(404)
        return _file(name, "no-cache" if name in _UNHASHED else "public, max-age=31536000, immutable")


def _file(name: str, cache_control: str) -> Response:
    headers = {**_HEADERS, "cache-control": cache_control}
    path = STATIC / name
    return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], headers=headers)
