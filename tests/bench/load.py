"""A closed-loop HTTP/1.1 load generator in a separate process: each connection has one request in flight."""

import asyncio
import multiprocessing
import time
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvloop

COUNTER = b"0000000000"  # replaced in a body by the number of the request


@dataclass(frozen=True, slots=True)
class Target:
    """A request and the server that it is sent to."""

    port: int
    path: str
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a measurement. Latencies are in seconds, sorted."""

    seconds: float
    latencies: list[float]
    failures: int

    @property
    def rate(self) -> float:
        """Responses per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, percent: float) -> float:
        """Returns a percentile of the latencies in milliseconds."""
        return percentile(self.latencies, percent)


def percentile(latencies: list[float], percent: float) -> float:
    """Returns a percentile of sorted seconds in milliseconds."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] * 1000


def press(target: Target, connections: int, seconds: float) -> Measured:
    """Sends requests for `seconds`, after a warm-up of half a second."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_press, (target, connections, seconds))


def _press(target: Target, connections: int, seconds: float) -> Measured:
    return uvloop.run(_run(target, connections, seconds))


async def _run(target: Target, connections: int, seconds: float) -> Measured:
    clients = [_Client(target, number) for number in range(connections)]
    loop = asyncio.get_running_loop()
    for client in clients:
        await loop.create_connection(partial(_identity, client), "127.0.0.1", target.port)
    await asyncio.sleep(0.5)
    for client in clients:
        client.latencies.clear()
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    for client in clients:
        client.stop()
    latencies = sorted(latency for client in clients for latency in client.latencies)
    return Measured(took, latencies, sum(client.failures for client in clients))


def _identity(client: "_Client") -> "_Client":
    return client


class _Client(asyncio.Protocol):
    """A connection that sends a request, waits for the whole response and sends the next."""

    def __init__(self, target: Target, number: int) -> None:
        head = f"POST {target.path} HTTP/1.1\r\nHost: 127.0.0.1:{target.port}\r\nContent-Length: {len(target.body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in target.headers.items())
        self._head = head.encode() + b"\r\n"
        self._parts = target.body.split(COUNTER)
        self._number = number * 10_000_000
        self._response = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.latencies: list[float] = []
        self.failures = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._response += data
        head, separator, body = self._response.partition(b"\r\n\r\n")
        if not separator or len(body) < _length(head):
            return
        self.latencies.append(time.perf_counter() - self._sent_at)
        if not head.startswith(b"HTTP/1.1 200") or b'"errors"' in body:
            self.failures += 1
        self._send()

    def stop(self) -> None:
        """Stops sending and closes the connection."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()

    def _send(self) -> None:
        if self._transport is None:
            return
        self._number += 1
        self._response = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._head + (b"%010d" % self._number).join(self._parts))


def _length(head: bytes) -> int:
    start = head.lower().index(b"content-length:") + 15
    return int(head[start:].split(b"\r\n", 1)[0])
