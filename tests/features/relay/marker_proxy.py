"""A proxy in front of each broker's inter-broker listener, which can hold back the markers of transactions.

A coordinator that has accepted the end of a transaction sends WriteTxnMarkers (API key 27,
https://kafka.apache.org/protocol#The_Messages_WriteTxnMarkers) to the leader of each of its partitions, itself
included, over that listener.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tests.support.kafka import Broker, Cluster, free_ports

_WRITE_TXN_MARKERS = 27

_LISTENERS = """listeners=PLAINTEXT://127.0.0.1:{port},INTERNAL://127.0.0.1:{internal},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},INTERNAL://127.0.0.1:{proxy}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=INTERNAL
"""


class MarkerProxy:
    """The proxy of one broker: holds back transaction markers and passes all other requests at once."""

    def __init__(self, broker: Broker) -> None:
        """Adds an inter-broker listener to the broker's properties, before its first start."""
        self._internal, self.port = free_ports(2)
        self._released = asyncio.Event()
        self._released.set()
        self.held = asyncio.Event()
        """Set once a marker waits since the last call of `hold`."""
        broker.properties += _LISTENERS.format(
            port=broker.port, internal=self._internal, controller=broker.controller, proxy=self.port
        )

    def hold(self) -> None:
        """Makes the markers that arrive from now on wait."""
        self.held.clear()
        self._released.clear()

    def release(self) -> None:
        """Forwards the waiting markers in order, and later ones at once."""
        self._released.set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forwards one connection from another broker until either side closes it."""
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._internal)
        except OSError:  # the broker is not up yet
            writer.close()
            return
        responses = asyncio.create_task(_copy(up_reader, writer))
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                size = await reader.readexactly(4)
                request = await reader.readexactly(int.from_bytes(size))
                if int.from_bytes(request[:2]) == _WRITE_TXN_MARKERS and not self._released.is_set():
                    self.held.set()
                    await self._released.wait()
                up_writer.write(size + request)
                await up_writer.drain()
        responses.cancel()
        writer.close()
        up_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def marker_proxies(cluster: Cluster) -> AsyncGenerator[Sequence[MarkerProxy]]:
    """Starts the cluster with a proxy in front of each broker, and stops it at the end of the block."""
    async with AsyncExitStack() as servers:
        proxies = [MarkerProxy(broker) for broker in cluster.brokers]
        for proxy in proxies:
            server = await asyncio.start_server(proxy.forward, "127.0.0.1", proxy.port)
            servers.callback(server.close)
        try:
            await asyncio.to_thread(cluster.start)
            yield proxies
        finally:
            for proxy in proxies:
                proxy.release()
            await asyncio.to_thread(cluster.stop)
