"""A unit on the command line: always the five strings NAME VERSION RELEASE PLATFORM PACKAGE, in this order."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Annotated

import typer

from xzepr.cli.client.http import Client, JsonObject
from xzepr.cli.output import visible

Name = Annotated[str, typer.Argument(metavar="NAME", help="The unit's name.")]
Version = Annotated[str, typer.Argument(metavar="VERSION", help="Its version.")]
Release = Annotated[str, typer.Argument(metavar="RELEASE", help="Its release.")]
Platform = Annotated[str, typer.Argument(metavar="PLATFORM", help="Its platform id.")]
Package = Annotated[str, typer.Argument(metavar="PACKAGE", help="Its package.")]

UNIT_FIELDS = "name version release platformId package"
_GRAPHQL = ("name", "version", "release", "platformId", "package")
_LOOKED_AT = 50


@dataclass(frozen=True, slots=True)
class Unit:
    """What events are about: exactly these five strings."""

    name: str
    version: str
    release: str
    platform: str
    package: str

    @classmethod
    def of(cls, found: JsonObject) -> "Unit":
        """The unit of an object with UNIT_FIELDS."""
        return cls(*(str(found[name]) for name in _GRAPHQL))

    def as_input(self) -> JsonObject:
        """It as GraphQL takes it."""
        return dict(zip(_GRAPHQL, astuple(self), strict=True))

    def __str__(self) -> str:
        return " ".join(visible(part) for part in astuple(self))


@dataclass(frozen=True, slots=True)
class Near:
    """A unit that somebody reported on and that differs in one field."""

    unit: Unit
    field: str
    value: str

    def as_json(self) -> JsonObject:
        """It as `--json` prints it."""
        return {"unit": self.unit.as_input(), "differsIn": self.field}


def near(client: Client, unit: Unit) -> list[Near]:
    """Units with events that equal this one in all fields but one: what a typing mistake looks like. Of each field,
    those among its 50 newest events."""
    whole = unit.as_input()
    lists = " ".join(
        f"f{index}: events(filter: $f{index}, first: {_LOOKED_AT}) {{ nodes {{ {UNIT_FIELDS} }} }}"
        for index in range(len(_GRAPHQL))
    )
    declared = ", ".join(f"$f{index}: EventFilterInput" for index in range(len(_GRAPHQL)))
    variables = {
        f"f{index}": {name: value for name, value in whole.items() if name != left_out}
        for index, left_out in enumerate(_GRAPHQL)
    }
    answer = client.ask(f"query ({declared}) {{ {lists} }}", **variables)
    return list(dict.fromkeys(_differing(unit, answer)))


def _differing(unit: Unit, answer: JsonObject) -> Iterator[Near]:
    for index, field in enumerate(fields(Unit)):
        for node in answer[f"f{index}"]["nodes"]:
            other = Unit.of(node)
            if other != unit:
                yield Near(other, field.name, str(getattr(other, field.name)))
