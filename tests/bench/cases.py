"""The requests of each case, and which responses are correct. The hand-written servers answer as the hub does."""

from collections.abc import Callable, Sequence
from typing import Any

import orjson

from tests.bench.client import EVENT
from tests.bench.load import COUNTER, LoadError

BATCH = 500
ROWS = 50
_FIELDS = "id name version release platformId package description payload success occurredAt eventReceiverId"
_LIST = "query {name} {{ events(first: {rows}) {{ edges {{ node {{ {fields} }} }} }} }}"
_DOCUMENTS = {
    "typename": "query typename { __typename }",
    "list": _LIST.format(name="list", rows=ROWS, fields=_FIELDS),
    "list_receiver": _LIST.format(
        name="list_receiver", rows=ROWS, fields=f"{_FIELDS} eventReceiver {{ id name type version }}"
    ),
    "event": f"query event($id: ID!) {{ event(id: $id) {{ {_FIELDS} }} }}",
    "create": "mutation create($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }",
    "batches": "mutation batches($input: CreateEventsInput!) { createEvents(input: $input)"
    " { results { recorded { event { id } } problems { message } } } }",
}


def body(case: str, receivers: Sequence[str]) -> bytes:
    """Returns the request's body. COUNTER stands for an event's version or id."""
    new = EVENT | {"eventReceiverId": receivers[0]}
    many = [new | {"version": f"{COUNTER.decode()}.{number}"} for number in range(BATCH)]
    variables = {"event": {"id": COUNTER.decode()}, "create": {"input": new}, "batches": {"input": {"events": many}}}
    request: dict[str, object] = {"query": _DOCUMENTS[case], "operationName": case}
    return orjson.dumps(request | ({"variables": variables[case]} if case in variables else {}))


def check(case: str, response: bytes) -> None:
    """Raises LoadError if a response is not correct."""
    try:
        correct = _CHECKS[case](orjson.loads(response)["data"])
    except (LookupError, TypeError, ValueError) as error:
        raise LoadError(f"{case}: {error!r} in {response[:300]!r}") from error
    if not correct:
        raise LoadError(f"{case}: wrong response {response[:300]!r}")


def _is_list(data: Any, fields: int) -> bool:
    nodes = [edge["node"] for edge in data["events"]["edges"]]
    return len({node["id"] for node in nodes}) == ROWS and all(_is_event(node, fields) for node in nodes)


def _is_event(node: Any, fields: int) -> bool:
    expected = ("name", "release", "platformId", "package", "description", "payload", "success")
    complete = len(node) == fields and all(value is not None for value in node.values())
    related = "eventReceiver" not in node or node["eventReceiver"]["id"] == node["eventReceiverId"]
    return complete and related and all(node[name] == EVENT[name] for name in expected)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "typename": lambda data: data == {"__typename": "Query"},
    "list": lambda data: _is_list(data, 11),
    "list_receiver": lambda data: _is_list(data, 12),
    "event": lambda data: _is_event(data["event"], 11),
    "create": lambda data: len(data["createEvent"]["event"]["id"]) == 26,
    "batches": lambda data: len({each["recorded"]["event"]["id"] for each in data["createEvents"]["results"]}) == BATCH,
}
