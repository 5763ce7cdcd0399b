"""Settings from YAML files, each with its line."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from xzepr.settings.registry import keys, nearest, sections
from xzepr.settings.yaml_core import CoreLoader


@dataclass(frozen=True, slots=True)
class RawValue:
    """An unchecked value and its origin, as text for an operator."""

    value: object
    origin: str


class _Constructor(Protocol):
    """The typed part of PyYAML's loader that this module calls; the stubs lack its types."""

    def construct_object(self, node: yaml.Node, deep: bool = ...) -> object: ...


def read_file(path: Path, label: str, errors: list[str], *, may_be_absent: bool = False) -> dict[str, RawValue]:
    """Returns the values that a file sets, by dotted key. Adds a message to `errors` for each mistake.

    `label` is the name of the file in messages and origins.
    """
    try:
        loader = CoreLoader(path.read_text(encoding="utf-8-sig"))
        root = loader.get_single_node()
        leaves = list(_leaves(loader, root, "")) if root is not None else []
    except OSError as error:
        if not (may_be_absent and isinstance(error, FileNotFoundError | NotADirectoryError)):
            errors.append(f"{label} cannot be read: {error.strerror}")
        return {}
    except (yaml.YAMLError, ValueError) as error:
        # The parser's message may quote a secret from the file.
        errors.append(f"{label}{_line(error)} is not valid YAML")
        return {}
    values: dict[str, RawValue] = {}
    for name, line, value in leaves:
        _add(values, name, RawValue(value, f"{label}:{line}"), errors)
    return values


def _add(values: dict[str, RawValue], name: str, raw: RawValue, errors: list[str]) -> None:
    if name in values:
        errors.append(f"{name} ({raw.origin}) is set already ({values[name].origin})")
    elif name in keys():
        values[name] = raw
    elif name in sections() or not name:
        # A section is empty if all of its keys are commented out.
        if raw.value is not None:
            errors.append(f"{name or 'the file'} ({raw.origin}) should hold keys, not a value")
    else:
        errors.append(f"{name} ({raw.origin}) is unknown{_hint(name)}")


def _hint(name: str) -> str:
    suggestion = nearest(name, [*keys(), *sections()])
    return f"; did you mean {suggestion}?" if suggestion else ""


def _leaves(loader: _Constructor, node: yaml.Node, name: str) -> Iterator[tuple[str, int, object]]:
    """Yields the dotted name, line (from 1) and value of every node that is not a known section."""
    if isinstance(node, yaml.MappingNode) and (name in sections() or not name):
        for key_node, value_node in node.value:
            child = f"{name}.{key_node.value}" if name else str(key_node.value)
            if isinstance(value_node, yaml.MappingNode) and child in sections():
                yield from _leaves(loader, value_node, child)
            else:
                yield child, key_node.start_mark.line + 1, loader.construct_object(value_node, deep=True)
    else:
        yield name, node.start_mark.line + 1, loader.construct_object(node, deep=True)


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if isinstance(mark, yaml.Mark) else ""
