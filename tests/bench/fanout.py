"""Messages to many WebSocket subscribers, compared with a bare broadcast of the same frames; and their memory."""

import itertools
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from functools import partial

import orjson
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.bench.client import Client
from tests.bench.load import LoadError
from tests.bench.processors import family_seconds, resident_kib
from tests.bench.session import PREPARED, Session
from tests.bench.subscribers import subscribers
from tests.support.kafka import free_port
from tests.support.many_subscribers import subscriber

MESSAGES = 20  # recorded in one transaction, or broadcast one after the other; then all subscribers are waited for
_SETTLE_SECONDS = 1.0
_DATABASE = "fanout"


def measure(session: Session) -> None:
    """Measures a new hub and a new bare server in each round. Rates are frames per second."""
    url = session.environment.database(_DATABASE, PREPARED)
    count = session.options.subscribers
    frame = ""
    for round in session.rounds:
        limits = {name: str(2 * count + 10) for name in ("CONNECTIONS_PER_ACTOR", "SUBSCRIPTIONS_PER_ACTOR")}
        settings = {f"XZEPR__STREAM__MAX_{name}": value for name, value in limits.items()}
        with session.environment.hub(url, **settings) as hub:
            client = Client(hub.port)
            send = partial(_record, session, client, itertools.count(next(session.numbers), MESSAGES))
            frame = frame or _frame(hub.port, client.token, send)
            session.record("fanout", "hub", round, _press(session, round, hub.port, client.token, hub.process, send))
        with _broadcasting(session, frame) as (port, process, send):
            session.record("fanout", "broadcast", round, _press(session, round, port, "", process, send))
    session.environment.drop(_DATABASE)


def _record(session: Session, client: Client, numbers: Iterator[int]) -> None:
    for _ in client.record(session.holdings.receivers[:1], MESSAGES, next(numbers)):
        pass


def _press(
    session: Session, round: int, port: int, token: str, process: int, send: Callable[[], object]
) -> dict[str, float]:
    """Sends messages until the time is over, each group after all subscribers have received the last one."""
    count = session.options.subscribers
    idle = resident_kib(process)
    with subscribers(port, token, count) as clients:
        time.sleep(_SETTLE_SECONDS)
        kib = (resident_kib(process) - idle) / count
        session.record("subscriber", "hub" if token else "broadcast", round, {"kib": kib})
        groups, used, began = 0, clients.cpu_seconds(), time.perf_counter()
        server = family_seconds(process)
        while time.perf_counter() - began < session.options.seconds:
            groups += 1
            send()
            clients.wait_for(groups * MESSAGES * count)
        took = time.perf_counter() - began
        server = family_seconds(process) - server
        used, received = clients.cpu_seconds() - used, clients.frames()
    if received != groups * MESSAGES * count:
        raise LoadError(f"{received} frames were received, not {groups * MESSAGES * count}")
    cpu = {"server_ms": server * 1000 / received, "generator": used / took}
    return {"rate": received / took, "messages": groups * MESSAGES} | cpu


def _frame(port: int, token: str, send: Callable[[], object]) -> str:
    """Returns the text of the first event's frame that a subscriber gets."""
    with subscriber(port, token, None) as connection:
        time.sleep(_SETTLE_SECONDS)
        send()
        while b'"EventRecorded"' not in (text := _read_frame(connection)):
            pass
    return text.decode()


def _read_frame(connection: socket.socket) -> bytes:
    """Returns the text of a frame from a server, of less than 64 KiB."""
    size = _read(connection, 2)[1]
    return _read(connection, int.from_bytes(_read(connection, 2)) if size == 126 else size)


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise LoadError("the hub closed a subscriber's connection")
        data += chunk
    return data


@contextmanager
def _broadcasting(session: Session, frame: str) -> Generator[tuple[int, int, Callable[[], object]]]:
    """Runs the bare server. Yields its port, its process and a function that broadcasts a group of messages."""
    port = free_port()
    with (
        session.environment.child(["tests.bench.broadcast", str(port)], port, "/", {}) as server,
        connect(
            f"ws://127.0.0.1:{port}", subprotocols=[Subprotocol("graphql-transport-ws")], compression=None
        ) as driver,
    ):
        order = orjson.dumps({"type": "broadcast", "count": MESSAGES, "frame": frame}).decode()
        yield server.port, server.process, lambda: driver.send(order)
