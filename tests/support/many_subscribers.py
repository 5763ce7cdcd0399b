"""Subscribers by the thousand: raw WebSockets in a process of their own, read as bytes or not at all, so that they cost
the machine next to nothing."""

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


class Crowd:
    """Subscribers after one cursor, which all read or all do not."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe

    def read(self, reading: bool) -> None:
        """From now on they read what comes, or nothing."""
        self._ask("read", reading)

    def received(self) -> int:
        """Bytes that they have read so far."""
        return self._ask("received", None)

    def connected(self) -> int:
        """How many of them the hub has not closed; known of those who read."""
        return self._ask("connected", None)

    def _ask(self, what: str, value: object) -> int:
        self._pipe.send((what, value))
        return self._pipe.recv()


@contextmanager
def crowd(port: int, token: str, after: str | None, count: int, *, reading: bool) -> Generator[Crowd]:
    """So many subscribers of one user, all of whom have asked for the stream when the body begins."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_live, args=(theirs, port, token, after, count, reading), daemon=True)
    process.start()
    theirs.close()
    try:
        assert ours.recv() == count
        yield Crowd(ours)
    finally:
        process.terminate()
        process.join()


def frame(message: object) -> bytes:
    """A text frame as a client sends it, masked with zeros."""
    text = orjson.dumps(message)
    size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + text


def subscriber(port: int, token: str, after: str | None) -> socket.socket:
    """A socket over which all was said that makes it a subscriber, and of which nothing was read beyond that."""
    one = socket.create_connection(("127.0.0.1", port))
    one.sendall(_UPGRADE.format(port=port).encode())
    _read_until(one, b"\r\n\r\n")
    one.sendall(frame({"type": "connection_init", "payload": {"token": token}}))
    _read_until(one, b'"connection_ack"}')
    payload = {"query": QUERY, "variables": {"after": after}}
    one.sendall(frame({"type": "subscribe", "id": "1", "payload": payload}))
    return one


def _read_until(one: socket.socket, end: bytes) -> None:
    said = b""
    while not said.endswith(end):
        byte = one.recv(1)
        assert byte, said
        said += byte


def _live(pipe: Any, port: int, token: str, after: str | None, count: int, reading: bool) -> None:
    os.nice(5)  # who reads must not take the hub's processor
    members = _Members(port, token, after, count)
    members.read(reading)
    pipe.send(count)
    while True:
        members.receive()
        while pipe.poll():
            what, value = pipe.recv()
            if what == "read":
                members.read(value)
            pipe.send({"received": members.received, "connected": len(members.sockets)}.get(what, 0))


class _Members:
    """The sockets of a crowd."""

    def __init__(self, port: int, token: str, after: str | None, count: int) -> None:
        self.sockets = {subscriber(port, token, after) for _ in range(count)}
        self.received = 0
        self._reading = False
        self._selector = selectors.DefaultSelector()
        self._spoke = time.monotonic()
        for one in self.sockets:
            one.setblocking(False)

    def read(self, reading: bool) -> None:
        """Begins or stops to read."""
        if reading != self._reading:
            self._reading = reading
            for one in self.sockets:
                if reading:
                    self._selector.register(one, selectors.EVENT_READ)
                else:
                    self._selector.unregister(one)

    def receive(self) -> None:
        """Reads what has come, waiting up to 50 ms for it, and shows signs of life."""
        if not self._reading:
            return time.sleep(0.05)
        for key, _ in self._selector.select(timeout=0.05):
            one: Any = key.fileobj
            try:
                chunk = one.recv(_CHUNK)
            except OSError:
                chunk = b""
            self.received += len(chunk)
            if not chunk:
                self._selector.unregister(one)
                self.sockets.remove(one)
        if time.monotonic() - self._spoke > _PONG_SECONDS:
            self._spoke = time.monotonic()
            for one in self.sockets:
                one.send(frame({"type": "pong"}))
        return None
