"""A TCP load balancer as stands before several hubs: new connections go to those that answer and do not drain."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

_CHECK_SECONDS = 0.2


class Balancer:
    """Carries each connection to one of the ports, in turn. It asks each for `/health/ready`, and leaves out who does
    not answer 200; who refuses a connection is passed over for the next."""

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._ready = dict.fromkeys(ports, True)
        self._turn = 0
        self.port = 0
        self.refused = 0
        """Connections that no port took: their clients saw them closed."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until either side ends it."""
        up = await self._connected()
        if up is None:
            self.refused += 1
            writer.close()
            return
        await asyncio.gather(_pipe(reader, up[1]), _pipe(up[0], writer), return_exceptions=True)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._turn += 1
        order = self._ports[self._turn % len(self._ports) :] + self._ports[: self._turn % len(self._ports)]
        for port in sorted(order, key=lambda one: not self._ready[one]):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def check(self) -> None:
        """Looks who is ready, until cancelled."""
        while True:
            for port in self._ports:
                self._ready[port] = await _is_ready(port)
            await asyncio.sleep(_CHECK_SECONDS)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    finally:
        writer.close()


async def _is_ready(port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


@asynccontextmanager
async def balancer(ports: Sequence[int]) -> AsyncGenerator[Balancer]:
    """A balancer before these ports, while the block lasts."""
    one = Balancer(ports)
    server = await asyncio.start_server(one.carry, "127.0.0.1", 0)
    one.port = server.sockets[0].getsockname()[1]
    checking = asyncio.create_task(one.check())
    try:
        yield one
    finally:
        checking.cancel()
        server.close()
