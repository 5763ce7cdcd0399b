"""A way to PostgreSQL that breaks when a test says: before a COMMIT arrives, or before its answer comes back."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import parse_qs, unquote, urlsplit

_STARTUP = b"application_name\x00xzepr hub recorder\x00"


class Cut(Enum):
    """When the recorder's connection breaks."""

    BEFORE_COMMIT = "the server never gets the COMMIT"
    UNANSWERED = "the server has the COMMIT and may take its time"
    AFTER_COMMIT = "the server has committed, and nobody hears of it"
    SILENT = "the same, and the connection stays: nothing will ever come over it"


class Wire:
    """Carries connections to a server that listens on a Unix socket; `cut` breaks the recorder's once, at its next
    COMMIT."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self.cut: Cut | None = None
        self.was_cut = asyncio.Event()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it or it is cut."""
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket_path)
        answers = asyncio.create_task(self._answers(up_reader, writer))
        seen = b""
        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled only when the test's loop ends
            while chunk := await reader.read(1 << 16):
                seen = (seen + chunk)[: 1 << 12]
                if self.cut is not None and _STARTUP in seen and b"COMMIT\x00" in chunk:
                    answers.cancel()
                    await asyncio.wait([answers])
                    await self._break(chunk, reader, up_reader, up_writer)
                    break
                up_writer.write(chunk)
        answers.cancel()
        writer.close()
        up_writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
        writer.close()

    async def _break(
        self,
        chunk: bytes,
        reader: asyncio.StreamReader,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        cut, self.cut = self.cut, None
        if cut is not Cut.BEFORE_COMMIT:
            up_writer.write(chunk)
            await up_writer.drain()
        if cut in (Cut.AFTER_COMMIT, Cut.SILENT):
            onward = asyncio.create_task(self._onward(reader, up_writer))  # the server answers after the next Sync
            answer = b""
            while b"COMMIT\x00" not in answer and (part := await up_reader.read(1 << 16)):
                answer += part
            onward.cancel()
            await asyncio.wait([onward])
        self.was_cut.set()
        while cut is Cut.SILENT and await reader.read(1 << 16):
            pass

    async def _onward(self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            up_writer.write(chunk)


@asynccontextmanager
async def wire(database_url: str) -> AsyncGenerator[tuple[str, Wire]]:
    """The URL of the same database by way of a wire, and the wire."""
    asked = urlsplit(database_url)
    options = {key: values[0] for key, values in parse_qs(asked.query).items()}
    wire = Wire(f"{options['host']}/.s.PGSQL.{options.get('port', '5432')}")
    server = await asyncio.start_server(wire.carry, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{asked.username}@127.0.0.1:{port}{unquote(asked.path)}?sslmode=disable", wire
    finally:
        server.close()
