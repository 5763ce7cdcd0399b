"""What it takes to bring a hub to a file: the differences, and making them."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson

from xzepr.cli.client.http import Client, JsonObject, Refused
from xzepr.cli.client.lookup import GROUP, RECEIVER, Noun, described, listed, named
from xzepr.cli.hub_file import HubFile, Key, Member, WantedGroup, WantedReceiver
from xzepr.core.errors import CannotStart

_MUTATIONS = {
    "createEventReceiver": "CreateEventReceiverInput",
    "updateEventReceiver": "UpdateEventReceiverInput",
    "createEventReceiverGroup": "CreateEventReceiverGroupInput",
    "updateEventReceiverGroup": "UpdateEventReceiverGroupInput",
}


class Action(StrEnum):
    """What is done about one receiver or group."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that the hub has otherwise than the file; before is None where it does not exist yet."""

    field: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class Change:
    """One receiver or group of the file, and what is done about it."""

    action: Action
    noun: str
    key: Key
    id: str | None
    """None where it does not exist and, in a dry run, is not created."""
    differences: tuple[Difference, ...]

    def as_json(self) -> JsonObject:
        """The change as `--json` prints it."""
        fields = [{"field": one.field, "before": one.before, "after": one.after} for one in self.differences]
        key = {"name": self.key.name, "type": self.key.type, "version": self.key.version}
        return {"action": self.action, "noun": self.noun, **key, "id": self.id, "differences": fields}


class Apply:
    """One run over a file: receivers first, then groups."""

    def __init__(self, client: Client, wanted: HubFile, dry_run: bool) -> None:
        """Asks nothing yet."""
        self._client = client
        self._wanted = wanted
        self._dry_run = dry_run
        self._receiver_ids: dict[Key, str | None] = {}
        self._names: dict[str, str] = {}

    def changes(self) -> Iterator[Change]:
        """Each thing of the file once it is as the file says, or in a dry run once that is known. Members are looked up
        before anything changes. Raises Refused and CannotStart."""
        keys = [receiver.key for receiver in self._wanted.receivers]
        members = [[self._key_or_id(member, keys) for member in group.members] for group in self._wanted.groups]
        for receiver in self._wanted.receivers:
            change = self._receiver(receiver)
            self._receiver_ids[receiver.key] = change.id
            if change.id is not None:
                self._names[change.id] = str(receiver.key)
            yield change
        for group, meant in zip(self._wanted.groups, members, strict=True):
            yield self._group(group, meant)

    def _receiver(self, wanted: WantedReceiver) -> Change:
        fields = {"description": wanted.description, "schema": wanted.schema, "enabled": wanted.enabled}
        return self._change(RECEIVER, "EventReceiver", wanted.key, fields)

    def _group(self, wanted: WantedGroup, meant: list[Key | str]) -> Change:
        # In a dry run a receiver that does not exist yet has no id; its key stands for it.
        ids = [(self._receiver_ids[one] or str(one)) if isinstance(one, Key) else one for one in meant]
        fields = {"description": wanted.description, "enabled": wanted.enabled, "eventReceiverIds": ids}
        return self._change(GROUP, "EventReceiverGroup", wanted.key, fields)

    def _change(self, noun: Noun, type: str, key: Key, fields: JsonObject) -> Change:
        present = self._only(noun, key)
        if present is None:
            differences = tuple(Difference(name, None, self._told(name, value)) for name, value in fields.items())
            id = self._mutate(f"create{type}", noun, key, {**_identity(key), **fields})
            return Change(Action.CREATE, noun.word, key, id, differences)
        differing = {name: value for name, value in fields.items() if not _same(present[name], value)}
        id = str(present["id"])
        if not differing:
            return Change(Action.KEEP, noun.word, key, id, ())
        differences = tuple(
            Difference(name, self._told(name, present[name]), self._told(name, value))
            for name, value in differing.items()
        )
        guard = {"id": id, "expectedVersion": present["resourceVersion"]}
        self._mutate(f"update{type}", noun, key, {**guard, **differing})
        return Change(Action.UPDATE, noun.word, key, id, differences)

    def _mutate(self, field: str, noun: Noun, key: Key, given: JsonObject) -> str | None:
        if self._dry_run:
            return None
        payload = "eventReceiver" if noun is RECEIVER else "eventReceiverGroup"
        document = f"mutation ($input: {_MUTATIONS[field]}!) {{ {field}(input: $input) {{ {payload} {{ id }} }} }}"
        try:
            return str(self._client.ask(document, input=given)[field][payload]["id"])
        except Refused as refusal:
            raise Refused(f"{noun.word} {key}: {refusal}", refusal.complaints) from refusal

    def _only(self, noun: Noun, key: Key) -> JsonObject | None:
        found = named(self._client, noun, key.name, key.type, key.version)
        if len(found) > 1:
            raise CannotStart(
                f"the hub has {len(found)} {noun.word}s {key}, and the file cannot say which it means: rename or "
                f"delete all but one ({listed(found)})"
            )
        return found[0] if found else None

    def _key_or_id(self, member: Member, keys: list[Key]) -> Key | str:
        """The receiver of the file, else of the hub, that a member of a group means."""
        what = described(member.name, member.type, member.version)
        of_file = [key for key in keys if member.means(key)]
        if len(of_file) > 1:
            raise CannotStart(
                f"{member.where}: the file has {len(of_file)} receivers {what}: give type and version too"
            )
        if of_file:
            return of_file[0]
        found = named(self._client, RECEIVER, member.name, member.type, member.version)
        if len(found) != 1:
            number = f"{len(found)} receivers" if found else "no receiver"
            hint = f": give type and version too ({listed(found)})" if found else ", and the file has none"
            raise CannotStart(f"{member.where}: the hub has {number} {what}{hint}")
        id = str(found[0]["id"])
        self._names[id] = str(Key(found[0]["name"], found[0]["type"], found[0]["version"]))
        return id

    def _told(self, field: str, value: Any) -> Any:
        """The value as people read it: receivers by what they are called, as far as that is known here."""
        if field != "eventReceiverIds":
            return value
        return [self._names.get(id, id) for id in value]


def _identity(key: Key) -> JsonObject:
    return {"name": key.name, "type": key.type, "version": key.version}


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values say the same. The order of keys says nothing, and true is not 1."""
    return orjson.dumps(one, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)
