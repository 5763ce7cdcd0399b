"""Reads YAML as JSON values, and collects every mistake with its line and key path.

The file is read with YAML 1.2's core schema: only `true` and `false` are booleans, and dates are strings.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import yaml

from xzepr.cli.output import printable, unknown_key_message
from xzepr.core.errors import CannotStart
from xzepr.settings.yaml_core import TAG, CoreLoader, number_of


@dataclass(slots=True)
class YamlReader:
    """Reads the nodes of one file and collects the mistakes in them.

    `key_path` is the path of a node's key, such as `receivers[1].name`; it is shown in messages.
    """

    path: Path
    mistakes: list[str] = field(default_factory=list[str])

    def root(self) -> yaml.Node:
        """Returns the root node. Raises CannotStart if the file cannot be read, is empty or is not YAML."""
        try:
            node = _compose(self.path.read_text(encoding="utf-8"))
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

    def add_mistake(self, node: yaml.Node, key_path: str, message: str) -> None:
        """Records a mistake at a node."""
        prefix = f"{key_path}: " if key_path else ""
        self.mistakes.append(f"{self.path}:{node.start_mark.line + 1}: {prefix}{message}")

    def raise_mistakes(self) -> None:
        """Raises CannotStart with every recorded mistake, if there are any."""
        if len(self.mistakes) == 1:
            raise CannotStart(self.mistakes[0])
        if self.mistakes:
            raise CannotStart("\n  ".join([f"{self.path} has {len(self.mistakes)} mistakes:", *self.mistakes]))

    def mapping(
        self, node: yaml.Node, key_path: str, allowed: Sequence[str], required: Iterable[str] = ()
    ) -> dict[str, yaml.Node]:
        """Returns the nodes of a mapping by key. Unknown, duplicate and missing keys are mistakes."""
        if not isinstance(node, yaml.MappingNode):
            self.add_mistake(node, key_path, f"this must be a mapping of {', '.join(allowed)}")
            return {}
        nodes: dict[str, yaml.Node] = {}
        for key, value in self._pairs(node, key_path):
            if key in allowed:
                nodes[key] = value
            else:
                self.add_mistake(value, _child_path(key_path, key), unknown_key_message(key, allowed))
        for key in required:
            if key not in nodes:
                self.add_mistake(node, key_path, f"{key} is missing")
        return nodes

    def items(self, node: yaml.Node | None, key_path: str) -> list[tuple[yaml.Node, str]]:
        """Returns the nodes of a list with their key paths; empty if the list is absent or null."""
        if node is None or _is_null(node):
            return []
        if not isinstance(node, yaml.SequenceNode):
            self.add_mistake(node, key_path, "this must be a list")
            return []
        return [(item, f"{key_path}[{index}]") for index, item in enumerate(node.value)]

    def text(self, node: yaml.Node | None, key_path: str) -> str:
        """Returns a string; empty if it is absent or a mistake."""
        if node is None:
            return ""
        if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "str":
            return str(node.value)
        if isinstance(node, yaml.ScalarNode) and not _is_null(node):
            message = f'this must be a string: put it in quotes ("{printable(node.value)}")'
            self.add_mistake(node, key_path, message)
        else:
            self.add_mistake(node, key_path, "this must be a string")
        return ""

    def flag(self, node: yaml.Node | None, key_path: str, *, default: bool) -> bool:
        """Returns a boolean; the default if it is absent or a mistake."""
        if node is None:
            return default
        if node.tag != TAG + "bool":
            self.add_mistake(node, key_path, "this must be true or false")
            return default
        return str(node.value).lower() == "true"

    def value(self, node: yaml.Node, key_path: str, ancestors: tuple[yaml.Node, ...] = ()) -> Any:
        """Returns any JSON value; None in place of a mistake."""
        if node in ancestors:
            self.add_mistake(node, key_path, "this contains itself")
            return None
        chain = (*ancestors, node)
        if isinstance(node, yaml.MappingNode):
            pairs = self._pairs(node, key_path)
            return {key: self.value(child, _child_path(key_path, key), chain) for key, child in pairs}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, item_path, chain) for item, item_path in self.items(node, key_path)]
        match node.tag.removeprefix(TAG):
            case "str":
                return str(node.value)
            case "null":
                return None
            case "bool":
                return str(node.value).lower() == "true"
            case "int" | "float":
                return self._number(node, key_path)
            case _:
                self.add_mistake(node, key_path, f"JSON has no value of the type {node.tag}")
                return None

    def _number(self, node: yaml.Node, key_path: str) -> int | float:
        assert isinstance(node, yaml.ScalarNode), "only a scalar can be a number"
        try:
            number = number_of(node)
        except ValueError:  # Python does not convert an integer of thousands of digits
            self.add_mistake(node, key_path, "this number is too long")
            return 0
        if not isfinite(number):
            self.add_mistake(node, key_path, f"JSON has no {node.value}")
            return 0
        return number

    def _pairs(self, node: yaml.MappingNode, key_path: str) -> list[tuple[str, yaml.Node]]:
        pairs: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.add_mistake(key_node, key_path, "a key must be a string")
                continue
            key = str(key_node.value)
            if key in pairs:
                self.add_mistake(key_node, _child_path(key_path, key), "this key is given twice")
            pairs[key] = value
        return list(pairs.items())


def _compose(text: str) -> yaml.Node | None:
    return CoreLoader(text).get_single_node()


def _child_path(key_path: str, key: str) -> str:
    return f"{key_path}.{printable(key)}" if key_path else printable(key)


def _is_null(node: yaml.Node) -> bool:
    return node.tag == TAG + "null"
