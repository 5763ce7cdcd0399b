"""The file that `xzepr apply` reads: which receivers and groups a hub should have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xzepr.cli.yaml_reader import Reader
from xzepr.core import exact_json
from xzepr.core.errors import CannotStart, InvalidInput

_IDENTITY = ("name", "type", "version")


@dataclass(frozen=True, slots=True)
class Key:
    """What tells receivers, and groups, of a file apart."""

    name: str
    type: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type} {self.version})"


@dataclass(frozen=True, slots=True)
class WantedReceiver:
    """A receiver as the file has it."""

    key: Key
    description: str
    schema: Any
    enabled: bool


@dataclass(frozen=True, slots=True)
class Member:
    """A receiver as a group of the file calls it; type and version only as far as they are given."""

    name: str
    type: str | None
    version: str | None
    where: str
    """`hub.yaml:12`, for messages."""

    def means(self, key: Key) -> bool:
        """Whether it may mean the receiver with this key."""
        return self.name == key.name and self.type in (None, key.type) and self.version in (None, key.version)


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """A group as the file has it."""

    key: Key
    description: str
    members: tuple[Member, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class HubFile:
    """All that the file asks for, in its order."""

    receivers: tuple[WantedReceiver, ...]
    groups: tuple[WantedGroup, ...]


def read(path: Path) -> HubFile:
    """The file's content. Raises CannotStart with every mistake in it, each with its line."""
    reader = Reader(path)
    parts = reader.mapping(reader.root(), "", ("receivers", "groups"))
    receivers = [_receiver(reader, node, at) for node, at in reader.items(parts.get("receivers"), "receivers")]
    groups = [_group(reader, node, at) for node, at in reader.items(parts.get("groups"), "groups")]
    reader.finish()
    return HubFile(tuple(_distinct(path, "receiver", receivers)), tuple(_distinct(path, "group", groups)))


def _receiver(reader: Reader, node: yaml.Node, at: str) -> WantedReceiver:
    known = (*_IDENTITY, "description", "schema", "schemaFile", "enabled")
    parts = reader.mapping(node, at, known, required=(*_IDENTITY, "description"))
    return WantedReceiver(
        key=_key(reader, parts, at),
        description=reader.text(parts.get("description"), f"{at}.description"),
        schema=_schema(reader, node, parts, at),
        enabled=reader.flag(parts.get("enabled"), f"{at}.enabled", default=True),
    )


def _group(reader: Reader, node: yaml.Node, at: str) -> WantedGroup:
    known = (*_IDENTITY, "description", "receivers", "enabled")
    parts = reader.mapping(node, at, known, required=(*_IDENTITY, "description", "receivers"))
    members = [_member(reader, item, place) for item, place in reader.items(parts.get("receivers"), f"{at}.receivers")]
    return WantedGroup(
        key=_key(reader, parts, at),
        description=reader.text(parts.get("description"), f"{at}.description"),
        members=tuple(members),
        enabled=reader.flag(parts.get("enabled"), f"{at}.enabled", default=True),
    )


def _key(reader: Reader, parts: dict[str, yaml.Node], at: str) -> Key:
    return Key(*(reader.text(parts.get(part), f"{at}.{part}") for part in _IDENTITY))


def _member(reader: Reader, node: yaml.Node, at: str) -> Member:
    where = f"{reader.path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        return Member(reader.text(node, at), None, None, where)
    parts = reader.mapping(node, at, _IDENTITY, required=("name",))
    name, type, version = (reader.text(parts[part], f"{at}.{part}") if part in parts else None for part in _IDENTITY)
    return Member(name or "", type, version, where)


def _schema(reader: Reader, node: yaml.Node, parts: dict[str, yaml.Node], at: str) -> Any:
    if ("schema" in parts) == ("schemaFile" in parts):
        if node.tag.endswith(":map"):
            reader.fault(node, at, "give either schema or schemaFile")
        return None
    if "schemaFile" in parts:
        place = parts["schemaFile"]
        return _schema_of_file(reader, place, reader.text(place, f"{at}.schemaFile"), f"{at}.schemaFile")
    found = len(reader.faults)
    schema = reader.value(parts["schema"], f"{at}.schema")
    if len(reader.faults) == found:
        try:
            exact_json.dumps(schema)
        except InvalidInput as refusal:
            for violation in refusal.violations:
                reader.fault(parts["schema"], f"{at}.schema", f"{violation.field}: {violation.message}".lstrip(": "))
    return schema


def _schema_of_file(reader: Reader, node: yaml.Node, name: str, at: str) -> Any:
    if not name:
        return None
    path = reader.path.parent / name
    try:
        return exact_json.loads(path.read_bytes())
    except OSError as error:
        reader.fault(node, at, f"{path} cannot be read: {error.strerror}")
    except (InvalidInput, ValueError) as error:
        reader.fault(node, at, f"{path} does not hold JSON that can be kept: {error}")
    return None


def _distinct(path: Path, noun: str, wanted: list[Any]) -> list[Any]:
    keys = [one.key for one in wanted]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise CannotStart(f"{path} has the {noun} {key} twice: name, type and version tell them apart")
    return wanted
