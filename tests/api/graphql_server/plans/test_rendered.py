"""Objects that never change are rendered once for each selection, and again only if their edges differ."""

from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import orjson
import pytest
import strawberry

from tests.api.graphql_server.plans.results import comparable
from tests.api.graphql_server.plans.schema_pair import Data, Info, Parent, SchemaPair, resolved_by
from xzepr.api.graphql.scalars import JSON
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.plans.resolvers import BATCH


@dataclass(frozen=True)
class Source:
    """The source of a Fixed, which counts how often it is read."""

    id: str
    reads: list[str]
    b: int = 2
    c: object = None

    @property
    def a(self) -> str:
        """The id; each time it is read counts."""
        self.reads.append(self.id)
        return self.id


@dataclass(frozen=True)
class OwnerSource:
    """The source of an Owner."""

    name: str


@strawberry.type
class Owner:
    """An object to which an edge leads."""

    name: str


def _owner(roots: Parent, info: Info) -> object:
    return [info.context.calls[-1] for _ in roots]


def _mark(root: Parent, info: Info) -> object:
    return info.context.calls[-1]


@strawberry.type
class Fixed:
    """An object that never changes, apart from its edges."""

    id: strawberry.ID
    a: str
    b: int
    c: int | None
    owner: Owner | None = resolved_by(_owner, Owner | None, metadata=BATCH)
    mark: JSON | None = resolved_by(_mark, JSON | None)


@strawberry.type
class Query:
    """Returns what the test has chosen."""

    @strawberry.field(graphql_type=list[Fixed | None])
    @staticmethod
    def fixed(info: Info) -> object:
        return info.context.value


@pytest.fixture
def pair() -> SchemaPair:
    """The schema, with an empty cache."""
    return SchemaPair(Query, rendered=RenderedObjects({"Fixed": attrgetter("id")}))


async def _data(pair: SchemaPair, text: str, sources: list[Any], edge: object = None) -> Any:
    result = await pair.run(text, Data(sources, calls=[edge]))
    return orjson.loads(comparable(result.data))  # pyright: ignore[reportArgumentType] it is JSON here


async def test_object_is_rendered_once_for_each_selection(pair: SchemaPair) -> None:
    reads: list[str] = []
    sources = [Source("1", reads), None, Source("2", reads), Source("1", reads)]
    for _ in range(2):
        one = await _data(pair, "{ fixed { id a b c } }", sources)
        assert one["fixed"][3] == {"id": "1", "a": "1", "b": 2, "c": None}
        assert one["fixed"][1] is None
    assert reads == ["1", "2"]
    other = await _data(pair, "{ fixed { a b other: a c } }", sources)
    assert other["fixed"][2] == {"a": "2", "b": 2, "other": "2", "c": None}


async def test_object_has_two_selections_in_one_document(pair: SchemaPair) -> None:
    sources = [Source("1", [])]
    data = await _data(pair, "{ fixed { id a b c } other: fixed { c b a id } }", sources)
    assert list(data["other"][0]) == ["c", "b", "a", "id"]
    assert list(data["fixed"][0]) == ["id", "a", "b", "c"]


async def test_object_is_rendered_again_if_its_edge_differs(pair: SchemaPair) -> None:
    reads: list[str] = []
    text = "{ fixed { id owner { name } a b } }"
    for owner in ("ada", "ada", "bob", None, "ada"):
        data = await _data(pair, text, [Source("1", reads)], owner and OwnerSource(owner))
        assert data["fixed"] == [{"id": "1", "owner": owner and {"name": owner}, "a": "1", "b": 2}]
    assert len(reads) == 4
    assert pair.reasons == []


async def test_equal_scalars_of_other_types_are_not_mixed_up(pair: SchemaPair) -> None:
    for mark in (1, True, 1.0, [1], [True]):
        data = await _data(pair, "{ fixed { id a b mark } }", [Source("1", [])], mark)
        assert repr(data["fixed"][0]["mark"]) == repr(mark)


async def test_odd_object_is_not_kept(pair: SchemaPair) -> None:
    data = await _data(pair, "{ fixed { id a b c } }", [Source("1", []), Source("2", [], c="odd")])
    assert data == {"fixed": [{"id": "1", "a": "1", "b": 2, "c": None}, {"id": "2", "a": "2", "b": 2, "c": None}]}
    assert pair.reasons == ["value"]
    await _data(pair, "{ fixed { id a b c } }", [Source("2", [], c="odd")])
    assert pair.reasons == ["value", "value"]
