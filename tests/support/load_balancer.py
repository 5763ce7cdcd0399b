"""A TCP load balancer for several hubs. New connections go to hubs that answer and do not drain."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

_CHECK_SECONDS = 0.2


class LoadBalancer:
    """Forwards connections to the ports in turn.

    Prefers ports whose `/health/ready` returns 200. If a port rejects a connection, it tries the next one.
    """

    def __init__(self, ports: Sequence[int]) -> None:
        self._ports = list(ports)
        self._ready = dict.fromkeys(ports, True)
        self._count = 0
        self.port = 0
        self.rejected = 0  # connections closed because no port accepted them

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards a client's connection until either side closes it."""
        up = await self._connected()
        if up is None:
            self.rejected += 1
            writer.close()
            return
        await asyncio.gather(_pipe(reader, up[1]), _pipe(up[0], writer), return_exceptions=True)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        self._count += 1
        first = self._count % len(self._ports)
        order = self._ports[first:] + self._ports[:first]
        for port in sorted(order, key=lambda port: not self._ready[port]):
            with suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", port)
        return None

    async def check(self) -> None:
        """Checks which ports are ready until it is cancelled."""
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
async def load_balancer(ports: Sequence[int]) -> AsyncGenerator[LoadBalancer]:
    """Runs a load balancer for these ports."""
    balancer = LoadBalancer(ports)
    server = await asyncio.start_server(balancer.forward, "127.0.0.1", 0)
    balancer.port = server.sockets[0].getsockname()[1]
    checking = asyncio.create_task(balancer.check())
    try:
        yield balancer
    finally:
        checking.cancel()
        server.close()
