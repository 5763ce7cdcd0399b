"""The markers of a transaction, held back on their way: a proxy in front of each broker's listener for other brokers.

A coordinator that has accepted the end of a transaction tells the leader of each of its partitions by WriteTxnMarkers
(API key 27, https://kafka.apache.org/protocol#The_Messages_WriteTxnMarkers), itself included, over that listener.
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


class Markers:
    """What one broker is to be told about transactions. Everything else passes at once."""

    def __init__(self, broker: Broker) -> None:
        """Before the broker is started for the first time: it gets a listener for the other brokers."""
        self._internal, self.port = free_ports(2)
        self._pass = asyncio.Event()
        self._pass.set()
        self.held = asyncio.Event()
        """Set once something waits since `hold` was called last."""
        broker.properties += _LISTENERS.format(
            port=broker.port, internal=self._internal, controller=broker.controller, proxy=self.port
        )

    def hold(self) -> None:
        """From now on, what comes waits."""
        self.held.clear()
        self._pass.clear()

    def release(self) -> None:
        """What waits goes on, in order, and nothing waits any more."""
        self._pass.set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from a broker to this one, until either side ends it."""
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._internal)
        except OSError:  # it is not up yet
            writer.close()
            return
        answers = asyncio.create_task(_copy(up_reader, writer))
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                size = await reader.readexactly(4)
                request = await reader.readexactly(int.from_bytes(size))
                if int.from_bytes(request[:2]) == _WRITE_TXN_MARKERS and not self._pass.is_set():
                    self.held.set()
                    await self._pass.wait()
                up_writer.write(size + request)
                await up_writer.drain()
        answers.cancel()
        writer.close()
        up_writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def markers_of(cluster: Cluster) -> AsyncGenerator[Sequence[Markers]]:
    """Starts the cluster, with the markers of each broker in the test's hands; stops it at the end."""
    async with AsyncExitStack() as opened:
        markers = [Markers(broker) for broker in cluster.brokers]
        for one in markers:
            server = await asyncio.start_server(one.carry, "127.0.0.1", one.port)
            opened.callback(server.close)
        try:
            await asyncio.to_thread(cluster.start)
            yield markers
        finally:
            for one in markers:
                one.release()
            await asyncio.to_thread(cluster.stop)
