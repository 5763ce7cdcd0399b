"""YAML 1.2 with its core schema (section 10.3.2), which hub files and settings files share.

Only `true` and `false` are booleans: `no` and `on` are strings, and so are dates. `010` is ten, `0o10` eight.
"""

import re

import yaml

TAG = "tag:yaml.org,2002:"
# Name, pattern and possible first characters of each scalar type that is not a string.
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Returns the tags and patterns of plain scalars by their first character, as PyYAML expects them."""
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for name, pattern, first_characters in _SCALARS:
        for character in first_characters:
            resolvers.setdefault(character, []).append((TAG + name, re.compile(f"^(?:{pattern})$")))
    return resolvers


class CoreLoader(yaml.SafeLoader):
    """Reads YAML with the types of the core schema."""

    yaml_implicit_resolvers = _resolvers()


def number_of(node: yaml.ScalarNode) -> int | float:
    """Returns the number of a node with the tag int or float. Raises ValueError if it is too long."""
    text = str(node.value)
    if node.tag == f"{TAG}int":
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _construct_number(_: CoreLoader, node: yaml.ScalarNode) -> int | float:
    return number_of(node)


for _name in ("int", "float"):
    CoreLoader.add_constructor(f"{TAG}{_name}", _construct_number)
