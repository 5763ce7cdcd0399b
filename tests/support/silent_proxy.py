"""A way to PostgreSQL on which connections fall silent when a test says: both ends stay, and nothing comes through."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

import pytest


class Line:
    """One connection; `startup` holds its application name."""

    def __init__(self, startup: bytes, up: asyncio.StreamWriter) -> None:
        self.startup = startup
        self.up = up
        self.silent = False
        self.last_words: bytes | None = None
        """The line falls silent behind these."""

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries one direction until that end hangs up; what is said after the line fell silent is lost, and a client
        does not hear that the server hung up either."""
        with suppress(ConnectionError):
            while chunk := await reader.read(1 << 16):
                if not self.silent:
                    writer.write(chunk)
                    self.silent = self.last_words is not None and self.last_words in chunk
        if not self.silent or writer is self.up:
            writer.close()


class Network:
    """Carries connections to a server that listens on a Unix socket."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._lines = set[Line]()
        self._next: dict[bytes, bytes] = {}

    def hush(self, application: str) -> int:
        """The connections that are open now under that name fall silent for good; says how many."""
        lines = [line for line in self._lines if _named(application) in line.startup and not line.silent]
        for line in lines:
            line.silent = True
        return len(lines)

    def hush_next(self, application: str, last_words: bytes = b"Z\x00\x00\x00\x05I") -> None:
        """The next connection under that name falls silent behind these bytes, by itself as soon as it is open
        (ReadyForQuery, idle)."""
        self._next[_named(application)] = last_words

    @property
    def was_hushed(self) -> bool:
        """Whether each connection of `hush_next` has come."""
        return not self._next

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both ends have hung up."""
        up_reader, up_writer = await asyncio.open_unix_connection(self._socket_path)
        line = Line(await reader.read(1 << 16), up_writer)
        self._lines.add(line)
        up_writer.write(line.startup)
        for name in [name for name in self._next if name in line.startup]:
            line.last_words = self._next.pop(name)
        with suppress(asyncio.CancelledError):  # cancelled only when the test's loop ends
            await asyncio.gather(line.pump(reader, up_writer), line.pump(up_reader, writer))
        self._lines.discard(line)
        writer.close()


def _named(application: str) -> bytes:
    return f"application_name\x00{application}\x00".encode()


@asynccontextmanager
async def network(database_url: str) -> AsyncGenerator[tuple[str, Network]]:
    """The URL of the same database by way of a network, and the network."""
    if "host=%2F" not in database_url:
        pytest.skip("the network leads to a Unix socket, and XZEPR_TEST_DATABASE_URL names another kind of address")
    asked = urlsplit(database_url)
    options = {key: values[0] for key, values in parse_qs(asked.query).items()}
    one = Network(f"{options['host']}/.s.PGSQL.{options.get('port', '5432')}")
    server = await asyncio.start_server(one.carry, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"postgresql://{asked.username}@127.0.0.1:{port}{unquote(asked.path)}?sslmode=disable", one
    finally:
        server.close()
