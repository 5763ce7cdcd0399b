"""HTTP/1.1 by hand, so that what a client sees of a fault is what came over the wire; shares no code with the hub."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


class BrokenOffError(OSError):
    """The connection ended in the middle of an answer, or what came is no HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response."""

    status: int
    body: bytes

    @property
    def json(self) -> Json:
        """The body as JSON; raises ValueError."""
        found: Json = json.loads(self.body)
        return found

    @property
    def codes(self) -> list[str]:
        """The codes of its GraphQL errors, `HTTP 502` and the like where it holds none."""
        try:
            errors = self.json.get("errors", [])
        except ValueError:
            return [f"HTTP {self.status}"]
        codes = [str(error.get("extensions", {}).get("code", "")) for error in errors]
        return codes or ([] if self.status == 200 else [f"HTTP {self.status}"])


class Connection:
    """One keep-alive connection to one port of this machine, opened when it is needed and again after it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, body: bytes, headers: str, seconds: float) -> Answer:
        """The answer to a POST to /graphql. Raises OSError (also when it takes longer); whether the request was
        carried out is then unknown."""
        try:
            async with asyncio.timeout(seconds):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port)
                reader, writer = self._streams
                writer.write(request(self._port, body, headers))
                status, length, keep = head_of(await reader.readuntil(b"\r\n\r\n"))
                if length is None:
                    raise BrokenOffError("an answer without a length")
                answer = Answer(status, await reader.readexactly(length))
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.close()
            raise BrokenOffError(f"{type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise
        if not keep:
            self.close()
        return answer

    def close(self) -> None:
        """Harmless when repeated."""
        streams, self._streams = self._streams, None
        if streams is not None:
            with suppress(OSError, RuntimeError):
                streams[1].close()


def request(port: int, body: bytes, headers: str) -> bytes:
    """The bytes of a POST; `headers` are whole lines."""
    head = f"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def head_of(raw: bytes) -> tuple[int, int | None, bool]:
    """Of the head of a response: the status, the length of the body if it is told, and whether the connection stays."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1.") or not rest[:3].isdigit():
        raise BrokenOffError(f"no HTTP: {first[:60]!r}")
    fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    length = fields.get("content-length")
    return int(rest[:3]), None if length is None else int(length), fields.get("connection", "").lower() != "close"


async def ask(port: int, query: str, variables: Json, secret: str = "", seconds: float = 30) -> Json:
    """The `data` of one answer without errors, on a connection of its own; for what is set up in quiet times."""
    connection = Connection(port)
    authorization = f"Authorization: Bearer {secret}\r\n" if secret else ""
    try:
        body = json.dumps({"query": query, "variables": variables}).encode()
        answer = await connection.ask(body, authorization, seconds)
    finally:
        connection.close()
    assert not answer.codes, answer.body.decode()
    return answer.json["data"]


@asynccontextmanager
async def event_stream(port: int, body: bytes, headers: str) -> AsyncGenerator[AsyncGenerator[dict[str, str]]]:
    """The events of a text/event-stream that a POST opens, as their fields. Raises OSError where it is cut, refused,
    or silent for 30 s (the hub sends a comment after 12)."""
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(port, body, "Accept: text/event-stream\r\n" + headers))
        async with asyncio.timeout(30):
            status, length, _ = head_of(await reader.readuntil(b"\r\n\r\n"))
        if status != 200 or length is not None:
            refusal = b"" if length is None else await reader.read(min(length, 1000))
            raise BrokenOffError(f"HTTP {status}: {refusal.decode(errors='replace')}")
        events = _events(reader)
        try:
            yield events
        finally:
            await events.aclose()
    except (EOFError, TimeoutError, asyncio.LimitOverrunError) as error:
        raise BrokenOffError(f"{type(error).__name__}: {error}") from error
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
