"""Types that find out by themselves which objects they have are left to graphql-core."""

from typing import Any

import strawberry

from tests.api.graphql_server.plans.schema_pair import Data, Info, SchemaPair, resolved_by


class Detecting:
    """A class whose subclasses accept objects by an attribute."""

    kind = ""

    @classmethod
    def is_type_of(cls, value: Any, _info: object) -> bool:
        """Returns whether the attribute names the class."""
        return value.kind == cls.__name__


@strawberry.interface
class Detected:
    """An interface of such types."""

    text: str


@strawberry.type
class One(Detecting, Detected):
    """A type that inherits its detection."""


@strawberry.interface
class Chosen:
    """An interface that chooses the type of an object."""

    text: str

    @classmethod
    def resolve_type(cls, value: Any, *_: object) -> str:
        """Returns the name of a type, which the text determines."""
        return "First" if value.text == "1" else "Second"


@strawberry.type
class First(Chosen):
    """A type of the interface."""


@strawberry.type
class Second(Chosen):
    """Another type of the interface."""


@strawberry.interface
class Ordinary:
    """An interface whose objects have the classes of its types."""

    text: str


@strawberry.type
class Third(Ordinary):
    """A type of the interface."""


def _value(info: Info) -> object:
    return info.context.get()


@strawberry.type
class Query:
    """Returns what the test has chosen."""

    detected: Detected | None = resolved_by(_value, Detected | None)
    one: One | None = resolved_by(_value, One | None)
    chosen: list[Chosen] = resolved_by(_value, list[Chosen])
    ordinary: list[Ordinary | None] = resolved_by(_value, list[Ordinary | None])


PAIR = SchemaPair(Query, types=[One, First, Second, Third])


def _one(kind: str) -> One:
    one = One(text="t")
    one.kind = kind
    return one


async def test_inherited_detection_decides_on_the_type() -> None:
    for field in ("detected", "one"):
        text = f"{{ {field} {{ __typename text }} }}"
        assert (await PAIR.compare(text, lambda: Data(_one("One")))).data == {field: {"__typename": "One", "text": "t"}}
        assert (await PAIR.compare(text, lambda: Data(_one("Two")))).data == {field: None}


async def test_interface_decides_on_the_type() -> None:
    data = Data([First(text="1"), First(text="2"), Second(text="1")])
    result = await PAIR.compare("{ chosen { __typename text } }", lambda: data)
    assert result.data is not None
    assert [each["__typename"] for each in result.data["chosen"]] == ["First", "Second", "First"]


async def test_subclass_has_the_result_of_graphql_core() -> None:
    class Derived(Third):
        pass

    PAIR.reasons.clear()
    await PAIR.compare("{ ordinary { __typename text } }", lambda: Data([Third(text="a"), None]))
    assert PAIR.reasons == []
    await PAIR.compare("{ ordinary { __typename text } }", lambda: Data([Derived(text="a"), Third(text="b")]))
    assert len(PAIR.reasons) == 1
