"""Thousands of subscribers: raw WebSockets in one separate process.

They read plain bytes or nothing, so that they need little processor time.
"""

import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import orjson

QUERY = (
    "subscription($after:String){stream(after:$after){__typename cursor"
    " ... on StreamMessage{id kind} ... on EventRecorded{event{id name version success}}}}"
)
_UPGRADE = (
    "GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)
_PONG_SECONDS = 4.0
_CHUNK = 1 << 18


class ManySubscribers:
    """Subscribers after one cursor. Either all read or none does."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def read(self, reading: bool) -> None:
        """Makes all subscribers read, or stop reading."""
        self._ask("read", reading)

    def received(self) -> int:
        """Returns the bytes that all subscribers have read so far."""
        return self._ask("received", None)

    def connected(self) -> int:
        """Returns the number of connections that the hub has not closed. Only readers notice that it has."""
        return self._ask("connected", None)

    def _ask(self, command: str, value: object) -> int:
        self._pipe.send((command, value))
        return self._pipe.recv()


@contextmanager
def many_subscribers(
    port: int, token: str, after: str | None, count: int, *, reading: bool
) -> Generator[ManySubscribers]:
    """Runs `count` subscribers of one user. All have sent their subscription when the block begins."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_run, args=(child, port, token, after, count, reading), daemon=True)
    process.start()
    child.close()
    try:
        assert parent.recv() == count
        yield ManySubscribers(parent)
    finally:
        process.terminate()
        process.join()


def frame(message: object) -> bytes:
    """Returns a client's text frame, masked with zeros."""
    text = orjson.dumps(message)
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


def subscriber(port: int, token: str, after: str | None) -> socket.socket:
    """Opens a connection and subscribes. Reads nothing beyond the acknowledgement."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(_UPGRADE.format(port=port).encode())
    _read_until(connection, b"\r\n\r\n")
    connection.sendall(frame({"type": "connection_init", "payload": {"token": token}}))
    _read_until(connection, b'"connection_ack"}')
    payload = {"query": QUERY, "variables": {"after": after}}
    connection.sendall(frame({"type": "subscribe", "id": "1", "payload": payload}))
    return connection


def _read_until(connection: socket.socket, end: bytes) -> None:
    received = b""
    while not received.endswith(end):
        byte = connection.recv(1)
        assert byte, received
        received += byte


def _run(pipe: Any, port: int, token: str, after: str | None, count: int, reading: bool) -> None:
    os.nice(5)  # so that the subscribers do not take the hub's processor
    members = _Members(port, token, after, count)
    members.read(reading)
    pipe.send(count)
    while True:
        members.receive()
        while pipe.poll():
            command, value = pipe.recv()
            if command == "read":
                members.read(value)
            pipe.send({"received": members.received, "connected": len(members.sockets)}.get(command, 0))


class _Members:
    """The sockets of all subscribers."""

    def __init__(self, port: int, token: str, after: str | None, count: int) -> None:
        self.sockets = {subscriber(port, token, after) for _ in range(count)}
        self.received = 0
        self._reading = False
        self._selector = selectors.DefaultSelector()
        self._sent_at = time.monotonic()
        for connection in self.sockets:
            connection.setblocking(False)

    def read(self, reading: bool) -> None:
        """Starts or stops reading."""
        if reading != self._reading:
            self._reading = reading
            for connection in self.sockets:
                if reading:
                    self._selector.register(connection, selectors.EVENT_READ)
                else:
                    self._selector.unregister(connection)

    def receive(self) -> None:
        """Reads available data, waiting up to 50 ms for it, and sends pongs from time to time."""
        if not self._reading:
            return time.sleep(0.05)
        for key, _ in self._selector.select(timeout=0.05):
            connection: Any = key.fileobj
            try:
                chunk = connection.recv(_CHUNK)
            except OSError:
                chunk = b""
            self.received += len(chunk)
            if not chunk:
                self._selector.unregister(connection)
                self.sockets.remove(connection)
        if time.monotonic() - self._sent_at > _PONG_SECONDS:
            self._sent_at = time.monotonic()
            for connection in self.sockets:
                connection.send(frame({"type": "pong"}))
        return None
