"""The table of all keys, read off the model: what each is called, here and in the environment, and what it takes."""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from xzepr.settings.model import Settings
from xzepr.settings.types import NotInEffectYet, Section

PREFIX = "XZEPR__"
ALIASES = {"APP_ENV": "environment", "DATABASE_URL": "database.url", "REDIS_URL": "redis.url"}


@dataclass(frozen=True, slots=True)
class Key:
    """One setting. `name` is dotted (`server.port`); `variable` is its name in the environment."""

    name: str
    field: FieldInfo
    secret: bool
    many: bool
    """Takes a list."""
    optional: bool
    """May be unset."""
    in_effect: bool
    """False: accepted, and nothing obeys it yet."""

    @property
    def variable(self) -> str:
        return variable(self.name)

    @property
    def section(self) -> str:
        """The name of the section that holds it; empty at the top."""
        return self.name.rpartition(".")[0]


def variable(name: str) -> str:
    """The environment's name for a dotted one."""
    return PREFIX + name.upper().replace(".", "__")


@cache
def keys() -> dict[str, Key]:
    """Every setting by its dotted name, in the order of the model."""
    return {key.name: key for key in _walk(Settings, "")}


@cache
def sections() -> dict[str, type[Section]]:
    """Every section by its dotted name."""
    return dict(_sections(Settings, ""))


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that was probably meant, if one is close: by its spelling, or as the same word elsewhere."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if close:
        return close[0]
    word = name.rpartition(".")[2]
    return next((other for other in known if other.rpartition(".")[2] == word), None)


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
        many=any(get_origin(part) is tuple for part in parts),
        optional=NoneType in parts,
        in_effect=not any(isinstance(mark, NotInEffectYet) for mark in field.metadata),
    )


def parts_of(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, without its rules."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from parts_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from parts_of(part)
    else:
        yield annotation
