"""Units on the command line: always five arguments, NAME VERSION RELEASE PLATFORM PACKAGE, in this order."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from typing import Annotated

import typer

from xzepr.cli.client.http import HubClient, JsonObject
from xzepr.cli.output import printable

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The unit's name.")]
VersionArgument = Annotated[str, typer.Argument(metavar="VERSION", help="The unit's version.")]
ReleaseArgument = Annotated[str, typer.Argument(metavar="RELEASE", help="The unit's release.")]
PlatformArgument = Annotated[str, typer.Argument(metavar="PLATFORM", help="The unit's platform id.")]
PackageArgument = Annotated[str, typer.Argument(metavar="PACKAGE", help="The unit's package.")]

UNIT_FIELDS = "name version release platformId package"
_GRAPHQL_FIELDS = ("name", "version", "release", "platformId", "package")
_EVENTS_PER_FIELD = 50


@dataclass(frozen=True, slots=True)
class UnitKey:
    """The five strings that identify a unit."""

    name: str
    version: str
    release: str
    platform: str
    package: str

    @classmethod
    def from_json(cls, node: JsonObject) -> "UnitKey":
        """Returns the unit of a GraphQL object with UNIT_FIELDS."""
        return cls(*(str(node[name]) for name in _GRAPHQL_FIELDS))

    def as_input(self) -> JsonObject:
        """Returns the unit as a GraphQL `UnitInput`."""
        return dict(zip(_GRAPHQL_FIELDS, astuple(self), strict=True))

    def __str__(self) -> str:
        return " ".join(printable(part) for part in astuple(self))


@dataclass(frozen=True, slots=True)
class SimilarUnit:
    """A unit with events that differs from another one in a single field."""

    unit: UnitKey
    field: str
    value: str

    def as_json(self) -> JsonObject:
        """Returns the unit as `--json` prints it."""
        return {"unit": self.unit.as_input(), "differsIn": self.field}


def similar_units(client: HubClient, unit: UnitKey) -> list[SimilarUnit]:
    """Returns units that equal `unit` in all fields but one, to find a typing mistake.

    For each field, only the 50 newest events that match the other four fields are searched.
    """
    unit_input = unit.as_input()
    lists = " ".join(
        f"f{index}: events(filter: $f{index}, first: {_EVENTS_PER_FIELD}) {{ nodes {{ {UNIT_FIELDS} }} }}"
        for index in range(len(_GRAPHQL_FIELDS))
    )
    declarations = ", ".join(f"$f{index}: EventFilterInput" for index in range(len(_GRAPHQL_FIELDS)))
    variables = {
        f"f{index}": {name: value for name, value in unit_input.items() if name != omitted}
        for index, omitted in enumerate(_GRAPHQL_FIELDS)
    }
    data = client.execute(f"query ({declarations}) {{ {lists} }}", **variables)
    return list(dict.fromkeys(_differing(unit, data)))


def _differing(unit: UnitKey, data: JsonObject) -> Iterator[SimilarUnit]:
    for index, field in enumerate(fields(UnitKey)):
        for node in data[f"f{index}"]["nodes"]:
            other = UnitKey.from_json(node)
            if other != unit:
                yield SimilarUnit(other, field.name, str(getattr(other, field.name)))
