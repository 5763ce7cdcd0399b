"""YAML with places: a file's values as JSON knows them, and every mistake with its line and its key path.

YAML's core schema (1.2) is read: only `true` and `false` are booleans, and a date is a text.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from xzepr.cli.output import visible
from xzepr.core.errors import CannotStart

_TAG = "tag:yaml.org,2002:"
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """The tags of plain scalars by their first character, as PyYAML looks them up."""
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, first in _SCALARS:
        for character in first:
            found.setdefault(character, []).append((_TAG + name, re.compile(f"^(?:{pattern})$")))
    return found


class _CoreLoader(yaml.SafeLoader):
    """Composes nodes whose tags are those of the core schema."""

    yaml_implicit_resolvers = _resolvers()


@dataclass(slots=True)
class Reader:
    """Reads nodes of one file and gathers what is wrong with them."""

    path: Path
    faults: list[str] = field(default_factory=list[str])

    def root(self) -> yaml.Node:
        """The whole file. Raises CannotStart when it cannot be read or is not YAML."""
        try:
            node = _composed(self.path.read_text(encoding="utf-8"))
        except OSError as error:
            raise CannotStart(f"{self.path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise CannotStart(f"{self.path} is not UTF-8: {error.reason} at byte {error.start}") from error
        except yaml.MarkedYAMLError as error:
            line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
            raise CannotStart(f"{self.path}{line}: this is not YAML: {error.problem}") from error
        except yaml.YAMLError as error:
            raise CannotStart(f"{self.path} is not YAML: {' '.join(str(error).split())}") from error
        if node is None:
            raise CannotStart(f"{self.path} is empty")
        return node

    def fault(self, node: yaml.Node, place: str, message: str) -> None:
        """Notes a mistake at a node; `place` is its key path."""
        self.faults.append(f"{self.path}:{node.start_mark.line + 1}: {place + ': ' if place else ''}{message}")

    def finish(self) -> None:
        """Raises CannotStart with every mistake, if there is one."""
        if len(self.faults) == 1:
            raise CannotStart(self.faults[0])
        if self.faults:
            raise CannotStart("\n  ".join([f"{self.path} has {len(self.faults)} mistakes:", *self.faults]))

    def mapping(
        self, node: yaml.Node, place: str, known: Sequence[str], required: Iterable[str] = ()
    ) -> dict[str, yaml.Node]:
        """The nodes below a mapping by their keys; unknown, repeated and missing keys are mistakes."""
        if not isinstance(node, yaml.MappingNode):
            self.fault(node, place, f"this must be a mapping of {', '.join(known)}")
            return {}
        found: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, place):
            if key in known:
                found[key] = value
            else:
                self.fault(value, _below(place, key), unknown_key(key, known))
        for key in required:
            if key not in found:
                self.fault(node, place, f"{key} is missing")
        return found

    def items(self, node: yaml.Node | None, place: str) -> list[tuple[yaml.Node, str]]:
        """The nodes of a list, each with its place; none for an absent or empty one."""
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.fault(node, place, "this must be a list")
            return []
        return [(item, f"{place}[{index}]") for index, item in enumerate(node.value)]

    def text(self, node: yaml.Node | None, place: str) -> str:
        """A text; empty where it is absent or a mistake."""
        if node is None:
            return ""
        if isinstance(node, yaml.ScalarNode) and node.tag == _TAG + "str":
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and not _is_null(node):
            self.fault(node, place, f'this must be a text: put it in quotes ("{visible(node.value)}")')
        else:
            self.fault(node, place, "this must be a text")
        return ""

    def flag(self, node: yaml.Node | None, place: str, *, default: bool) -> bool:
        """true or false."""
        if node is None:
            return default
        if node.tag != _TAG + "bool":
            self.fault(node, place, "this must be true or false")
            return default
        return str(node.value).lower() == "true"

    def value(self, node: yaml.Node, place: str, above: tuple[yaml.Node, ...] = ()) -> Any:
        """Any JSON value; None where it is a mistake."""
        if node in above:
            self.fault(node, place, "this contains itself")
            return None
        within = (*above, node)
        if isinstance(node, yaml.MappingNode):
            return {key: self.value(below, _below(place, key), within) for key, below in self._pairs(node, place)}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, at, within) for item, at in self.items(node, place)]
        match node.tag.removeprefix(_TAG):
            case "str":
                return str(node.value)
            case "null":
                return None
            case "bool":
                return str(node.value).lower() == "true"
            case "int" | "float":
                return self._number(node, place)
            case _:
                self.fault(node, place, f"{node.tag} is nothing that JSON knows")
                return None

    def _number(self, node: yaml.Node, place: str) -> int | float:
        try:
            return int(node.value) if node.tag == _TAG + "int" else float(node.value)
        except ValueError:  # Python reads no integer of thousands of digits
            self.fault(node, place, "this number is too long")
            return 0

    def _pairs(self, node: yaml.MappingNode, place: str) -> list[tuple[str, yaml.Node]]:
        pairs: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, place, "a key must be a text")
                continue
            key = str(key_node.value)
            if key in pairs:
                self.fault(key_node, _below(place, key), "this key is given twice")
            pairs[key] = value
        return list(pairs.items())


def _composed(text: str) -> yaml.Node | None:
    return _CoreLoader(text).get_single_node()


def unknown_key(key: str, known: Sequence[str]) -> str:
    """What is wrong with a key, and which one it looks like."""
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
    return f"{visible(key)!r} is not known here: {hint}"


def _below(place: str, key: str) -> str:
    return f"{place}.{visible(key)}" if place else visible(key)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == _TAG + "null"
