"""The file that `xzepr apply` reads: the receivers and groups that a hub should have."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from xzepr.cli.yaml_reader import YamlReader
from xzepr.core import exact_json
from xzepr.core.errors import CannotStart, InvalidInput

_IDENTITY = ("name", "type", "version")


@dataclass(frozen=True, slots=True)
class EntityKey:
    """The three strings that identify a receiver or a group."""

    name: str
    type: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} ({self.type} {self.version})"


@dataclass(frozen=True, slots=True)
class DeclaredReceiver:
    """A receiver as the file declares it."""

    key: EntityKey
    description: str
    schema: Any
    enabled: bool


@dataclass(frozen=True, slots=True)
class MemberReference:
    """A group's reference to a receiver. `type` and `version` are None if the file omits them."""

    name: str
    type: str | None
    version: str | None
    location: str
    """File and line for messages: `hub.yaml:12`."""

    def matches(self, key: EntityKey) -> bool:
        """Returns whether the reference fits the receiver with this key."""
        return self.name == key.name and self.type in (None, key.type) and self.version in (None, key.version)


@dataclass(frozen=True, slots=True)
class DeclaredGroup:
    """A group as the file declares it."""

    key: EntityKey
    description: str
    members: tuple[MemberReference, ...]
    enabled: bool


@dataclass(frozen=True, slots=True)
class HubFile:
    """The receivers and groups of a file, in its order."""

    receivers: tuple[DeclaredReceiver, ...]
    groups: tuple[DeclaredGroup, ...]


def read(path: Path) -> HubFile:
    """Returns the content of a file. Raises CannotStart with every mistake in it, each with its line.

    Duplicate entries are checked after that; the first one raises CannotStart.
    """
    reader = YamlReader(path)
    nodes = reader.mapping(reader.root(), "", ("receivers", "groups"))
    receivers = [
        _receiver(reader, node, key_path) for node, key_path in reader.items(nodes.get("receivers"), "receivers")
    ]
    groups = [_group(reader, node, key_path) for node, key_path in reader.items(nodes.get("groups"), "groups")]
    reader.raise_mistakes()
    return HubFile(tuple(_distinct(path, "receiver", receivers)), tuple(_distinct(path, "group", groups)))


def _receiver(reader: YamlReader, node: yaml.Node, key_path: str) -> DeclaredReceiver:
    allowed = (*_IDENTITY, "description", "schema", "schemaFile", "enabled")
    nodes = reader.mapping(node, key_path, allowed, required=(*_IDENTITY, "description"))
    return DeclaredReceiver(
        key=_key(reader, nodes, key_path),
        description=reader.text(nodes.get("description"), f"{key_path}.description"),
        schema=_schema(reader, node, nodes, key_path),
        enabled=reader.flag(nodes.get("enabled"), f"{key_path}.enabled", default=True),
    )


def _group(reader: YamlReader, node: yaml.Node, key_path: str) -> DeclaredGroup:
    allowed = (*_IDENTITY, "description", "receivers", "enabled")
    nodes = reader.mapping(node, key_path, allowed, required=(*_IDENTITY, "description", "receivers"))
    items = reader.items(nodes.get("receivers"), f"{key_path}.receivers")
    members = [_member(reader, item, item_path) for item, item_path in items]
    return DeclaredGroup(
        key=_key(reader, nodes, key_path),
        description=reader.text(nodes.get("description"), f"{key_path}.description"),
        members=tuple(members),
        enabled=reader.flag(nodes.get("enabled"), f"{key_path}.enabled", default=True),
    )


def _key(reader: YamlReader, nodes: dict[str, yaml.Node], key_path: str) -> EntityKey:
    return EntityKey(*(reader.text(nodes.get(part), f"{key_path}.{part}") for part in _IDENTITY))


def _member(reader: YamlReader, node: yaml.Node, key_path: str) -> MemberReference:
    location = f"{reader.path}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.ScalarNode):
        return MemberReference(reader.text(node, key_path), None, None, location)
    nodes = reader.mapping(node, key_path, _IDENTITY, required=("name",))
    name, type, version = (
        reader.text(nodes[part], f"{key_path}.{part}") if part in nodes else None for part in _IDENTITY
    )
    return MemberReference(name or "", type, version, location)


def _schema(reader: YamlReader, node: yaml.Node, nodes: dict[str, yaml.Node], key_path: str) -> Any:
    if ("schema" in nodes) == ("schemaFile" in nodes):
        if node.tag.endswith(":map"):
            reader.add_mistake(node, key_path, "give either schema or schemaFile")
        return None
    if "schemaFile" in nodes:
        name_node, name_path = nodes["schemaFile"], f"{key_path}.schemaFile"
        return _schema_from_file(reader, name_node, reader.text(name_node, name_path), name_path)
    mistakes_before = len(reader.mistakes)
    schema_path = f"{key_path}.schema"
    schema = reader.value(nodes["schema"], schema_path)
    if len(reader.mistakes) == mistakes_before:
        try:
            exact_json.dumps(schema)
        except InvalidInput as error:
            for violation in error.violations:
                message = f"{violation.field}: {violation.message}".lstrip(": ")
                reader.add_mistake(nodes["schema"], schema_path, message)
    return schema


def _schema_from_file(reader: YamlReader, node: yaml.Node, name: str, key_path: str) -> Any:
    if not name:
        return None
    path = reader.path.parent / name
    try:
        return exact_json.loads(path.read_bytes())
    except OSError as error:
        reader.add_mistake(node, key_path, f"{path} cannot be read: {error.strerror}")
    except (InvalidInput, ValueError) as error:
        reader.add_mistake(node, key_path, f"{path} is not JSON that can be stored exactly: {error}")
    return None


def _distinct(path: Path, noun: str, entries: list[Any]) -> list[Any]:
    keys = [entry.key for entry in entries]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise CannotStart(f"{path} has the {noun} {key} twice: change its name, type or version in one place")
    return entries
