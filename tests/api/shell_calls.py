"""Applications in a shell, called without a server."""

from typing import Any

from starlette.types import ASGIApp, Message

from xzepr.api.hosts import AllowedHosts, host_check
from xzepr.api.request_head import Head
from xzepr.api.shell import Concerns, Shell, length_check


class Counts:
    """The requests that have finished: their routes and statuses."""

    def __init__(self) -> None:
        self.finished: list[tuple[str, int]] = []

    def __call__(self, head: Head, status: int, seconds: float) -> None:
        assert seconds >= 0
        self.finished.append((head.route, status))


def shell_of(app: ASGIApp, counts: Counts | None = None, *, seconds: float = 10, **options: Any) -> Shell:
    """Returns the application in a shell that accepts bodies of ten bytes."""
    concerns = Concerns(
        checks=[host_check(AllowedHosts(["hub"])), length_check(10)],
        decorate=options.pop("decorate", ()),
        finished=[] if counts is None else [counts],
    )
    return Shell(app, concerns, max_bytes=10, timeout_seconds=seconds, **options)


async def responses(asgi: ASGIApp, *headers: tuple[bytes, bytes], kind: str = "http") -> list[Message]:
    """Sends a request without a body. Returns the messages of the response."""
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"} if kind == "http" else {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        messages.append(message)

    scope = {"type": kind, "method": "GET", "path": "/known", "query_string": b"", "headers": list(headers)}
    await asgi(scope, receive, send)
    return messages
