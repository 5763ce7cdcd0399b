"""HTTP/1.1 by hand, so that no library hides a fault from the client. Shares no code with the hub."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class BrokenConnectionError(OSError):
    """The connection ended during a response, or the response is not HTTP."""


@dataclass(frozen=True, slots=True)
class Response:
    """A complete response."""

    status: int
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON. Raises ValueError if it is not JSON."""
        value: Json = json.loads(self.body)
        return value

    @property
    def codes(self) -> list[str]:
        """The codes of the GraphQL errors, or the status (`HTTP 502`) if a failed response has none."""
        try:
            errors = self.json.get("errors", [])
        except ValueError:
            return [f"HTTP {self.status}"]
        codes = [str(error.get("extensions", {}).get("code", "")) for error in errors]
        return codes or ([] if self.status == 200 else [f"HTTP {self.status}"])


class Connection:
    """A keep-alive connection to a local port. It opens when needed, and again after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes, headers: str, seconds: float) -> Response:
        """Sends a POST to /graphql and returns the response.

        Raises BrokenConnectionError, also after `seconds`. It is then unknown whether the request was executed.
        """
        try:
            async with asyncio.timeout(seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(request(self._port, body, headers))
                status, length, keep = head_of(await reader.readuntil(b"\r\n\r\n"))
                if length is None:
                    raise BrokenConnectionError("the response has no length")
                response = Response(status, await reader.readexactly(length))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.close()
            raise BrokenConnectionError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        if not keep:
            self.close()
        return response

    def close(self) -> None:
        """Closes the connection if it is open."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with suppress(OSError, RuntimeError):
                streams[1].close()


def request(port: int, body: bytes, headers: str) -> bytes:
    """Returns the bytes of a POST. `headers` are complete lines."""
    head = f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def head_of(raw: bytes) -> tuple[int, int | None, bool]:
    """Parses the head of a response: status, length of the body (None if absent), whether the connection is kept."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise BrokenConnectionError(f"the response is not HTTP: {first[:60]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length")
    return int(rest[:3]), None if length is None else int(length), fields.get("connection", "").lower() != "close"


async def graphql(port: int, query: str, variables: Json, secret: str = "", seconds: float = 30) -> Json:
    """Executes a document on a new connection and returns its `data`. Fails on errors."""
    connection = Connection(port)
    authorization = f"Authorization: Bearer {secret}\r\n" if secret else ""
    try:
        body = json.dumps({"query": query, "variables": variables}).encode()
        response = await connection.post(body, authorization, seconds)
    finally:
        connection.close()
    assert not response.codes, response.body.decode()
    return response.json["data"]


@asynccontextmanager
async def event_stream(port: int, body: bytes, headers: str) -> AsyncGenerator[AsyncGenerator[dict[str, str]]]:
    """Opens a text/event-stream with a POST and yields the fields of its events.

    Raises OSError if the stream is cut, rejected or silent for 30 s. The hub sends a comment after 12 s.
    """
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(port, body, "Accept: text/event-stream\r\n" + headers))
        async with asyncio.timeout(30):
            status, length, _ = head_of(await reader.readuntil(b"\r\n\r\n"))
        if status != 200 or length is not None:
            error_body = b"" if length is None else await reader.read(min(length, 1000))
            raise BrokenConnectionError(f"HTTP {status}: {error_body.decode(errors='replace')}")
        events = _events(reader)
        try:
            yield events
        finally:
            await events.aclose()
    except (EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise BrokenConnectionError(f"{type(error).__name__}: {error}") from error
    finally:
        with suppress(OSError, RuntimeError):
            writer.close()


async def _events(reader: asyncio.StreamReader) -> AsyncGenerator[dict[str, str]]:
    rest = b""
    while True:
        async with asyncio.timeout(30):
            size = int(await reader.readuntil(b"\r\n"), 16)
            chunk = (await reader.readexactly(size + 2))[:-2]
        if not size:
            return
        *whole, rest = (rest + chunk).split(b"\n\n")
        for block in whole:
            lines = [line.partition(":") for line in block.decode().split("\n")]
            if fields := {name: value.removeprefix(" ") for name, _, value in lines if name}:
                yield fields
