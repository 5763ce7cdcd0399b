"""Why no broker lets us in: the client library tells its log, and its caller only that none did."""

import asyncio
import os
import ssl
from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from xzepr.infra.kafka.cluster import Cluster

_conn: Any = conn  # whose functions have no types
_MAX_BROKERS = 3
_MAX_REASON_CHARACTERS = 300


async def diagnose(cluster: Cluster) -> str:
    """What each of the brokers (the first few, if there are many) says to who connects to it, for an operator: that it
    is not there, that it does not know our password, that its certificate is signed by nobody we know. Empty when one
    lets us in. Raises BrokerError when a certificate of ours cannot be read."""
    hosts: list[tuple[str, int, Any]] = _conn.collect_hosts(cluster.brokers, randomize=False)
    options = cluster.options()
    del options["bootstrap_servers"]
    reasons = await asyncio.gather(*(_connection_error(host, port, options) for host, port, _ in hosts[:_MAX_BROKERS]))
    if not all(reasons):
        return ""
    # Each reason once: of three brokers that are down there is only one thing to say.
    addresses_by_reason: dict[str, list[str]] = {}
    for (host, port, _), answer in zip(hosts, reasons, strict=False):
        addresses_by_reason.setdefault(answer, []).append(f"{host}:{port}")
    return "; ".join(f"{', '.join(where)}: {answer}" for answer, where in addresses_by_reason.items())


async def _connection_error(host: str, port: int, options: dict[str, Any]) -> str:
    """Why the broker at this address does not let us in; empty if it does."""
    try:
        async with asyncio.timeout(options["request_timeout_ms"] / 1000):
            connection: Any = await _conn.create_conn(host, port, client_id="xzepr-relay", **options)
            try:
                await connection.send(MetadataRequest([]))  # the first thing that is not answered to everybody
            finally:
                connection.close()
    except TimeoutError:
        return "no answer"
    except Exception as error:
        return _reason(error)[:_MAX_REASON_CHARACTERS]
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, KafkaConnectionError):
        return "hangs up, as brokers do that want TLS, a certificate or a password which they are not given"
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        # Event loops have texts of their own for the system's errors; the resolver's have negative numbers.
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
    return str(error) or type(error).__name__
