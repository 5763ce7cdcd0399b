"""Responses, and how subscriptions share them: each message is rendered once for all that request the same.

A response depends on the operation, on the variables that shape it (not on the cursor or filter of a subscriber), on
the request's extensions, on the actor's permissions, and on the message. A response that reads nothing but the message
never changes and is cached for a while. One that looks something up is shared by subscribers that wait at that moment.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable
from weakref import WeakValueDictionary

import orjson
from graphql import FieldNode, FragmentDefinitionNode, OperationDefinitionNode, VariableNode, Visitor, visit

from xzepr.api.errors import JsonObject
from xzepr.api.graphql_server.errors import mask
from xzepr.api.graphql_server.plans.rendered import JSON_OPTIONS
from xzepr.infra.concurrency import SingleFlight

_CACHE_BYTES = 16 * 1024 * 1024
_OVERHEAD_BYTES = 500  # of one cached response, about


class GraphQLResponse(NamedTuple):
    """A GraphQL response: `data`, `errors` or both."""

    body: JsonObject
    request_id: str
    cursor: str | None = None
    """The cursor of a subscription's message; None if the message has none."""
    encoded: bytes | None = None
    """The response as JSON if it is encoded already; `body` is empty then."""

    @property
    def errors(self) -> list[JsonObject]:
        """The errors in the response."""
        return cast(list[JsonObject], self.body.get("errors", []))

    def to_json(self) -> bytes:
        """Returns the response as JSON in UTF-8. A value that JSON cannot hold becomes an internal error."""
        if self.encoded is not None:
            return self.encoded
        try:
            return orjson.dumps(self.body, option=JSON_OPTIONS)
        except TypeError as error:
            return orjson.dumps({"errors": [mask(error, self.request_id)], "data": None})


Push = Callable[[GraphQLResponse], bool]  # sends a response at once; returns False if that is not possible


@runtime_checkable
class PushSource(Protocol):
    """Source events of a subscription that need not wake the task that iterates over them."""

    deliver: Callable[[object], bool] | None
    """Called with an event while the iteration waits. If it returns False, the iteration yields the event."""


# Returns an awaitable if it has to look something up.
Render = Callable[[], GraphQLResponse | Awaitable[GraphQLResponse]]


@dataclass(eq=False, slots=True, weakref_slot=True)
class ResponseGroup:
    """Subscriptions that get the same responses."""

    cached: dict[Hashable, GraphQLResponse] = field(default_factory=lambda: dict[Hashable, GraphQLResponse]())
    rendering: SingleFlight[Hashable, GraphQLResponse] = field(
        default_factory=lambda: SingleFlight[Hashable, GraphQLResponse]()
    )
    newest: tuple[object, GraphQLResponse] | None = None
    """The source event of the newest response that was pushed, and that response."""


class SharedResponses:
    """A cache of the newest responses of all groups."""

    def __init__(self, max_bytes: int = _CACHE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._groups: WeakValueDictionary[Hashable, ResponseGroup] = WeakValueDictionary()
        self._oldest = deque[tuple[ResponseGroup, Hashable, int]]()
        self._bytes = 0

    def group(self, *key: Hashable) -> ResponseGroup:
        """Returns the group of all subscriptions with an equal key."""
        if (group := self._groups.get(key)) is None:
            group = self._groups[key] = ResponseGroup()
        return group

    async def response(self, group: ResponseGroup, key: Hashable, render: Render) -> GraphQLResponse:
        """Returns a group's response for the message with that key, rendered once."""
        return self.response_now(group, key, render) or await group.rendering.join(key)

    def response_now(self, group: ResponseGroup, key: Hashable, render: Render) -> GraphQLResponse | None:
        """Returns a group's response if that takes no waiting. Otherwise it is being rendered."""
        if (cached := group.cached.get(key)) is not None:
            return cached
        if key in group.rendering:
            return None
        rendered = render()
        if isinstance(rendered, GraphQLResponse):
            return self._cache(group, key, rendered)
        group.rendering.start(key, rendered)
        return None

    def pusher(
        self,
        group: ResponseGroup,
        key_of: Callable[[object], Hashable | None],
        render: Callable[[object], GraphQLResponse | Awaitable[GraphQLResponse]],
        push: Push,
    ) -> Callable[[object], bool]:
        """Returns a function that renders a source event for a group and pushes the response, if neither has to wait.

        Events without a key are not shared, and not pushed.
        """

        def deliver(event: object) -> bool:
            if group.newest is None or group.newest[0] is not event:
                key = key_of(event)
                response = None if key is None else self.response_now(group, key, partial(render, event))
                if response is None or response.errors:
                    return response is not None and push(response)
                group.newest = event, response
            return push(group.newest[1])

        return deliver

    def _cache(self, group: ResponseGroup, key: Hashable, response: GraphQLResponse) -> GraphQLResponse:
        if response.errors:
            return response
        response = GraphQLResponse({}, response.request_id, response.cursor, response.to_json())
        size = _OVERHEAD_BYTES + len(response.to_json())
        group.cached[key] = response
        self._oldest.append((group, key, size))
        self._bytes += size
        while self._bytes > self._max_bytes:
            old_group, old_key, old_size = self._oldest.popleft()
            del old_group.cached[old_key]
            self._bytes -= old_size
        return response


def shaping_variables(
    operation: OperationDefinitionNode, fragments: Sequence[FragmentDefinitionNode]
) -> frozenset[str]:
    """Returns the names of the variables that shape a response: all but those used only as arguments of root fields."""
    shapes: list[Any] = [*fragments, *(operation.directives or ())]
    for selection in operation.selection_set.selections:
        if isinstance(selection, FieldNode):
            shapes += selection.directives or ()
            shapes += [selection.selection_set] if selection.selection_set else []
        else:
            shapes.append(selection)
    finder = _VariableFinder()
    for shape in shapes:
        visit(shape, finder)
    return frozenset(finder.names)


def response_key(names: frozenset[str], variables: Mapping[str, object], extensions: Mapping[str, object]) -> bytes:
    """Returns a key that is equal for requests with equal responses. Raises TypeError for values JSON cannot hold."""
    shaping = {name: variables[name] for name in names if name in variables}
    return orjson.dumps([shaping, dict(extensions)], option=orjson.OPT_SORT_KEYS)


class _VariableFinder(Visitor):
    """Collects the names of variables. graphql-core calls its method by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_variable(self, node: VariableNode, *_: object) -> None:
        """Adds the name of a variable."""
        self.names.add(node.name.value)
