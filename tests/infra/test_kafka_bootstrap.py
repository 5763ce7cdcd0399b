"""Reasons why no broker accepts a connection, tested without a real broker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tests.support.kafka import free_ports
from xzepr.infra.kafka.bootstrap import diagnose
from xzepr.infra.kafka.cluster import Cluster, Security


@asynccontextmanager
async def fake_server(*, silent: bool) -> AsyncGenerator[str]:
    """The address of a server that is no broker: it stays silent or closes each connection."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        if not silent:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    finally:
        for writer in writers:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_absent_brokers_are_grouped_by_reason():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    assert await diagnose(Cluster(addresses, 5)) == f"{', '.join(addresses)}: Connection refused"


async def test_each_broker_has_its_own_reason():
    async with fake_server(silent=False) as closing, fake_server(silent=True) as silent:
        reasons = await diagnose(Cluster((closing, silent), 3))
    assert reasons.startswith(f"{closing}: closes the connection, ")
    assert reasons.endswith(f"; {silent}: no answer")


async def test_broker_without_tls_is_not_reported_as_absent():
    async with fake_server(silent=False) as closing:
        reasons = await diagnose(Cluster((closing,), 5, Security("SSL")))
    assert reasons.startswith(f"{closing}: ")
    assert "refused" not in reasons


async def test_only_first_three_brokers_are_probed():
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(5))
    reasons = await diagnose(Cluster(addresses, 5))
    assert [address in reasons for address in addresses] == [True, True, True, False, False]
