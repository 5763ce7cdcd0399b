"""GraphQL over WebSocket, on a real server with a real client: the protocol's rules and close codes."""

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

from tests.api.graphql_server.small_schema import BEARER, World, app, served
from tests.support.hub import until
from xzepr.api.graphql.capacity import CapacityLimits
from xzepr.api.graphql.connection import SocketLimits

GOOD: dict[str, object] = {"type": "connection_init", "payload": {"token": "good"}}


@pytest.fixture
def world() -> World:
    return World()


@asynccontextmanager
async def opened(
    world: World, init: dict[str, object] | None = GOOD, **options: Any
) -> AsyncGenerator[ClientConnection]:
    """A socket; after `connection_init` and its answer unless there is none."""
    headers = options.pop("headers", None)
    async with (
        served(app(world, **options)) as port,
        connect(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=headers,
            ping_interval=None,
        ) as socket,
    ):
        if init is not None:
            await say(socket, init)
            assert await hear(socket) == {"type": "connection_ack"}
        yield socket


async def say(socket: ClientConnection, message: object) -> None:
    await socket.send(message if isinstance(message, str) else orjson.dumps(message).decode())


async def hear(socket: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def closed(socket: ClientConnection) -> int | None:
    """The code with which the server closes, whatever it still says before."""
    async with asyncio.timeout(5):
        with suppress(ConnectionClosed):
            async for _ in socket:
                pass
    return socket.close_code


def subscribe(id: str, query: str, **payload: object) -> dict[str, object]:
    return {"id": id, "type": "subscribe", "payload": {"query": query, **payload}}


async def still_serves(socket: ClientConnection) -> bool:
    await say(socket, subscribe("again", "{ hello }"))
    while True:
        message = await hear(socket)
        if message == {"id": "again", "type": "next", "payload": {"data": {"hello": "hello world"}}}:
            return True


async def test_subscription_sends_messages_then_complete(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("a", "subscription($n: Int!) { ticks(count: $n) { square } }", variables={"n": 2}))
        assert [await hear(socket) for _ in range(3)] == [
            {"id": "a", "type": "next", "payload": {"data": {"ticks": {"square": 1}}}},
            {"id": "a", "type": "next", "payload": {"data": {"ticks": {"square": 4}}}},
            {"id": "a", "type": "complete"},
        ]
    assert world.loads == [[1], [2]]
    assert world.observed == [("subscription", "ok")]


async def test_websocket_runs_query_or_mutation(world: World) -> None:
    async with opened(world) as socket:
        for query, data in (("{ me }", {"me": "ada"}), ('mutation { login(name: "a") }', {"login": "token of a"})):
            await say(socket, subscribe("a", query))
            assert await hear(socket) == {"id": "a", "type": "next", "payload": {"data": data}}
            assert await hear(socket) == {"id": "a", "type": "complete"}


async def test_operation_extensions_reach_resolvers(world: World) -> None:
    async with opened(world) as socket:
        said = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        await say(socket, subscribe("a", "subscription { ticks(count: 1) { id } }", extensions=said))
        assert (await hear(socket))["type"] == "next"
        assert await hear(socket) == {"id": "a", "type": "complete"}
        await say(socket, subscribe("b", "{ hello }"))
        await hear(socket)
    assert [context.extensions for context in world.contexts] == [said, said, {}]


async def test_failed_field_is_a_next_with_errors(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("a", "{ hello missing }"))
        payload = (await hear(socket))["payload"]
        assert payload["data"] == {"hello": "hello world", "missing": None}
        assert payload["errors"][0]["extensions"]["code"] == "NOT_FOUND"
        assert await hear(socket) == {"id": "a", "type": "complete"}


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
        (subscribe("a", "subscription { refused }"), "NOT_FOUND"),
    ],
)
async def test_invalid_operation_does_not_affect_others(world: World, message: object, code: str) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("other", "subscription { ticks(count: 1, pause: true) { id } }"))
        assert (await hear(socket))["id"] == "other"
        await say(socket, message)
        error = await hear(socket)
        assert (error["id"], error["type"]) == ("a", "error")
        assert [one["extensions"]["code"] for one in error["payload"]] == [code]
        assert not world.closed_stream.is_set() or code == "STREAM_DIVERGED"
        assert await still_serves(socket)
    assert [outcome for _, outcome in world.observed if outcome != "ok"] == [code] or code == "INVALID_INPUT"


@pytest.mark.parametrize("value", ["1e999", '"\\ud800"', '"\\u0000"', "9" * 5000, "-9223372036854775809"])
async def test_lossy_variable_is_named_by_pointer(world: World, value: str) -> None:
    async with opened(world) as socket:
        payload = '{"query":"{ hello }","variables":{"thing":{"tags":[' + value + "]}}}"
        await say(socket, '{"id":"a","type":"subscribe","payload":' + payload + "}")
        error = await hear(socket)
        assert (error["id"], error["type"]) == ("a", "error")
        assert error["payload"][0]["extensions"] == {"code": "INVALID_INPUT", "field": "tags/0"}
        assert await still_serves(socket)


async def test_broken_stream_ends_with_masked_error(world: World) -> None:
    async with opened(world, headers={"X-Request-ID": "req-1"}) as socket:
        await say(socket, subscribe("a", "subscription { breaking }"))
        assert (await hear(socket))["payload"] == {"data": {"breaking": 1}}
        assert await hear(socket) == {
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
async def test_invalid_message_closes_with_4400(world: World, message: str) -> None:
    async with opened(world) as socket:
        await say(socket, message)
        assert await closed(socket) == 4400


async def test_ping_of_maximum_depth_is_answered(world: World) -> None:
    payload = '{"a":' * 253 + "1" + "}" * 253
    async with opened(world) as socket:
        await say(socket, '{"type":"ping","payload":' + payload + "}")
        assert await asyncio.wait_for(socket.recv(), 5) == '{"type":"pong","payload":' + payload + "}"


async def test_binary_frame_closes_with_4400(world: World) -> None:
    async with opened(world) as socket:
        await socket.send(b'{"type":"ping"}')
        assert await closed(socket) == 4400


async def test_oversized_message_closes_with_1009(world: World) -> None:
    async with opened(world, sockets=SocketLimits(max_frame_bytes=1000)) as socket:
        await say(socket, {"type": "ping", "payload": {"x": "ä" * 500}})
        assert await closed(socket) == 1009


async def test_subscribe_before_ack_closes_with_4401(world: World) -> None:
    async with opened(world, init=None) as socket:
        await say(socket, subscribe("a", "{ hello }"))
        assert await closed(socket) == 4401
    assert world.contexts == []


async def test_second_init_closes_with_4429(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, GOOD)
        assert await closed(socket) == 4429


async def test_operation_id_in_use_closes_with_4409(world: World) -> None:
    async with opened(world) as socket:
        for _ in range(2):
            await say(socket, subscribe("a", "subscription { ticks(pause: true) { id } }"))
        assert await closed(socket) == 4409
        await asyncio.wait_for(world.closed_stream.wait(), 5)


async def test_missing_init_closes_with_4408(world: World) -> None:
    async with opened(world, init=None, sockets=SocketLimits(init_timeout_seconds=0.05)) as socket:
        await say(socket, {"type": "ping"})
        assert await closed(socket) == 4408


@pytest.mark.parametrize("offered", [[], ["graphql-ws"]])
async def test_other_subprotocol_closes_with_4406(world: World, offered: list[str]) -> None:
    protocols = [Subprotocol(name) for name in offered] or None
    async with (
        served(app(world)) as port,
        connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=protocols) as socket,
    ):
        assert socket.subprotocol is None
        assert await closed(socket) == 4406


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
async def test_invalid_credential_closes_with_4403(world: World, payload: object) -> None:
    async with opened(world, init=None) as socket:
        await say(socket, {"type": "connection_init", "payload": payload})
        assert await closed(socket) == 4403


@pytest.mark.parametrize(("token", "code"), [("offline", 1013), ("broken", 4500)])
async def test_failing_authentication_has_its_own_close_code(world: World, token: str, code: int) -> None:
    async with opened(world, init=None) as socket:
        await say(socket, {"type": "connection_init", "payload": {"token": token}})
        assert await closed(socket) == code


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
async def test_credential_is_accepted_under_each_name(world: World, payload: object) -> None:
    async with opened(world, init={"type": "connection_init", "payload": payload}) as socket:
        await say(socket, subscribe("a", "{ me }"))
        assert (await hear(socket))["payload"] == {"data": {"me": "ada"}}


async def test_handshake_headers_are_accepted_as_credentials(world: World) -> None:
    async with opened(world, init={"type": "connection_init"}, headers=BEARER) as socket:
        await say(socket, subscribe("a", "{ me }"))
        assert (await hear(socket))["payload"] == {"data": {"me": "ada"}}


async def test_anonymous_client_may_only_log_in(world: World) -> None:
    async with opened(world, init={"type": "connection_init", "payload": None}) as socket:
        for query in ("{ hello }", "subscription { ticks { id } }", "{ __schema { types { name } } }"):
            await say(socket, subscribe("a", query))
            error = await hear(socket)
            assert (error["type"], error["payload"][0]["extensions"]["code"]) == ("error", "UNAUTHENTICATED")
        await say(socket, subscribe("a", 'mutation { login(name: "a") }'))
        assert (await hear(socket))["payload"] == {"data": {"login": "token of a"}}


async def test_ping_before_init_is_answered_with_its_payload(world: World) -> None:
    async with opened(world, init=None) as socket:
        await say(socket, {"type": "ping", "payload": {"a": 1}})
        assert await hear(socket) == {"type": "pong", "payload": {"a": 1}}
        await say(socket, {"type": "ping"})
        assert await hear(socket) == {"type": "pong"}


async def test_complete_frees_the_operation_id(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await hear(socket)
        await say(socket, {"id": "a", "type": "complete"})
        await say(socket, subscribe("a", "{ hello }"))
        assert await hear(socket) == {"id": "a", "type": "next", "payload": {"data": {"hello": "hello world"}}}
        await asyncio.wait_for(world.closed_stream.wait(), 5)
        await hear(socket)
        await say(socket, {"id": "unknown", "type": "complete"})
        assert await still_serves(socket)


async def test_disconnect_ends_streams_but_not_mutations(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await hear(socket)
        await say(socket, subscribe("b", 'mutation { record(name: "x") }'))
        await asyncio.wait_for(world.recording.wait(), 5)
        await socket.close()
        await asyncio.wait_for(world.closed_stream.wait(), 5)
        world.heard.clear()
        world.may_record.set()
        await asyncio.wait_for(world.heard.wait(), 5)
    assert world.recorded == ["x"]


async def test_operations_beyond_the_limit_are_rejected(world: World) -> None:
    async with opened(world, sockets=SocketLimits(max_operations=1)) as socket:
        await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await hear(socket)
        await say(socket, subscribe("b", "{ hello }"))
        error = await hear(socket)
        assert (error["id"], error["payload"][0]["extensions"]["code"]) == ("b", "TOO_MANY_OPERATIONS")
        await say(socket, {"id": "a", "type": "complete"})
        assert await still_serves(socket)


async def status_of_handshake(port: int, headers: dict[str, str]) -> int:
    given = dict(headers)
    host = given.pop("Host", f"127.0.0.1:{port}")
    name, _, _ = host.partition(":")
    try:
        async with connect(
            f"ws://{name}:{port}/graphql",
            host="127.0.0.1",
            port=port,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=given,
        ):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_handshake_from_other_origin_is_rejected(world: World) -> None:
    async with served(app(world, origins=("https://console.example.org",))) as port:
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
    assert world.contexts == []


async def test_ticket_opens_no_websocket(world: World) -> None:
    async with served(app(world)) as port:
        url = f"ws://127.0.0.1:{port}/graphql?ticket=ticket"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], additional_headers=BEARER):
                pass
        assert refused.value.response.status_code == 401
    assert world.tickets == {"ticket": 1}
    assert world.asked == {}


async def test_handshake_for_other_host_is_rejected(world: World) -> None:
    async with served(app(world, hosts=("hub",))) as port:
        assert await status_of_handshake(port, {"Host": "hub"}) == 101
        assert await status_of_handshake(port, {"Host": "rebound.example.org"}) == 421


async def test_invalidated_token_closes_with_4403(world: World) -> None:
    for became in ("old", "revoked"):
        world.now.clear()
        async with opened(world) as socket:
            await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
            await hear(socket)
            world.closed_stream.clear()
            world.now["good"] = became
            assert await closed(socket) == 4403
            await asyncio.wait_for(world.closed_stream.wait(), 5)
    assert world.subscribers["websocket"] == 0


async def test_revoked_permissions_close_with_4403(world: World) -> None:
    async with opened(world) as socket:
        world.now["good"] = "narrow"
        assert await closed(socket) == 4403


@pytest.mark.parametrize("became", ["offline", "broken", "slow"])
async def test_failing_authentication_keeps_open_connections(world: World, became: str) -> None:
    async with opened(world) as socket:
        world.now["good"] = became
        asked = world.asked["good"]
        await until(lambda: world.asked["good"] > asked + 2)
        assert await still_serves(socket)
        world.now["good"] = "old"
        assert await closed(socket) == 4403


async def test_anonymous_connection_is_not_authenticated_again(world: World) -> None:
    async with opened(world, init={"type": "connection_init"}) as socket:
        await say(socket, subscribe("a", 'mutation { login(name: "a") }'))
        assert (await hear(socket))["payload"] == {"data": {"login": "token of a"}}
    assert world.asked == {}


async def test_token_in_a_ping_replaces_the_first(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, {"type": "ping", "payload": {"token": "fresh"}})
        assert await hear(socket) == {"type": "pong", "payload": {"renewed": True}}
        world.now["good"] = "old"
        asked = world.asked["fresh"]
        await until(lambda: world.asked["fresh"] > asked + 2)
        assert await still_serves(socket)
        world.now["fresh"] = "old"
        assert await closed(socket) == 4403


@pytest.mark.parametrize("payload", [{"token": "wrong"}, {"token": "old"}, {"apiKey": "bob"}, {"token": "narrow"}])
async def test_unsuitable_token_in_a_ping_closes_with_4403(world: World, payload: object) -> None:
    async with opened(world) as socket:
        await say(socket, {"type": "ping", "payload": payload})
        assert await closed(socket) == 4403


async def test_token_in_a_ping_cannot_sign_in_anonymous_client(world: World) -> None:
    async with opened(world, init={"type": "connection_init"}) as socket:
        await say(socket, {"type": "ping", "payload": {"token": "good"}})
        assert await closed(socket) == 4403


async def test_token_in_a_ping_before_init_closes_with_4401(world: World) -> None:
    async with opened(world, init=None) as socket:
        await say(socket, {"type": "ping", "payload": {"token": "good"}})
        assert await closed(socket) == 4401


async def test_uncheckable_token_in_a_ping_keeps_the_first(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, {"type": "ping", "payload": {"token": "offline"}})
        assert await hear(socket) == {"type": "pong", "payload": {"renewed": False}}
        assert await still_serves(socket)
        world.now["good"] = "old"
        assert await closed(socket) == 4403


async def test_running_subscriptions_are_counted(world: World) -> None:
    async with opened(world) as socket:
        await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await hear(socket)
        await say(socket, subscribe("b", "{ hello }"))
        await hear(socket)
        assert world.subscribers == {"websocket": 1}
        await say(socket, {"id": "a", "type": "complete"})
        await until(lambda: world.subscribers["websocket"] == 0)


@pytest.mark.parametrize(
    ("limits", "code", "after"),
    [
        (CapacityLimits(max_subscriptions_per_actor=1), "TOO_MANY_SUBSCRIPTIONS", 10),
        (CapacityLimits(max_subscriptions=1), "SUBSCRIPTIONS_FULL", 10),
    ],
)
async def test_rejected_subscription_names_the_limit(
    world: World, limits: CapacityLimits, code: str, after: int
) -> None:
    async with opened(world, capacity=limits) as socket:
        await say(socket, subscribe("a", "subscription { ticks(count: 1, pause: true) { id } }"))
        await hear(socket)
        await say(socket, subscribe("b", "subscription { ticks(count: 1, pause: true) { id } }"))
        error = await hear(socket)
        assert (error["id"], error["type"]) == ("b", "error")
        assert error["payload"][0]["extensions"] == {"code": code, "retryAfter": after}
        assert world.subscribers == {"websocket": 1}
        assert await still_serves(socket)
        await say(socket, {"id": "a", "type": "complete"})
        await until(lambda: world.subscribers["websocket"] == 0)
        await say(socket, subscribe("c", "subscription { ticks(count: 1) { id } }"))
        assert [(await hear(socket))["id"] for _ in range(3)] == ["again", "c", "c"]


async def test_connection_beyond_the_limit_is_rejected_with_503(world: World) -> None:
    async with served(app(world, capacity=CapacityLimits(max_connections=1))) as port:
        url, protocols = f"ws://127.0.0.1:{port}/graphql", [Subprotocol("graphql-transport-ws")]
        async with connect(url, subprotocols=protocols):
            assert await status_of_handshake(port, {}) == 503

        async def room() -> bool:
            return await status_of_handshake(port, {}) == 101

        await until(room)
