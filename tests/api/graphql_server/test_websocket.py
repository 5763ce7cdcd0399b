"""GraphQL over WebSocket with a real server and a real client: the protocol's rules and close codes."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.api.graphql_server.small_schema import BEARER, FakeBackend, app, served
from tests.support.hub import until
from xzepr.api.graphql_server.limits import ConnectionLimits, SocketLimits

GOOD: dict[str, object] = {"type": "connection_init", "payload": {"token": "good"}}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@asynccontextmanager
async def opened(
    backend: FakeBackend, init: dict[str, object] | None = GOOD, **options: Any
) -> AsyncGenerator[ClientConnection]:
    """Yields a socket, after `connection_init` and its acknowledgement unless `init` is None."""
    headers = options.pop("headers", None)
    async with (
        served(app(backend, **options)) as port,
        connect(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=headers,
            ping_interval=None,
        ) as socket,
    ):
        if init is not None:
            await send(socket, init)
            assert await receive(socket) == {"type": "connection_ack"}
        yield socket


async def send(socket: ClientConnection, message: object) -> None:
    await socket.send(message if isinstance(message, str) else orjson.dumps(message).decode())


async def receive(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def close_code_of(socket: ClientConnection) -> int | None:
    """Returns the code with which the server closes, ignoring messages before it."""
    async with asyncio.timeout(5):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
    return socket.close_code


def subscribe(id: str, query: str, **payload: object) -> dict[str, object]:
    return {"id": id, "type": "subscribe", "payload": {"query": query, **payload}}


async def still_serves(socket: ClientConnection) -> bool:
    await send(socket, subscribe("again", "{ hello }"))
    while True:
        message = await receive(socket)
        if message == {"id": "again", "type": "next", "payload": {"data": {"hello": "hello world"}}}:
            return True


async def test_subscription_sends_messages_then_complete(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("a", "subscription($n: Int!) { ticks(count: $n) { square } }", variables={"n": 2}))
        assert [await receive(socket) for _ in range(3)] == [
            {"id": "a", "type": "next", "payload": {"data": {"ticks": {"square": 1}}}},
            {"id": "a", "type": "next", "payload": {"data": {"ticks": {"square": 4}}}},
            {"id": "a", "type": "complete"},
        ]
    assert backend.loads == [[1], [2]]
    assert backend.observed == [("subscription", "ok")]


async def test_websocket_runs_query_or_mutation(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        for query, data in (("{ me }", {"me": "ada"}), ('mutation { login(name: "a") }', {"login": "token of a"})):
            await send(socket, subscribe("a", query))
            assert await receive(socket) == {"id": "a", "type": "next", "payload": {"data": data}}
            assert await receive(socket) == {"id": "a", "type": "complete"}


async def test_operation_extensions_reach_resolvers(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        extensions = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        await send(socket, subscribe("a", "subscription { ticks(count: 1) { id } }", extensions=extensions))
        assert (await receive(socket))["type"] == "next"
        assert await receive(socket) == {"id": "a", "type": "complete"}
        await send(socket, subscribe("b", "{ hello }"))
        await receive(socket)
    assert [context.extensions for context in backend.contexts] == [extensions, extensions, {}]


async def test_failed_field_is_a_next_with_errors(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("a", "{ hello missing }"))
        payload = (await receive(socket))["payload"]
        assert payload["data"] == {"hello": "hello world", "missing": None}
        assert payload["errors"][0]["extensions"]["code"] == "NOT_FOUND"
        assert await receive(socket) == {"id": "a", "type": "complete"}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (subscribe("a", "{ hello"), "GRAPHQL_PARSE_FAILED"),
        (subscribe("a", ""), "GRAPHQL_PARSE_FAILED"),
        (subscribe("a", "{ nothing }"), "GRAPHQL_VALIDATION_FAILED"),
        (subscribe("a", "query x { hello } query y { hello }"), "OPERATION_RESOLUTION_FAILURE"),
        (subscribe("a", "query x { hello }", operationName="z"), "OPERATION_RESOLUTION_FAILURE"),
        (subscribe("a", "query ($n: String!) { hello(name: $n) }", variables={"n": 5}), "INVALID_INPUT"),
        (subscribe("a", "subscription ($n: Int!) { ticks(count: $n) { id } }"), "INVALID_INPUT"),
        (
            '{"id":"a","type":"subscribe","payload":{"query":"{hello}","variables":{"x":123456789012345678901}}}',
            "INVALID_INPUT",
        ),
        (subscribe("a", "{ " + "hello " * 20_000 + "}"), "DOCUMENT_TOO_COMPLEX"),
        (subscribe("a", 'subscription { ticks(after: "1000") { id } }'), "STREAM_DIVERGED"),
        (subscribe("a", "subscription { rejected }"), "NOT_FOUND"),
    ],
)
async def test_invalid_operation_does_not_affect_others(backend: FakeBackend, message: object, code: str) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("other", "subscription { ticks(count: 1, pause: true) { id } }"))
        assert (await receive(socket))["id"] == "other"
        await send(socket, message)
        error = await receive(socket)
        assert (error["id"], error["type"]) == ("a", "error")
        assert [entry["extensions"]["code"] for entry in error["payload"]] == [code]
        assert not backend.stream_closed.is_set() or code == "STREAM_DIVERGED"
        assert await still_serves(socket)
    assert [outcome for _, outcome in backend.observed if outcome != "ok"] == [code] or code == "INVALID_INPUT"


@pytest.mark.parametrize("value", ["1e999", '"\\ud800"', '"\\u0000"', "9" * 5000, "-9223372036854775809"])
async def test_lossy_variable_is_named_by_pointer(backend: FakeBackend, value: str) -> None:
    async with opened(backend) as socket:
        payload = '{"query":"{ hello }","variables":{"thing":{"tags":[' + value + "]}}}"
        await send(socket, '{"id":"a","type":"subscribe","payload":' + payload + "}")
        error = await receive(socket)
        assert (error["id"], error["type"]) == ("a", "error")
        assert error["payload"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "tags/0"}
        assert await still_serves(socket)


async def test_broken_stream_ends_with_masked_error(backend: FakeBackend) -> None:
    async with opened(backend, headers={"X-Request-ID": "req-1"}) as socket:
        await send(socket, subscribe("a", "subscription { breaking }"))
        assert (await receive(socket))["payload"] == {"data": {"breaking": 1}}
        assert await receive(socket) == {
            "id": "a",
            "type": "error",
            "payload": [{"message": "internal error", "extensions": {"code": "INTERNAL", "requestId": "req-1"}}],
        }
        assert await still_serves(socket)


@pytest.mark.parametrize(
    "message",
    [
        "5",
        "null",
        "[]",
        '"x"',
        "",
        "{",
        "[" * 100_000,
        "{}",
        '{"type":5}',
        '{"type":"hello"}',
        '{"type":"next","id":"a"}',
        '{"type":"connection_ack"}',
        '{"type":"ping","payload":5}',
        '{"type":"pong","payload":[]}',
        '{"type":"ping","payload":{"x":1e999}}',
        '{"type":"ping","payload":{"x":"\\ud800"}}',
        '{"type":"ping","payload":{"apiKey":"xzepr_\\ud800"}}',
        '{"type":"pong","payload":{"x":123456789012345678901}}',
        '{"type":"ping","payload":' + '{"a":' * 254 + "1" + "}" * 254 + "}",
        '{"type":"connection_init","payload":"x"}',
        '{"type":"complete"}',
        '{"type":"subscribe","payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"","payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":5,"payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"a"}',
        '{"type":"subscribe","id":"\\ud800","payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"a","x":1e999,"payload":{"query":"{hello}"}}',
        '{"type":"subscribe","id":"a","payload":{}}',
        '{"type":"subscribe","id":"a","payload":{"query":5}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{hello}","variables":[]}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{hello}","operationName":1}}',
        '{"type":"subscribe","id":"a","payload":{"query":"{hello}","extensions":1}}',
    ],
)
async def test_invalid_message_closes_with_4400(backend: FakeBackend, message: str) -> None:
    async with opened(backend) as socket:
        await send(socket, message)
        assert await close_code_of(socket) == 4400


async def test_ping_of_maximum_depth_is_answered(backend: FakeBackend) -> None:
    payload = '{"a":' * 253 + "1" + "}" * 253
    async with opened(backend) as socket:
        await send(socket, '{"type":"ping","payload":' + payload + "}")
        assert await asyncio.wait_for(socket.recv(), 5) == '{"type":"pong","payload":' + payload + "}"


async def test_binary_frame_closes_with_4400(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await socket.send(b'{"type":"ping"}')
        assert await close_code_of(socket) == 4400


async def test_oversized_message_closes_with_1009(backend: FakeBackend) -> None:
    async with opened(backend, sockets=SocketLimits(max_frame_bytes=1000)) as socket:
        await send(socket, {"type": "ping", "payload": {"x": "ä" * 500}})
        assert await close_code_of(socket) == 1009


async def test_subscribe_before_ack_closes_with_4401(backend: FakeBackend) -> None:
    async with opened(backend, init=None) as socket:
        await send(socket, subscribe("a", "{ hello }"))
        assert await close_code_of(socket) == 4401
    assert backend.contexts == []


async def test_second_init_closes_with_4429(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, GOOD)
        assert await close_code_of(socket) == 4429


async def test_operation_id_in_use_closes_with_4409(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        for _ in range(2):
            await send(socket, subscribe("a", "subscription { ticks(pause: true) { id } }"))
        assert await close_code_of(socket) == 4409
        await asyncio.wait_for(backend.stream_closed.wait(), 5)


async def test_missing_init_closes_with_4408(backend: FakeBackend) -> None:
    async with opened(backend, init=None, sockets=SocketLimits(init_timeout_seconds=0.05)) as socket:
        await send(socket, {"type": "ping"})
        assert await close_code_of(socket) == 4408


@pytest.mark.parametrize("offered", [[], ["graphql-ws"]])
async def test_other_subprotocol_closes_with_4406(backend: FakeBackend, offered: list[str]) -> None:
    protocols = [Subprotocol(name) for name in offered] or None
    async with (
        served(app(backend)) as port,
        connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols) as socket,
    ):
        assert socket.subprotocol is None
        assert await close_code_of(socket) == 4406


@pytest.mark.parametrize(
    "payload",
    [
        {"token": "wrong"},
        {"token": "old"},
        {"token": 5},
        {"Authorization": "good"},
        {"Authorization": "Bearer wrong"},
        {"X-API-Key": "wrong"},
        {"token": "good", "apiKey": "other"},
    ],
)
async def test_invalid_credential_closes_with_4403(backend: FakeBackend, payload: object) -> None:
    async with opened(backend, init=None) as socket:
        await send(socket, {"type": "connection_init", "payload": payload})
        assert await close_code_of(socket) == 4403


@pytest.mark.parametrize(("token", "code"), [("offline", 1013), ("broken", 4500)])
async def test_failing_authentication_has_its_own_close_code(backend: FakeBackend, token: str, code: int) -> None:
    async with opened(backend, init=None) as socket:
        await send(socket, {"type": "connection_init", "payload": {"token": token}})
        assert await close_code_of(socket) == code


@pytest.mark.parametrize(
    "payload",
    [
        {"token": "good"},
        {"Authorization": "Bearer good"},
        {"authorization": "Bearer good"},
        {"X-API-Key": "good"},
        {"apiKey": "good"},
    ],
)
async def test_credential_is_accepted_under_each_name(backend: FakeBackend, payload: object) -> None:
    async with opened(backend, init={"type": "connection_init", "payload": payload}) as socket:
        await send(socket, subscribe("a", "{ me }"))
        assert (await receive(socket))["payload"] == {"data": {"me": "ada"}}


async def test_handshake_headers_are_accepted_as_credentials(backend: FakeBackend) -> None:
    async with opened(backend, init={"type": "connection_init"}, headers=BEARER) as socket:
        await send(socket, subscribe("a", "{ me }"))
        assert (await receive(socket))["payload"] == {"data": {"me": "ada"}}


async def test_anonymous_client_may_only_log_in(backend: FakeBackend) -> None:
    async with opened(backend, init={"type": "connection_init", "payload": None}) as socket:
        for query in ("{ hello }", "subscription { ticks { id } }", "{ __schema { types { name } } }"):
            await send(socket, subscribe("a", query))
            error = await receive(socket)
            assert (error["type"], error["payload"][0]["extensions"]["code"]) == ("error", "UNAUTHENTICATED")
        await send(socket, subscribe("a", 'mutation { login(name: "a") }'))
        assert (await receive(socket))["payload"] == {"data": {"login": "token of a"}}


async def test_ping_before_init_is_answered_with_its_payload(backend: FakeBackend) -> None:
    async with opened(backend, init=None) as socket:
        await send(socket, {"type": "ping", "payload": {"a": 1}})
        assert await receive(socket) == {"type": "pong", "payload": {"a": 1}}
        await send(socket, {"type": "ping"})
        assert await receive(socket) == {"type": "pong"}


async def test_complete_frees_the_operation_id(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await receive(socket)
        await send(socket, {"id": "a", "type": "complete"})
        await send(socket, subscribe("a", "{ hello }"))
        assert await receive(socket) == {"id": "a", "type": "next", "payload": {"data": {"hello": "hello world"}}}
        await asyncio.wait_for(backend.stream_closed.wait(), 5)
        await receive(socket)
        await send(socket, {"id": "unknown", "type": "complete"})
        assert await still_serves(socket)


async def test_disconnect_ends_streams_but_not_mutations(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await receive(socket)
        await send(socket, subscribe("b", 'mutation { record(name: "x") }'))
        await asyncio.wait_for(backend.recording.wait(), 5)
        await socket.close()
        await asyncio.wait_for(backend.stream_closed.wait(), 5)
        backend.operation_observed.clear()
        backend.may_record.set()
        await asyncio.wait_for(backend.operation_observed.wait(), 5)
    assert backend.recorded == ["x"]


async def test_operations_beyond_the_limit_are_rejected(backend: FakeBackend) -> None:
    async with opened(backend, sockets=SocketLimits(max_operations=1)) as socket:
        await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await receive(socket)
        await send(socket, subscribe("b", "{ hello }"))
        error = await receive(socket)
        assert (error["id"], error["payload"][0]["extensions"]["code"]) == ("b", "TOO_MANY_OPERATIONS")
        await send(socket, {"id": "a", "type": "complete"})
        assert await still_serves(socket)


async def status_of_handshake(port: int, headers: dict[str, str]) -> int:
    other_headers = dict(headers)
    host = other_headers.pop("Host", f"127.0.0.1:{port}")
    name, _, _ = host.partition(":")
    try:
        async with connect(
            f"ws://{name}:{port}/graphql",
            host="127.0.0.1",
            port=port,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=other_headers,
        ):
            return 101
    except InvalidStatus as rejection:
        return rejection.response.status_code


async def test_handshake_from_other_origin_is_rejected(backend: FakeBackend) -> None:
    async with served(app(backend, origins=("https://console.example.org",))) as port:
        for origin, status in (
            (f"http://127.0.0.1:{port}", 101),
            ("https://console.example.org", 101),
            ("http://127.0.0.1", 403),
            ("http://127.0.0.1:1", 403),
            ("https://evil.example.org", 403),
            ("https://console.example.org.evil.org", 403),
            ("null", 403),
            ("file://", 403),
        ):
            assert (origin, await status_of_handshake(port, {"Origin": origin})) == (origin, status)
    assert backend.contexts == []


async def test_ticket_opens_no_websocket(backend: FakeBackend) -> None:
    async with served(app(backend)) as port:
        url = f"ws://127.0.0.1:{port}/graphql?ticket=ticket"
        with pytest.raises(InvalidStatus) as rejection:
            async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], additional_headers=BEARER):
                pass
        assert rejection.value.response.status_code == 401
    assert backend.tickets == {"ticket": 1}
    assert backend.lookups == {}


async def test_handshake_for_other_host_is_rejected(backend: FakeBackend) -> None:
    async with served(app(backend, hosts=("hub",))) as port:
        assert await status_of_handshake(port, {"Host": "hub"}) == 101
        assert await status_of_handshake(port, {"Host": "rebound.example.org"}) == 421


async def test_invalidated_token_closes_with_4403(backend: FakeBackend) -> None:
    for state in ("old", "revoked"):
        backend.token_states.clear()
        async with opened(backend) as socket:
            await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
            await receive(socket)
            backend.stream_closed.clear()
            backend.token_states["good"] = state
            assert await close_code_of(socket) == 4403
            await asyncio.wait_for(backend.stream_closed.wait(), 5)
    assert backend.subscribers["websocket"] == 0


async def test_revoked_permissions_close_with_4403(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        backend.token_states["good"] = "narrow"
        assert await close_code_of(socket) == 4403


@pytest.mark.parametrize("state", ["offline", "broken", "slow"])
async def test_failing_authentication_keeps_open_connections(backend: FakeBackend, state: str) -> None:
    async with opened(backend) as socket:
        backend.token_states["good"] = state
        lookups = backend.lookups["good"]
        await until(lambda: backend.lookups["good"] > lookups + 2)
        assert await still_serves(socket)
        backend.token_states["good"] = "old"
        assert await close_code_of(socket) == 4403


async def test_anonymous_connection_needs_no_lookup(backend: FakeBackend) -> None:
    async with opened(backend, init={"type": "connection_init"}) as socket:
        await send(socket, subscribe("a", 'mutation { login(name: "a") }'))
        assert (await receive(socket))["payload"] == {"data": {"login": "token of a"}}
    assert backend.lookups == {}


async def test_token_in_a_ping_replaces_the_first(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, {"type": "ping", "payload": {"token": "fresh"}})
        assert await receive(socket) == {"type": "pong", "payload": {"renewed": True}}
        backend.token_states["good"] = "old"
        lookups = backend.lookups["fresh"]
        await until(lambda: backend.lookups["fresh"] > lookups + 2)
        assert await still_serves(socket)
        backend.token_states["fresh"] = "old"
        assert await close_code_of(socket) == 4403


@pytest.mark.parametrize("payload", [{"token": "wrong"}, {"token": "old"}, {"apiKey": "bob"}, {"token": "narrow"}])
async def test_unsuitable_token_in_a_ping_closes_with_4403(backend: FakeBackend, payload: object) -> None:
    async with opened(backend) as socket:
        await send(socket, {"type": "ping", "payload": payload})
        assert await close_code_of(socket) == 4403


async def test_token_in_a_ping_cannot_sign_in_anonymous_client(backend: FakeBackend) -> None:
    async with opened(backend, init={"type": "connection_init"}) as socket:
        await send(socket, {"type": "ping", "payload": {"token": "good"}})
        assert await close_code_of(socket) == 4403


async def test_token_in_a_ping_before_init_closes_with_4401(backend: FakeBackend) -> None:
    async with opened(backend, init=None) as socket:
        await send(socket, {"type": "ping", "payload": {"token": "good"}})
        assert await close_code_of(socket) == 4401


async def test_uncheckable_token_in_a_ping_keeps_the_first(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, {"type": "ping", "payload": {"token": "offline"}})
        assert await receive(socket) == {"type": "pong", "payload": {"renewed": False}}
        assert await still_serves(socket)
        backend.token_states["good"] = "old"
        assert await close_code_of(socket) == 4403


async def test_running_subscriptions_are_counted(backend: FakeBackend) -> None:
    async with opened(backend) as socket:
        await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await receive(socket)
        await send(socket, subscribe("b", "{ hello }"))
        await receive(socket)
        assert backend.subscribers == {"websocket": 1}
        await send(socket, {"id": "a", "type": "complete"})
        await until(lambda: backend.subscribers["websocket"] == 0)


@pytest.mark.parametrize(
    ("limits", "code", "retry_after"),
    [
        (ConnectionLimits(max_subscriptions_per_actor=1), "TOO_MANY_SUBSCRIPTIONS", 10),
        (ConnectionLimits(max_subscriptions=1), "SUBSCRIPTIONS_FULL", 10),
    ],
)
async def test_rejected_subscription_names_the_limit(
    backend: FakeBackend, limits: ConnectionLimits, code: str, retry_after: int
) -> None:
    async with opened(backend, connection_limits=limits) as socket:
        await send(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await receive(socket)
        await send(socket, subscribe("b", "subscription { ticks(count: 1, pause: true) { id } }"))
        error = await receive(socket)
        assert (error["id"], error["type"]) == ("b", "error")
        assert error["payload"][0]["extensions"] == {"code": code, "retryAfter": retry_after}
        assert backend.subscribers == {"websocket": 1}
        assert await still_serves(socket)
        await send(socket, {"id": "a", "type": "complete"})
        await until(lambda: backend.subscribers["websocket"] == 0)
        await send(socket, subscribe("c", "subscription { ticks(count: 1) { id } }"))
        assert [(await receive(socket))["id"] for _ in range(3)] == ["again", "c", "c"]


async def test_connection_beyond_the_limit_is_rejected_with_503(backend: FakeBackend) -> None:
    async with served(app(backend, connection_limits=ConnectionLimits(max_connections=1))) as port:
        url, protocols = f"ws://127.0.0.1:{port}/graphql", [Subprotocol("graphql-transport-ws")]
        async with connect(url, subprotocols=protocols):
            assert await status_of_handshake(port, {}) == 503

        async def connection_is_accepted() -> bool:
            return await status_of_handshake(port, {}) == 101

        await until(connection_is_accepted)
