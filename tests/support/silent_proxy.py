"""A proxy for PostgreSQL that can silence connections: both ends stay open, and no data passes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


class ProxiedConnection:
    """A connection. Its `startup` message contains the application name."""

    def __init__(self, startup: bytes, up: asyncio.StreamWriter) -> None:
        self.startup = startup
        self.up = up
        self.silent = False
        self.trigger: bytes | None = None  # bytes after which the connection becomes silent

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one direction until its sender closes.

        Drops the data of a silent connection. Its client does not notice either that the server has closed.
        """
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                if not self.silent:
                    writer.write(chunk)
                    self.silent = self.trigger is not None and self.trigger in chunk
        if not self.silent or writer is self.up:
            writer.close()


class SilentProxy:
    """Forwards connections to a server on a Unix socket."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._connections = set[ProxiedConnection]()
        self._next: dict[bytes, bytes] = {}

    def silence(self, application: str) -> int:
        """Silences all current connections with that application name. Returns their number."""
        connections = [
            connection
            for connection in self._connections
            if _parameter(application) in connection.startup and not connection.silent
        ]
        for connection in connections:
            connection.silent = True
        return len(connections)

    def silence_next(self, application: str, trigger: bytes = b"Z\x00\x00\x00\x05I") -> None:
        """Silences the next connection with that application name after the `trigger`.

        The default trigger is the first ReadyForQuery: the connection is silent as soon as it is open.
        """
        self._next[_parameter(application)] = trigger

    @property
    def has_silenced_next(self) -> bool:
        """Whether every connection of `silence_next` has been opened."""
        return not self._next

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards a connection until both ends have closed."""
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket_path)
        connection = ProxiedConnection(await reader.read(1 << 16), up_writer)
        self._connections.add(connection)
        up_writer.write(connection.startup)
        for name in [name for name in self._next if name in connection.startup]:
            connection.trigger = self._next.pop(name)
        with suppress(asyncio.CancelledError):  # cancelled only when the test's loop ends
            await asyncio.gather(connection.pump(reader, up_writer), connection.pump(up_reader, writer))
        self._connections.discard(connection)
        writer.close()


def _parameter(application: str) -> bytes:
    return f"application_name\x00{application}\x00".encode()


@asynccontextmanager
async def silent_proxy(database_url: str) -> AsyncGenerator[tuple[str, SilentProxy]]:
    """Runs a proxy for a database. Yields the URL of the database through the proxy, and the proxy."""
    if "host=%2F" not in database_url:
        pytest.skip("the proxy needs a Unix socket, and XZEPR_TEST_DATABASE_URL names another kind of address")
    url = urlsplit(database_url)
    options = {key: values[0] for key, values in parse_qs(url.query).items()}
    proxy = SilentProxy(f"{options['host']}/.s.PGSQL.{options.get('port', '5432')}")
    server = await asyncio.start_server(proxy.forward, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{url.username}@127.0.0.1:{port}{unquote(url.path)}?sslmode=disable", proxy
    finally:
        server.close()
