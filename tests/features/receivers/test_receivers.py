"""Receivers: what may be made, changed and deleted, and what the stream says of it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from xzepr.core.actor import ANONYMOUS, Actor, ActorKind, Permission, Role, permissions_of
from xzepr.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from xzepr.core.ids import new_id
from xzepr.core.paging import PageRequest
from xzepr.features.receivers import rules
from xzepr.features.receivers.model import NewReceiver, ReceiverChange, ReceiverFilter
from xzepr.features.receivers.schemas import digest, fingerprint
from xzepr.features.receivers.service import Receivers
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message
from xzepr.features.stream.service import Stream
from xzepr.infra.db import Database
from xzepr.settings import DatabaseSettings

MANAGER = Actor(ActorKind.USER, "m", "manager", permissions_of((Role.EVENT_MANAGER,)))
VIEWER = Actor(ActorKind.USER, "v", "viewer", permissions_of((Role.EVENT_VIEWER,)))
NEW = NewReceiver(
    name="build",
    type="com.example.build",
    version="1.0",
    description="A build has ended",
    schema={"type": "object", "properties": {"z": {"type": "integer"}, "a": True}},
)


@dataclass(frozen=True, slots=True)
class Here:
    """One server's receivers, and what a test looks at behind them."""

    db: Database
    stream: Stream
    receivers: Receivers

    async def messages(self) -> list[Message]:
        return await self.stream.after(0, 1000)

    async def rows(self, id: str) -> list[tuple[Any, ...]]:
        """The revisions of a receiver as they are stored."""
        async with self.db.read() as connection:
            cursor = await connection.execute(
                """
                SELECT revision, schema::text, schema_digest FROM receiver_revisions
                WHERE receiver_id = %s ORDER BY revision
                """,
                (id,),
            )
            return await cursor.fetchall()

    async def execute(self, statement: Any, values: Any) -> None:
        async with self.db.write() as connection:
            await connection.execute(statement, values)


@pytest.fixture
async def here(database_url: str) -> AsyncIterator[Here]:
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=8), name="test")
    await db.open()
    try:
        stream = await Stream.open(db)
        yield Here(db, stream, Receivers(db, stream))
    finally:
        await db.close()


async def test_created_receiver_is_published_in_full(here: Here):
    made = await here.receivers.create(MANAGER, replace(NEW, name="  build ", description="Straße 🚀"))
    assert await here.receivers.get(VIEWER, made.id) == made
    assert (made.name, made.description) == ("  build ", "Straße 🚀")
    assert made.schema == b'{"type":"object","properties":{"z":{"type":"integer"},"a":true}}'
    assert (made.schema_digest, made.revision, made.resource_version) == (digest(made.schema), 1, 1)
    assert made.fingerprint == fingerprint(made.type, made.description, made.name, made.version)
    assert (made.enabled, made.owner_id, made.position) == (True, "m", 1)
    assert await here.rows(made.id) == [(1, made.schema.decode(), made.schema_digest)]
    (message,) = await here.messages()
    assert (message.kind, message.receiver_id, message.actor_id) == (Kind.RECEIVER_CREATED, made.id, "m")
    assert (message.position, message.time) == (made.position, made.created_at)
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == made
    assert orjson.loads(message.data)["schema"] == NEW.schema


async def test_duplicate_receivers_are_allowed(here: Here):
    one, other = [await here.receivers.create(MANAGER, NEW) for _ in range(2)]
    assert one.id != other.id
    assert one.fingerprint == other.fingerprint


async def test_all_receiver_violations_are_reported(here: Here):
    wrong = NewReceiver(name=" \n", type="a\0b", version="x" * 256, description="\ud800", schema={"type": "strin"})
    with pytest.raises(InvalidInput) as refusal:
        await here.receivers.create(MANAGER, wrong)
    assert [v.field for v in refusal.value.violations] == ["name", "type", "version", "description", "schema/type"]
    with pytest.raises(InvalidInput, match="description must not be blank"):
        await here.receivers.create(MANAGER, replace(NEW, description=""))
    with pytest.raises(InvalidInput, match="4,001 characters"):
        await here.receivers.create(MANAGER, replace(NEW, description="d" * 4001))
    assert await here.messages() == []
    assert (await here.receivers.page(VIEWER, ReceiverFilter(), PageRequest())).items == []


async def test_texts_of_maximum_length_are_stored(here: Here):
    longest = NewReceiver("名" * 255, "型" * 255, "版" * 255, "述" * 4000, True)
    made = await here.receivers.create(MANAGER, longest)
    found = await here.receivers.page(
        VIEWER, ReceiverFilter(longest.name, longest.type, longest.version), PageRequest()
    )
    assert found.items == [made]


async def test_receiver_update_keeps_omitted_fields(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    after = await here.receivers.update(MANAGER, made.id, ReceiverChange(version="2.0", enabled=False))
    assert after == replace(
        made,
        version="2.0",
        enabled=False,
        fingerprint=fingerprint(made.type, made.description, made.name, "2.0"),
        resource_version=2,
        updated_at=after.updated_at,
    )
    assert after.updated_at > made.updated_at
    assert await here.receivers.get(VIEWER, made.id) == after
    message = (await here.messages())[-1]
    assert (message.kind, message.receiver_id, message.time) == (Kind.RECEIVER_UPDATED, made.id, after.updated_at)
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == after


async def test_only_changed_schema_creates_revision(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    same = await here.receivers.update(MANAGER, made.id, ReceiverChange(schema=NEW.schema))
    assert (same.revision, same.resource_version) == (1, 2)
    other = await here.receivers.update(MANAGER, made.id, ReceiverChange(schema=False, name="renamed"))
    assert (other.revision, other.schema, other.schema_digest) == (2, b"false", digest(b"false"))
    assert await here.rows(made.id) == [
        (1, made.schema.decode(), made.schema_digest),
        (2, "false", other.schema_digest),
    ]


async def test_invalid_update_changes_nothing(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    for change, field in ((ReceiverChange(name=" "), "name"), (ReceiverChange(name="ok", schema=None), "schema")):
        with pytest.raises(InvalidInput) as refusal:
            await here.receivers.update(MANAGER, made.id, change)
        assert refusal.value.field == field
    assert await here.receivers.get(VIEWER, made.id) == made
    assert len(await here.messages()) == 1


async def test_stale_expected_version_is_conflict(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    after = await here.receivers.update(MANAGER, made.id, ReceiverChange(name="two"), expected_version=1)
    with pytest.raises(Conflict, match="at version 2, not 1"):
        await here.receivers.update(MANAGER, made.id, ReceiverChange(name="three"), expected_version=1)
    with pytest.raises(Conflict, match="at version 2, not 1"):
        await here.receivers.delete(MANAGER, made.id, expected_version=1)
    assert await here.receivers.get(VIEWER, made.id) == after
    assert len(await here.messages()) == 2


async def test_one_of_concurrent_updates_wins(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    results = await asyncio.gather(
        *(here.receivers.update(MANAGER, made.id, ReceiverChange(name=f"n{n}"), expected_version=1) for n in range(5)),
        return_exceptions=True,
    )
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True, True, True, True]
    assert (await here.receivers.get(VIEWER, made.id)).resource_version == 2
    assert len(await here.messages()) == 2


async def test_deletion_publishes_last_receiver_state(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    assert await here.receivers.delete(MANAGER, made.id, expected_version=1) == made
    with pytest.raises(NotFound):
        await here.receivers.get(VIEWER, made.id)
    assert await here.rows(made.id) == []
    message = (await here.messages())[-1]
    assert message.kind is Kind.RECEIVER_DELETED
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == made


async def test_receiver_in_use_is_not_deleted(here: Here):
    reported, member = [await here.receivers.create(MANAGER, NEW) for _ in range(2)]
    await here.execute(
        """
        INSERT INTO events VALUES (9, 'e', 'u', 'n', 'v', 'r', 'p', 'k', 'd', '{}', true, %s, 1, 'm', now(), now())
        """,
        (reported.id,),
    )
    group_id = new_id()
    await here.execute(
        "INSERT INTO groups VALUES (%s, 8, 'g', 't', 'v', 'd', true, 'm', 1, 8, now(), now())", (group_id,)
    )
    await here.execute("INSERT INTO group_members VALUES (%s, %s, 0)", (group_id, member.id))
    with pytest.raises(Conflict, match="has events"):
        await here.receivers.delete(MANAGER, reported.id)
    with pytest.raises(Conflict, match=f"member of the group {group_id}"):
        await here.receivers.delete(MANAGER, member.id)
    assert set(await here.receivers.by_ids(VIEWER, [reported.id, member.id])) == {reported.id, member.id}
    assert len(await here.messages()) == 2


@pytest.mark.parametrize("id", ["", "nobody", "a\0b", "\ud800", "0" * 26])
async def test_unknown_id_raises_not_found(here: Here, id: str):
    with pytest.raises(NotFound):
        await here.receivers.get(VIEWER, id)
    with pytest.raises(NotFound):
        await here.receivers.update(MANAGER, id, ReceiverChange(name="x"))
    with pytest.raises(NotFound):
        await here.receivers.delete(MANAGER, id)
    assert await here.receivers.by_ids(VIEWER, [id]) == {}
    assert await here.messages() == []


async def test_receivers_are_listed_newest_first(here: Here):
    made = [await here.receivers.create(MANAGER, replace(NEW, name=f"n{n % 2}", enabled=n < 3)) for n in range(5)]
    newest = made[::-1]
    first = await here.receivers.page(VIEWER, ReceiverFilter(), PageRequest(first=2))
    assert (first.items, first.has_next) == (newest[:2], True)
    second = await here.receivers.page(VIEWER, ReceiverFilter(), PageRequest(first=3, after=newest[1].position))
    assert (second.items, second.has_next) == (newest[2:], False)
    odd = await here.receivers.page(
        VIEWER, ReceiverFilter(name="n1", type=NEW.type, version=NEW.version), PageRequest()
    )
    assert odd.items == [made[3], made[1]]
    disabled = await here.receivers.page(VIEWER, ReceiverFilter(enabled=False), PageRequest())
    assert disabled.items == [made[4], made[3]]
    assert (await here.receivers.page(VIEWER, ReceiverFilter(name="N1"), PageRequest())).items == []
    with pytest.raises(InvalidInput, match="NUL"):
        await here.receivers.page(VIEWER, ReceiverFilter(name="a\0b"), PageRequest())


@pytest.mark.parametrize(
    ("actor", "problem"),
    [(ANONYMOUS, Unauthenticated), (Actor(ActorKind.USER, "n", "nobody", frozenset()), Forbidden)],
)
async def test_receiver_access_requires_permission(
    here: Here, actor: Actor, problem: type[Unauthenticated | Forbidden]
):
    made = await here.receivers.create(MANAGER, NEW)
    calls = (
        lambda: here.receivers.create(actor, NEW),
        lambda: here.receivers.update(actor, made.id, ReceiverChange(name="x")),
        lambda: here.receivers.delete(actor, made.id),
        lambda: here.receivers.get(actor, made.id),
        lambda: here.receivers.by_ids(actor, [made.id]),
        lambda: here.receivers.page(actor, ReceiverFilter(), PageRequest()),
    )
    for call in calls:
        with pytest.raises(problem):
            await call()
    assert await here.receivers.get(VIEWER, made.id) == made
    assert len(await here.messages()) == 1


async def test_read_permission_does_not_allow_changes(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    needed = (
        (here.receivers.create(VIEWER, NEW), Permission.RECEIVER_CREATE),
        (here.receivers.update(VIEWER, made.id, ReceiverChange(name="x")), Permission.RECEIVER_UPDATE),
        (here.receivers.delete(VIEWER, made.id), Permission.RECEIVER_DELETE),
    )
    for call, permission in needed:
        with pytest.raises(Forbidden, match=permission):
            await call
    assert await here.receivers.get(VIEWER, made.id) == made


async def test_existing_returns_ids_of_receivers(here: Here):
    made = await here.receivers.create(MANAGER, NEW)
    async with here.db.read() as connection:
        assert await here.receivers.existing(connection, [made.id, new_id(), "a\0b"]) == {made.id}
