"""Settings from a YAML file, each with the line it stands on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import yaml

from xzepr.settings.registry import keys, nearest, sections


@dataclass(frozen=True, slots=True)
class RawValue:
    """A value as it was given, not checked yet, and where it came from, in words for an operator."""

    value: object
    origin: str


class _Constructor(Protocol):
    """The part of PyYAML's loader that makes values, with the types that its stubs lack."""

    def construct_object(self, node: yaml.Node, deep: bool = ...) -> object: ...


def read_file(path: Path, shown: str, faults: list[str], *, may_be_absent: bool = False) -> dict[str, RawValue]:
    """What the file, called `shown`, sets, by dotted key. Adds a sentence to `faults` for everything wrong."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        found = list(_leaves(loader, root, "")) if root is not None else []
    except OSError as error:
        if not (may_be_absent and isinstance(error, FileNotFoundError | NotADirectoryError)):
            faults.append(f"{shown} cannot be read: {error.strerror}")
        return {}
    except (yaml.YAMLError, ValueError) as error:
        # The parser's own words may quote the file, and with it a secret.
        faults.append(f"{shown}{_place(error)} is not valid YAML")
        return {}
    given: dict[str, RawValue] = {}
    for name, line, value in found:
        _take(given, name, RawValue(value, f"{shown}:{line}"), faults)
    return given


def _take(given: dict[str, RawValue], name: str, found: RawValue, faults: list[str]) -> None:
    if name in given:
        faults.append(f"{name} ({found.origin}) is set already ({given[name].origin})")
    elif name in keys():
        given[name] = found
    elif name in sections() or not name:
        # An empty section is how a file looks whose keys are all commented out.
        if found.value is not None:
            faults.append(f"{name or 'the file'} ({found.origin}) should hold keys, not a value")
    else:
        faults.append(f"{name} ({found.origin}) is unknown{_hint(name)}")


def _hint(name: str) -> str:
    meant = nearest(name, [*keys(), *sections()])
    return f"; did you mean {meant}?" if meant else ""


def _leaves(loader: _Constructor, node: yaml.Node, name: str) -> Iterator[tuple[str, int, object]]:
    """(dotted name, line from 1, value) of everything that is not itself a section we know."""
    if isinstance(node, yaml.MappingNode) and (name in sections() or not name):
        for key_node, value_node in node.value:
            below = f"{name}.{key_node.value}" if name else str(key_node.value)
            if isinstance(value_node, yaml.MappingNode) and below in sections():
                yield from _leaves(loader, value_node, below)
            else:
                yield below, key_node.start_mark.line + 1, loader.construct_object(value_node, deep=True)
    else:
        yield name, node.start_mark.line + 1, loader.construct_object(node, deep=True)


def _place(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}" if isinstance(mark, yaml.Mark) else ""
