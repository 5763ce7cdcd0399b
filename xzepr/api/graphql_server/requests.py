"""GraphQL requests in JSON, in query strings and in WebSocket messages."""

from typing import Any, cast
from urllib.parse import parse_qsl

from xzepr.api.errors import BadRequest, PersistedQueryNotSupported
from xzepr.api.graphql_server.operations import GraphQLRequest
from xzepr.core import exact_json
from xzepr.core.errors import InvalidInput, InvalidToken, Violation


def ticket_from_query(query_string: bytes) -> str | None:
    """Returns the parameter `ticket`; None if it is missing. Raises InvalidToken if it is repeated."""
    if b"ticket" not in query_string:
        return None
    tickets = [value for name, value in parse_qsl(query_string.decode(errors="replace")) if name == "ticket"]
    if len(tickets) > 1:
        raise InvalidToken("the URL has several tickets: send only one")
    return tickets[0] if tickets else None


def parse_get_request(query_string: bytes) -> GraphQLRequest:
    """Returns the GraphQL request in the query string of a GET. Raises BadRequest or InvalidInput."""
    try:
        parameters = parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
        members: dict[str, object] = dict(parameters)
        for name in ("variables", "extensions"):
            if members.get(name):
                members[name] = exact_json.loads(str(members[name]), field=name)
            else:
                members.pop(name, None)
    except ValueError as error:
        raise BadRequest(f"the query string cannot be read: {error}") from None
    except InvalidInput as problem:
        raise lossy_value_error(problem) from None
    return parse_request({**members, "operationName": members.get("operationName") or None})


def lossy_value_error(problem: InvalidInput) -> InvalidInput:
    """Returns the error for values that cannot be kept unchanged, with their locations as resolvers report them."""
    return InvalidInput([Violation(_input_location(v.field), v.message) for v in problem.violations])


def _input_location(pointer: str) -> str:
    """Returns `data/a/1` for `/variables/input/data/a/1`, and `first` for `/variables/first`."""
    variable, _, below = pointer.removeprefix("/payload").removeprefix("/").removeprefix("variables/").partition("/")
    return below or variable


_OBJECT_OR_NULL: tuple[type[Any], ...] = (dict, type(None))


def parse_request(value: Any) -> GraphQLRequest:
    """Returns the GraphQL request in a JSON value. Raises BadRequest, which names the invalid member.

    Raises PersistedQueryNotSupported if the request has only the hash of its document.
    """
    if isinstance(value, list):
        raise BadRequest("send one request at a time: batches are not supported")
    if not isinstance(value, dict):
        raise BadRequest("the request must be a JSON object with the member 'query'")
    members = cast("dict[str, Any]", value)
    query, name = members.get("query"), members.get("operationName")
    variables, extensions = members.get("variables"), members.get("extensions")
    if not isinstance(query, str):
        if query is None and isinstance(extensions, dict) and "persistedQuery" in extensions:
            raise PersistedQueryNotSupported
        raise BadRequest("'query' must be a string with a GraphQL document", field="query")
    if name is not None and not isinstance(name, str):
        raise BadRequest("'operationName' must be a string", field="operationName")
    if not isinstance(variables, _OBJECT_OR_NULL):
        raise BadRequest("'variables' must be an object", field="variables")
    if not isinstance(extensions, _OBJECT_OR_NULL):
        raise BadRequest("'extensions' must be an object", field="extensions")
    return GraphQLRequest(query, variables, name, extensions or {})
