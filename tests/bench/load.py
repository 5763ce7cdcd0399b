"""A closed-loop HTTP/1.1 load generator in a separate process: each connection has one request in flight.

`make bench` uses it if `wrk` is not installed. It needs Linux.
"""

import itertools
import multiprocessing
import resource
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

COUNTER = b"0000000000"  # replaced in a body by the number of the request, or by one of the target's values
NUMBERS = 10_000_000  # the most requests of one measurement
WARM_UP_SECONDS = 0.5
_CHUNK = 1 << 18
_TIMEOUT_SECONDS = 30


class LoadError(Exception):
    """A request or a response that makes a measurement worthless."""


class NoResponseError(LoadError):
    """Nothing was answered in the time of a measurement."""


@dataclass(frozen=True, slots=True)
class Target:
    """A request and the server that it is sent to."""

    port: int
    path: str
    body: bytes
    headers: dict[str, str]
    values: tuple[str, ...] = ()
    """Replace COUNTER in the body, in turn. Without them, it becomes a number."""

    def request(self, body: bytes) -> bytes:
        """Returns the bytes of a request with this body."""
        head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Length: {len(body)}\r\n"
        return (head + "".join(f"{name}: {value}\r\n" for name, value in self.headers.items()) + "\r\n").encode() + body

    def requests(self, first: int) -> Iterator[bytes]:
        """Yields requests without end. The first number is `first`."""
        if self.values:
            yield from itertools.cycle([self.request(self.body.replace(COUNTER, v.encode())) for v in self.values])
        elif COUNTER not in self.body:
            yield from itertools.repeat(self.request(self.body))
        else:
            parts = self.request(self.body).split(COUNTER)
            for number in itertools.count(first):
                yield (b"%010d" % number).join(parts)


@dataclass(frozen=True, slots=True)
class Measured:
    """The result of a measurement. Percentiles are in milliseconds."""

    seconds: float
    requests: int
    failures: int
    received_bytes: int
    p50: float
    p99: float
    cpu_seconds: float
    """Processor time of the load generator."""

    @property
    def rate(self) -> float:
        """Responses per second."""
        return self.requests / self.seconds

    def percentile(self, percent: float) -> float:
        """Returns the 50th or 99th percentile of the latencies in milliseconds."""
        return {50.0: self.p50, 99.0: self.p99}[percent]


def percentile(latencies: Sequence[float], percent: float) -> float:
    """Returns a percentile of sorted seconds in milliseconds."""
    return latencies[min(len(latencies) - 1, int(len(latencies) * percent / 100))] * 1000


def press(
    target: Target, connections: int, seconds: float, first: int = 0, *, warm_up_seconds: float = WARM_UP_SECONDS
) -> Measured:
    """Sends requests for `seconds`, after a warm-up. Raises NoResponseError if there was none."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_press, (target, connections, seconds, first, warm_up_seconds))


def _press(target: Target, connections: int, seconds: float, first: int, warm_up_seconds: float) -> Measured:
    requests = target.requests(first)
    clients = {client.connection.fileno(): client for client in (_Client(target.port) for _ in range(connections))}
    poll = select.epoll()
    for number, client in clients.items():
        poll.register(number, select.EPOLLIN)
        client.send(next(requests))
    _exchange(poll, clients, requests, warm_up_seconds)
    for client in clients.values():
        client.forget()
    used = time.process_time()
    took = _exchange(poll, clients, requests, seconds)
    used = time.process_time() - used
    latencies = sorted(latency for client in clients.values() for latency in client.latencies)
    if not latencies:
        raise NoResponseError(f"no response from port {target.port} in {seconds} s")
    failures = sum(client.failures for client in clients.values())
    received = sum(client.received_bytes for client in clients.values())
    halves = percentile(latencies, 50), percentile(latencies, 99)
    return Measured(took, len(latencies), failures, received, *halves, used)


def _exchange(poll: select.epoll, clients: "dict[int, _Client]", requests: Iterator[bytes], seconds: float) -> float:
    """Exchanges requests and responses for about `seconds`. Returns the actual time."""
    began = time.perf_counter()
    while (now := time.perf_counter()) < began + seconds:
        for number, _ in poll.poll(0.1):
            client = clients[number]
            if client.receive():
                client.send(next(requests))
    return now - began


@dataclass(slots=True)
class _Client:
    """A connection that sends a request, waits for the whole response and sends the next."""

    port: int
    connection: socket.socket = field(init=False)
    latencies: list[float] = field(default_factory=list[float])
    failures: int = 0
    received_bytes: int = 0
    _partial: bytes = b""
    _sent_at: float = 0.0

    def __post_init__(self) -> None:
        self.connection = socket.create_connection(("127.0.0.1", self.port), _TIMEOUT_SECONDS)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def forget(self) -> None:
        """Forgets the responses so far."""
        self.latencies.clear()
        self.failures = self.received_bytes = 0

    def send(self, request: bytes) -> None:
        """Sends a request."""
        self._sent_at = time.perf_counter()
        self.connection.sendall(request)

    def receive(self) -> bool:
        """Reads available data. Returns whether a response is complete."""
        chunk = self.connection.recv(_CHUNK)
        if not chunk:
            raise LoadError(f"port {self.port} closed a connection")
        data = self._partial + chunk if self._partial else chunk
        end = data.find(b"\r\n\r\n") + 4
        if end < 4 or len(data) < end + _length(data[:end]):
            self._partial = data
            return False
        self._partial = b""
        self.latencies.append(time.perf_counter() - self._sent_at)
        self.received_bytes += len(data)
        if not data.startswith(b"HTTP/1.1 200") or data.find(b'"errors"', end) >= 0:
            self.failures += 1
        return True


def _length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    if start < 0:
        raise LoadError("a response has no Content-Length")
    return int(head[start + 15 : head.index(b"\r\n", start)])


def response_of(target: Target, first: int) -> tuple[bytes, int]:
    """Sends one request. Returns the response's body, and its size with the head. Raises LoadError if it failed."""
    client = _Client(target.port)
    with client.connection as connection:
        connection.sendall(next(target.requests(first)))
        data = b""
        while (end := data.find(b"\r\n\r\n") + 4) < 4 or len(data) < end + _length(data[:end]):
            chunk = connection.recv(_CHUNK)
            if not chunk:
                raise LoadError(f"port {target.port} closed a connection")
            data += chunk
    if not data.startswith(b"HTTP/1.1 200") or b'"errors"' in data:
        raise LoadError(f"port {target.port}: {data[:500].decode(errors='replace')}")
    return data[end:], len(data)


def children_cpu_seconds() -> float:
    """Returns the processor time of the child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
