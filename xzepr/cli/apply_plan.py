"""Compares a hub with a hub file, and creates or updates what differs."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from xzepr.cli.client.http import HubClient, JsonObject, RequestRejected
from xzepr.cli.client.lookup import GROUP, RECEIVER, EntityType, find_by_name, label, list_matches
from xzepr.cli.hub_file import DeclaredGroup, DeclaredReceiver, EntityKey, HubFile, MemberReference
from xzepr.core.errors import CannotStart

_MUTATIONS = {
    "createEventReceiver": "CreateEventReceiverInput",
    "updateEventReceiver": "UpdateEventReceiverInput",
    "createEventReceiverGroup": "CreateEventReceiverGroupInput",
    "updateEventReceiverGroup": "UpdateEventReceiverGroupInput",
}


class Action(StrEnum):
    """The action for one receiver or group."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Difference:
    """A field whose value differs between the hub and the file; `before` is None for a new receiver or group."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """A receiver or group of the file, and the action for it."""

    action: Action
    noun: str
    key: EntityKey
    id: str | None
    """None for a new receiver or group in a dry run."""
    differences: tuple[Difference, ...]

    def as_json(self) -> JsonObject:
        """Returns the change as `--json` prints it."""
        differences = [
            {"field": difference.field, "before": difference.before, "after": difference.after}
            for difference in self.differences
        ]
        key = {"name": self.key.name, "type": self.key.type, "version": self.key.version}
        return {"action": self.action, "noun": self.noun, **key, "id": self.id, "differences": differences}


class ApplyRun:
    """One run over a file: receivers first, then groups."""

    def __init__(self, client: HubClient, file: HubFile, dry_run: bool) -> None:
        """Prepares a run without sending a request."""
        self._client = client
        self._file = file
        self._dry_run = dry_run
        self._receiver_ids: dict[EntityKey, str | None] = {}
        self._receiver_names: dict[str, str] = {}

    def changes(self) -> Iterator[Change]:
        """Yields the change for each entry, after making it unless this is a dry run.

        All members are looked up before the first change. Raises RequestRejected or CannotStart.
        """
        keys = [receiver.key for receiver in self._file.receivers]
        groups = [(group, [self._resolve(member, keys) for member in group.members]) for group in self._file.groups]
        for receiver in self._file.receivers:
            change = self._apply_receiver(receiver)
            self._receiver_ids[receiver.key] = change.id
            if change.id is not None:
                self._receiver_names[change.id] = str(receiver.key)
            yield change
        for group, members in groups:
            yield self._apply_group(group, members)

    def _apply_receiver(self, receiver: DeclaredReceiver) -> Change:
        fields = {"description": receiver.description, "schema": receiver.schema, "enabled": receiver.enabled}
        return self._apply(RECEIVER, "EventReceiver", receiver.key, fields)

    def _apply_group(self, group: DeclaredGroup, members: list[EntityKey | str]) -> Change:
        # In a dry run a new receiver has no id, so its key is used instead.
        ids = [
            (self._receiver_ids[member] or str(member)) if isinstance(member, EntityKey) else member
            for member in members
        ]
        fields = {"description": group.description, "enabled": group.enabled, "eventReceiverIds": ids}
        return self._apply(GROUP, "EventReceiverGroup", group.key, fields)

    def _apply(self, entity: EntityType, type: str, key: EntityKey, fields: JsonObject) -> Change:
        current = self._find(entity, key)
        if current is None:
            differences = tuple(Difference(name, None, self._readable(name, value)) for name, value in fields.items())
            id = self._mutate(f"create{type}", entity, key, {**_identity(key), **fields})
            return Change(Action.CREATE, noun=entity.noun, key=key, id=id, differences=differences)
        changed = {name: value for name, value in fields.items() if not _equal_json(current[name], value)}
        id = str(current["id"])
        if not changed:
            return Change(Action.KEEP, noun=entity.noun, key=key, id=id, differences=())
        differences = tuple(
            Difference(name, self._readable(name, current[name]), self._readable(name, value))
            for name, value in changed.items()
        )
        guard = {"id": id, "expectedVersion": current["resourceVersion"]}
        self._mutate(f"update{type}", entity, key, {**guard, **changed})
        return Change(Action.UPDATE, noun=entity.noun, key=key, id=id, differences=differences)

    def _mutate(self, field: str, entity: EntityType, key: EntityKey, input: JsonObject) -> str | None:
        """Runs a mutation and returns the object's id; in a dry run, sends nothing and returns None."""
        if self._dry_run:
            return None
        document = f"mutation ($input: {_MUTATIONS[field]}!) {{ {field}(input: $input) {{ id }} }}"
        try:
            return str(self._client.execute(document, input=input)[field]["id"])
        except RequestRejected as error:
            raise RequestRejected(f"{entity.noun} {key}: {error}", error.errors) from error

    def _find(self, entity: EntityType, key: EntityKey) -> JsonObject | None:
        """Returns the object on the hub, or None. Raises CannotStart if several have the key."""
        matches = find_by_name(self._client, entity, key.name, key.type, key.version)
        if len(matches) > 1:
            raise CannotStart(
                f"the hub has {len(matches)} {entity.noun}s {key}, and the file cannot distinguish them: rename or "
                f"delete all but one ({list_matches(matches)})"
            )
        return matches[0] if matches else None

    def _resolve(self, member: MemberReference, keys: list[EntityKey]) -> EntityKey | str:
        """Returns the key of a receiver in the file or else the id of one on the hub.

        Raises CannotStart if no receiver or more than one matches.
        """
        reference = label(member.name, member.type, member.version)
        in_file = [key for key in keys if member.matches(key)]
        if len(in_file) > 1:
            raise CannotStart(
                f"{member.location}: the file has {len(in_file)} receivers {reference}: give type and version too"
            )
        if in_file:
            return in_file[0]
        matches = find_by_name(self._client, RECEIVER, member.name, member.type, member.version)
        if len(matches) != 1:
            number = f"{len(matches)} receivers" if matches else "no receiver"
            hint = f": give type and version too ({list_matches(matches)})" if matches else ", and the file has none"
            raise CannotStart(f"{member.location}: the hub has {number} {reference}{hint}")
        receiver = matches[0]
        id = str(receiver["id"])
        self._receiver_names[id] = str(EntityKey(receiver["name"], receiver["type"], receiver["version"]))
        return id

    def _readable(self, field: str, value: Any) -> Any:
        """Returns the value to show: the ids of known receivers are replaced by their names."""
        if field != "eventReceiverIds":
            return value
        return [self._receiver_names.get(id, id) for id in value]


def _identity(key: EntityKey) -> JsonObject:
    return {"name": key.name, "type": key.type, "version": key.version}


def _equal_json(left: Any, right: Any) -> bool:
    """Returns whether two JSON values are equal. The order of keys is ignored; `true` and `1` differ."""
    return orjson.dumps(left, option=orjson.OPT_SORT_KEYS) == orjson.dumps(right, option=orjson.OPT_SORT_KEYS)
