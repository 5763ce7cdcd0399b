"""A proxy for PostgreSQL that a test can cut around a COMMIT: before it arrives or before its response returns."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from enum import Enum
from urllib.parse import parse_qs, unquote, urlsplit

_STARTUP = b"application_name\x00xzepr hub recorder\x00"


class Cut(Enum):
    """The moment at which the recorder's connection breaks."""

    BEFORE_COMMIT = "the server does not receive the COMMIT"
    UNANSWERED = "the server has received the COMMIT and may still execute it"
    AFTER_COMMIT = "the server has committed, and its response is lost"
    SILENT = "as AFTER_COMMIT, but the connection stays open and silent"


class CommitProxy:
    """Forwards connections to a server on a Unix socket. `cut` breaks the recorder's connection at its next COMMIT."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self.cut: Cut | None = None
        self.was_cut = asyncio.Event()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards a connection until either side closes it or it is cut."""
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket_path)
        responses = asyncio.create_task(self._forward_responses(up_reader, writer))
        seen = b""
        with suppress(ConnectionError, asyncio.CancelledError):  # cancelled only when the test's loop ends
            while chunk := await reader.read(1 << 16):
                seen = (seen + chunk)[: 1 << 12]
                if self.cut is not None and _STARTUP in seen and b"COMMIT\x00" in chunk:
                    responses.cancel()
                    await asyncio.wait([responses])
                    await self._break(chunk, reader, up_reader, up_writer)
                    break
                up_writer.write(chunk)
        responses.cancel()
        writer.close()
        up_writer.close()

    async def _forward_responses(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            requests = asyncio.create_task(self._forward_requests(reader, up_writer))  # up to the Sync after COMMIT
            response = b""
            while b"COMMIT\x00" not in response and (chunk := await up_reader.read(1 << 16)):
                response += chunk
            requests.cancel()
            await asyncio.wait([requests])
        self.was_cut.set()
        while cut is Cut.SILENT and await reader.read(1 << 16):
            pass

    async def _forward_requests(self, reader: asyncio.StreamReader, up_writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1 << 16):
            up_writer.write(chunk)


@asynccontextmanager
async def commit_proxy(database_url: str) -> AsyncGenerator[tuple[str, CommitProxy]]:
    """Runs a proxy for a database. Yields the URL of the database through the proxy, and the proxy."""
    url = urlsplit(database_url)
    options = {key: values[0] for key, values in parse_qs(url.query).items()}
    proxy = CommitProxy(f"{options['host']}/.s.PGSQL.{options.get('port', '5432')}")
    server = await asyncio.start_server(proxy.forward, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{url.username}@127.0.0.1:{port}{unquote(url.path)}?sslmode=disable", proxy
    finally:
        server.close()
