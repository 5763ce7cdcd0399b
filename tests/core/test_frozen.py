"""Frozen dataclasses that are made quickly behave like the usual ones."""

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, fields, replace

import pytest

from xzepr.core.frozen import frozen


@frozen
class Quick:
    """An example."""

    first: int
    second: str = "two"
    third: object = None


@dataclass(frozen=True, slots=True)
class Usual:
    """An ordinary dataclass with the fields of `Quick`."""

    first: int
    second: str = "two"
    third: object = None


def test_quick_class_equals_usual_one():
    quick, usual = Quick(1, third=3.0), Usual(1, third=3.0)
    assert repr(quick) == repr(usual).replace("Usual", "Quick")
    assert [field.name for field in fields(quick)] == [field.name for field in fields(usual)]
    assert hash(quick) == hash(usual)
    assert quick == Quick(1, "two", 3.0) != Quick(2, "two", 3.0)
    assert replace(quick, second="2") == Quick(1, "2", 3.0)
    assert copy.copy(quick) == pickle.loads(pickle.dumps(quick)) == quick
    assert Quick.__match_args__ == Usual.__match_args__
    assert not hasattr(quick, "__dict__")


def test_quick_class_is_frozen():
    quick = Quick(1)
    with pytest.raises(FrozenInstanceError):
        quick.first = 2  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError):
        del quick.first  # pyright: ignore[reportAttributeAccessIssue]
    assert quick.first == 1


def test_missing_and_unknown_fields_are_rejected():
    with pytest.raises(TypeError, match="first"):
        Quick()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="fourth"):
        Quick(1, fourth=4)  # pyright: ignore[reportCallIssue]


def test_fields_with_factories_need_usual_class():
    with pytest.raises(TypeError, match="needs an ordinary dataclass"):

        @frozen
        class _Factory:
            values: list[int] = field(default_factory=list[int])
