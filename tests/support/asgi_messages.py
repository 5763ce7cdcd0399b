"""Messages of ASGI responses, and applications that send them."""

from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send


def responding(*messages: dict[str, Any], error: Exception | None = None) -> ASGIApp:
    """Returns an application that sends these messages, then raises the error."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(dict(message))
        if error is not None:
            raise error

    return app


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(content: bytes, *, more_body: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": content, "more_body": more_body}


def length(number: int) -> tuple[bytes, bytes]:
    return (b"content-length", b"%d" % number)
