"""The table of all settings: their names in files and in the environment, and their types, taken from the model."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from xzepr.settings.model import Settings
from xzepr.settings.types import Later, Section

PREFIX = "XZEPR__"
ALIASES = {"APP_ENV": "environment", "DATABASE_URL": "database.url", "REDIS_URL": "redis.url"}


@dataclass(frozen=True, slots=True)
class Key:
    """A setting. `name` is its dotted key (`server.port`)."""

    name: str
    field: FieldInfo
    secret: bool
    is_list: bool
    """Whether its value is a list."""
    optional: bool
    """Whether it may be unset."""
    later: Later | None
    """Set if its feature does not exist yet."""

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return variable(self.name)

    @property
    def section(self) -> str:
        """The dotted name of its section; empty for a setting outside the sections."""
        return self.name.rpartition(".")[0]


def variable(name: str) -> str:
    """Returns the name of the environment variable for a dotted key."""
    return PREFIX + name.upper().replace(".", "__")


@cache
def keys() -> dict[str, Key]:
    """Returns all settings by dotted key, in the order of the model."""
    return {key.name: key for key in _walk(Settings, "")}


@cache
def sections() -> dict[str, type[Section]]:
    """Returns all sections by dotted name."""
    return dict(_sections(Settings, ""))


def value_of(settings: Settings, name: str) -> object:
    """Returns the value of a dotted key."""
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Returns the name that an unknown one probably stands for; None if none is close.

    A name is close if its spelling is similar, or if it has the same last part in another section.
    """
    names = list(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.7)
    if close:
        return close[0]
    last = name.rpartition(".")[2]
    return next((other for other in names if other.rpartition(".")[2] == last), None)


def _walk(model: type[Section], prefix: str) -> Iterator[Key]:
    for name, field in model.model_fields.items():
        section = _section_of(field)
        if section is None:
            yield _key(prefix + name, field)
        else:
            yield from _walk(section, f"{prefix}{name}.")


def _sections(model: type[Section], prefix: str) -> Iterator[tuple[str, type[Section]]]:
    for name, field in model.model_fields.items():
        section = _section_of(field)
        if section is not None:
            yield prefix + name, section
            yield from _sections(section, f"{prefix}{name}.")


def _section_of(field: FieldInfo) -> type[Section] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


def _key(name: str, field: FieldInfo) -> Key:
    parts = set(parts_of(field.annotation))
    return Key(
        name,
        field,
        secret=SecretStr in parts,
        is_list=any(get_origin(part) is tuple for part in parts),
        optional=NoneType in parts,
        later=next((mark for mark in field.metadata if isinstance(mark, Later)), None),
    )


def parts_of(annotation: Any) -> Iterator[Any]:
    """Yields the types that an annotation allows, without its constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from parts_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from parts_of(part)
    else:
        yield annotation
