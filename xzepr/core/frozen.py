"""Frozen, slotted dataclasses that are made quickly, for objects of which every event needs some."""

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def frozen(cls: type[T]) -> type[T]:
    """Makes a dataclass with `frozen=True` and `slots=True`, whose `__init__` takes half of the time.

    The usual one calls `object.__setattr__`, which searches for each slot by its name; this one calls the slots.
    Fields may have a default, and nothing else.
    """
    made = dataclass(frozen=True, slots=True)(cls)
    names = [field.name for field in fields(made)]  # pyright: ignore[reportArgumentType]
    if any(field.default_factory is not MISSING or not field.init or field.kw_only for field in fields(made)):  # pyright: ignore[reportArgumentType]
        raise TypeError(f"{cls.__name__} needs an ordinary dataclass")
    namespace: dict[str, Any] = {f"_set_{name}": getattr(made, name).__set__ for name in names}
    body = "".join(f"    _set_{name}(self, {name})\n" for name in names)
    exec(f"def __init__(self, {', '.join(names)}):\n{body}", namespace)  # noqa: S102 as dataclass itself does
    init: Callable[..., None] = namespace["__init__"]
    init.__defaults__ = tuple(field.default for field in fields(made) if field.default is not MISSING)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__init__ = init
    return made
