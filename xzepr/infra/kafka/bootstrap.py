"""Diagnoses why no broker accepts a connection: aiokafka only logs the reasons, and does not return them."""

import asyncio
import os
import ssl
from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from xzepr.infra.kafka.cluster import Cluster

_conn: Any = conn  # its functions are untyped
_MAX_BROKERS = 3  # that are probed
_MAX_REASON_CHARACTERS = 300


async def diagnose(cluster: Cluster) -> str:
    """Returns the reasons why the first three brokers cannot be used, for an operator; empty if one of them can.

    Reasons are, for example, that a broker is down, rejects the password, or has an untrusted certificate. Raises
    BrokerError if a configured certificate cannot be read.
    """
    hosts: list[tuple[str, int, Any]] = _conn.collect_hosts(cluster.brokers, randomize=False)
    options = cluster.options()
    del options["bootstrap_servers"]
    reasons = await asyncio.gather(*(_connection_error(host, port, options) for host, port, _ in hosts[:_MAX_BROKERS]))
    if not all(reasons):
        return ""
    # Brokers with the same reason are named together.
    addresses_by_reason: dict[str, list[str]] = {}
    for (host, port, _), reason in zip(hosts, reasons, strict=False):
        addresses_by_reason.setdefault(reason, []).append(f"{host}:{port}")
    return "; ".join(f"{', '.join(addresses)}: {reason}" for reason, addresses in addresses_by_reason.items())


async def _connection_error(host: str, port: int, options: dict[str, Any]) -> str:
    """Returns why the broker at this address does not accept a connection; empty if it does."""
    try:
        async with asyncio.timeout(options["request_timeout_ms"] / 1000):
            connection: Any = await _conn.create_conn(host, port, client_id="xzepr-relay", **options)
            try:
                await connection.send(MetadataRequest([]))  # the first request that requires authentication
            finally:
                connection.close()
    except TimeoutError:
        return "no answer"
    except Exception as error:
        return _reason(error)[:_MAX_REASON_CHARACTERS]
    return ""


def _reason(error: Exception) -> str:
    if isinstance(error, KafkaConnectionError):
        return (
            "closes the connection, as brokers do that require TLS, a certificate or a password that is not configured"
        )
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno:
        # Event loops replace the texts of system errors. Errors of the resolver have negative numbers.
        return os.strerror(error.errno) if error.errno > 0 else error.strerror or str(error)
    return str(error) or type(error).__name__
