"""Mistakes of clients write no lines into the hub's log, and no secrets of their addresses."""

import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.server import ServedHub

PROTOCOLS = [Subprotocol("graphql-transport-ws")]
SECRET = "s3cret-ticket"


def socket_url(hub: ServedHub, path: str = "/graphql", parameter: str = "token") -> str:
    """Returns the address of a WebSocket, with a credential in its query."""
    return f"ws://127.0.0.1:{hub.port}{path}?{parameter}={SECRET}"


@pytest.fixture
def quiet(served_hub: ServedHub):
    """A hub whose log must not change during the test."""
    while not any(line.startswith("  Kafka") for line in served_hub.lines):  # the last line of the start
        time.sleep(0.01)
    before = len(served_hub.lines)
    yield served_hub
    httpx2.get(f"{served_hub.url}/health", trust_env=False)  # a later response: earlier lines have been written
    assert served_hub.lines[before:] == []


def test_accepted_websocket_is_not_logged(quiet: ServedHub) -> None:
    with connect(socket_url(quiet), subprotocols=PROTOCOLS, proxy=None):
        pass


def test_websocket_with_a_ticket_is_not_logged(quiet: ServedHub) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(quiet, parameter="ticket"), subprotocols=PROTOCOLS, proxy=None)
    assert refused.value.response.status_code == 401


def test_unknown_websocket_is_404(quiet: ServedHub) -> None:
    with pytest.raises(InvalidStatus) as refused, connect(socket_url(quiet, "/nowhere"), proxy=None):
        pass
    response = refused.value.response
    assert response.status_code == 404
    assert b"NOT_FOUND" in response.body
    assert SECRET.encode() not in response.body


def test_rejected_handshake_is_not_logged(quiet: ServedHub) -> None:
    origin = "https://evil.example"
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(quiet), subprotocols=PROTOCOLS, additional_headers={"Origin": origin}, proxy=None)
    assert refused.value.response.status_code == 403
    assert b"ORIGIN_NOT_ALLOWED" in refused.value.response.body


def test_text_that_is_not_utf8_is_not_logged(quiet: ServedHub) -> None:
    with connect(socket_url(quiet), subprotocols=PROTOCOLS, proxy=None) as socket:
        socket.send(b"\xff\xfe", text=True)
        with pytest.raises(ConnectionClosedError) as closed:
            socket.recv(10)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1007


def test_invalid_requests_are_not_logged(quiet: ServedHub) -> None:
    for path in (f"/nowhere?ticket={SECRET}", f"/graphql/?ticket={SECRET}", f"/health/?x={SECRET}"):
        response = httpx2.get(f"{quiet.url}{path}", trust_env=False)
        assert response.status_code == 404
        assert SECRET not in response.text
        assert "location" not in response.headers
