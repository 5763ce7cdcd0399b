"""Finds receivers and groups on a hub, by id or by name (with type and version where needed)."""

from dataclasses import dataclass
from typing import Any

from xzepr.cli.client.http import HubClient, JsonObject
from xzepr.cli.output import printable
from xzepr.core.errors import CannotStart
from xzepr.core.ids import is_id

_MAX_MATCHES = 100
_MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class EntityType:
    """A GraphQL type whose objects have a name, a type and a version: receivers or groups."""

    noun: str
    list_field: str
    filter_type: str
    fields: str

    def query(self) -> str:
        """Returns the query that lists the objects matching a filter."""
        return (
            f"query ($filter: {self.filter_type}!) {{ {self.list_field}(filter: $filter, first: {_MAX_MATCHES}) "
            f"{{ nodes {{ {self.fields} }} }} }}"
        )


RECEIVER = EntityType(
    "receiver",
    "eventReceivers",
    "EventReceiverFilterInput",
    "id name type version description schema enabled resourceVersion",
)
GROUP = EntityType(
    "group",
    "eventReceiverGroups",
    "EventReceiverGroupFilterInput",
    "id name type version description enabled resourceVersion eventReceiverIds",
)


def find_by_name(
    client: HubClient, entity: EntityType, name: str, type: str | None = None, version: str | None = None
) -> list[JsonObject]:
    """Returns the objects with the name, and the type and version if given: newest first, at most 100."""
    filter = {"name": name, "type": type, "version": version}
    nodes: list[Any] = client.execute(entity.query(), filter=filter)[entity.list_field]["nodes"]
    return nodes


def resolve_id(
    client: HubClient, entity: EntityType, id_or_name: str, type: str | None = None, version: str | None = None
) -> str:
    """Returns the id of the named object; an id is returned unchanged, without a request.

    Raises CannotStart if no object or more than one matches.
    """
    if is_id(id_or_name):
        return id_or_name
    matches = find_by_name(client, entity, id_or_name, type, version)
    if not matches:
        raise CannotStart(f"the hub at {client.hub} has no {entity.noun} {label(id_or_name, type, version)}")
    if len(matches) > 1:
        raise CannotStart(
            f"the hub has {len(matches)} {entity.noun}s {label(id_or_name, type, version)}: use the id, or add "
            f"--{entity.noun}-type and --{entity.noun}-version ({list_matches(matches)})"
        )
    return str(matches[0]["id"])


def label(name: str, type: str | None, version: str | None) -> str:
    """Returns the name, type and version as messages show them: `'build' (stage 1)`."""
    details = " ".join(printable(part) for part in (type, version) if part is not None)
    return f"{printable(name)!r}{f' ({details})' if details else ''}"


def list_matches(matches: list[JsonObject]) -> str:
    """Returns the id, type and version of at most 5 matches, for a message that asks the user to choose."""
    listed = [
        f"{match['id']} is {printable(match['type'])} {printable(match['version'])}" for match in matches[:_MAX_LISTED]
    ]
    return "; ".join([*listed, "…"] if len(matches) > _MAX_LISTED else listed)
