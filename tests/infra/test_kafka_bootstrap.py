"""Why no broker lets us in, where it takes no real broker to tell."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.support.kafka import free_ports
from xzepr.infra.kafka.bootstrap import hindrance
from xzepr.infra.kafka.cluster import Cluster, Security


@asynccontextmanager
async def somebody(*, silent: bool) -> AsyncGenerator[str]:
    """The address of a server that is no broker: it says nothing, or hangs up."""
    writers: list[asyncio.StreamWriter] = []

    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if not silent:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_absent_brokers_are_grouped_by_reason():
    places = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    assert await hindrance(Cluster(places, 5)) == f"{', '.join(places)}: Connection refused"


async def test_each_broker_has_its_own_reason():
    async with somebody(silent=False) as rude, somebody(silent=True) as mute:
        told = await hindrance(Cluster((rude, mute), 3))
    assert told.startswith(f"{rude}: hangs up, ")
    assert told.endswith(f"; {mute}: no answer")


async def test_broker_without_tls_is_not_reported_as_absent():
    async with somebody(silent=False) as rude:
        told = await hindrance(Cluster((rude,), 5, Security("SSL")))
    assert told.startswith(f"{rude}: ")
    assert "refused" not in told


async def test_only_first_three_brokers_are_probed():
    places = tuple(f"127.0.0.1:{port}" for port in free_ports(5))
    told = await hindrance(Cluster(places, 5))
    assert [place in told for place in places] == [True, True, True, False, False]
