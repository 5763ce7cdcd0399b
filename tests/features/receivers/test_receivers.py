"""Receivers: creation, changes, deletion, permissions and their messages in the stream."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pytest

from tests.support.hub import messages_after
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
from xzepr.settings import DatabaseSettings, EventSettings

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
class Services:
    """One server's receivers, with the stream and the database for a test to inspect."""

    db: Database
    stream: Stream
    receivers: Receivers

    async def messages(self) -> list[Message]:
        return await messages_after(self.stream, 0, 1000)

    async def revisions(self, id: str) -> list[tuple[Any, ...]]:
        """Returns the stored revisions of a receiver."""
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
async def services(database_url: str) -> AsyncIterator[Services]:
    db = Database(database_url, DatabaseSettings(min_connections=1, max_connections=8), name="test")
    await db.open()
    try:
        stream = await Stream.open(db)
        yield Services(db, stream, Receivers(db, stream, EventSettings()))
    finally:
        await db.close()


async def test_created_receiver_is_published_in_full(services: Services):
    receiver = await services.receivers.create(MANAGER, replace(NEW, name="  build ", description="Straße 🚀"))
    assert await services.receivers.get(VIEWER, receiver.id) == receiver
    assert (receiver.name, receiver.description) == ("  build ", "Straße 🚀")
    assert receiver.schema == b'{"type":"object","properties":{"z":{"type":"integer"},"a":true}}'
    assert (receiver.schema_digest, receiver.revision, receiver.resource_version) == (digest(receiver.schema), 1, 1)
    assert receiver.fingerprint == fingerprint(receiver.type, receiver.description, receiver.name, receiver.version)
    assert (receiver.enabled, receiver.owner_id, receiver.position) == (True, "m", 1)
    assert await services.revisions(receiver.id) == [(1, receiver.schema.decode(), receiver.schema_digest)]
    (message,) = await services.messages()
    assert (message.kind, message.receiver_id, message.actor_id) == (Kind.RECEIVER_CREATED, receiver.id, "m")
    assert (message.position, message.time) == (receiver.position, receiver.created_at)
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == receiver
    assert orjson.loads(message.data)["schema"] == NEW.schema


async def test_duplicate_receivers_are_allowed(services: Services):
    first, second = [await services.receivers.create(MANAGER, NEW) for _ in range(2)]
    assert first.id != second.id
    assert first.fingerprint == second.fingerprint


async def test_all_receiver_violations_are_reported(services: Services):
    invalid = NewReceiver(name=" \n", type="a\0b", version="x" * 256, description="\ud800", schema={"type": "strin"})
    with pytest.raises(InvalidInput) as error:
        await services.receivers.create(MANAGER, invalid)
    assert [v.field for v in error.value.violations] == ["name", "type", "version", "description", "schema/type"]
    with pytest.raises(InvalidInput, match="description must not be blank"):
        await services.receivers.create(MANAGER, replace(NEW, description=""))
    with pytest.raises(InvalidInput, match="4,001 characters"):
        await services.receivers.create(MANAGER, replace(NEW, description="d" * 4001))
    assert await services.messages() == []
    assert (await services.receivers.page(VIEWER, ReceiverFilter(), PageRequest())).items == []


async def test_texts_of_maximum_length_are_stored(services: Services):
    longest = NewReceiver("名" * 255, "型" * 255, "版" * 255, "述" * 4000, True)
    receiver = await services.receivers.create(MANAGER, longest)
    page = await services.receivers.page(
        VIEWER, ReceiverFilter(longest.name, longest.type, longest.version), PageRequest()
    )
    assert page.items == [receiver]


async def test_receiver_update_keeps_omitted_fields(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    after = await services.receivers.update(MANAGER, receiver.id, ReceiverChange(version="2.0", enabled=False))
    assert after == replace(
        receiver,
        version="2.0",
        enabled=False,
        fingerprint=fingerprint(receiver.type, receiver.description, receiver.name, "2.0"),
        resource_version=2,
        updated_at=after.updated_at,
    )
    assert after.updated_at > receiver.updated_at
    assert await services.receivers.get(VIEWER, receiver.id) == after
    message = (await services.messages())[-1]
    assert (message.kind, message.receiver_id, message.time) == (Kind.RECEIVER_UPDATED, receiver.id, after.updated_at)
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == after


async def test_only_changed_schema_creates_revision(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    same = await services.receivers.update(MANAGER, receiver.id, ReceiverChange(schema=NEW.schema))
    assert (same.revision, same.resource_version) == (1, 2)
    other = await services.receivers.update(MANAGER, receiver.id, ReceiverChange(schema=False, name="renamed"))
    assert (other.revision, other.schema, other.schema_digest) == (2, b"false", digest(b"false"))
    assert await services.revisions(receiver.id) == [
        (1, receiver.schema.decode(), receiver.schema_digest),
        (2, "false", other.schema_digest),
    ]


async def test_invalid_update_changes_nothing(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    for change, field in ((ReceiverChange(name=" "), "name"), (ReceiverChange(name="ok", schema=None), "schema")):
        with pytest.raises(InvalidInput) as error:
            await services.receivers.update(MANAGER, receiver.id, change)
        assert error.value.field == field
    assert await services.receivers.get(VIEWER, receiver.id) == receiver
    assert len(await services.messages()) == 1


async def test_stale_expected_version_is_conflict(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    after = await services.receivers.update(MANAGER, receiver.id, ReceiverChange(name="two"), expected_version=1)
    with pytest.raises(Conflict, match="at version 2, not 1"):
        await services.receivers.update(MANAGER, receiver.id, ReceiverChange(name="three"), expected_version=1)
    with pytest.raises(Conflict, match="at version 2, not 1"):
        await services.receivers.delete(MANAGER, receiver.id, expected_version=1)
    assert await services.receivers.get(VIEWER, receiver.id) == after
    assert len(await services.messages()) == 2


async def test_one_of_concurrent_updates_wins(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    results = await asyncio.gather(
        *(
            services.receivers.update(MANAGER, receiver.id, ReceiverChange(name=f"n{n}"), expected_version=1)
            for n in range(5)
        ),
        return_exceptions=True,
    )
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True, True, True, True]
    assert (await services.receivers.get(VIEWER, receiver.id)).resource_version == 2
    assert len(await services.messages()) == 2


async def test_deletion_publishes_last_receiver_state(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    assert await services.receivers.delete(MANAGER, receiver.id, expected_version=1) == receiver
    with pytest.raises(NotFound):
        await services.receivers.get(VIEWER, receiver.id)
    assert await services.revisions(receiver.id) == []
    message = (await services.messages())[-1]
    assert message.kind is Kind.RECEIVER_DELETED
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == receiver


async def test_receiver_in_use_is_not_deleted(services: Services):
    with_event, in_group = [await services.receivers.create(MANAGER, NEW) for _ in range(2)]
    await services.execute(
        """
        INSERT INTO events VALUES (9, 'e', 'u', 'n', 'v', 'r', 'p', 'k', 'd', '{}', true, %s, 1, 'm', now(), now())
        """,
        (with_event.id,),
    )
    group_id = new_id()
    await services.execute(
        "INSERT INTO groups VALUES (%s, 8, 'g', 't', 'v', 'd', true, 'm', 1, 8, now(), now())", (group_id,)
    )
    await services.execute("INSERT INTO group_members VALUES (%s, %s, 0)", (group_id, in_group.id))
    with pytest.raises(Conflict, match="has events"):
        await services.receivers.delete(MANAGER, with_event.id)
    with pytest.raises(Conflict, match=f"member of the group {group_id}"):
        await services.receivers.delete(MANAGER, in_group.id)
    assert set(await services.receivers.by_ids(VIEWER, [with_event.id, in_group.id])) == {with_event.id, in_group.id}
    assert len(await services.messages()) == 2


@pytest.mark.parametrize("id", ["", "unknown", "a\0b", "\ud800", "0" * 26])
async def test_unknown_id_raises_not_found(services: Services, id: str):
    with pytest.raises(NotFound):
        await services.receivers.get(VIEWER, id)
    with pytest.raises(NotFound):
        await services.receivers.update(MANAGER, id, ReceiverChange(name="x"))
    with pytest.raises(NotFound):
        await services.receivers.delete(MANAGER, id)
    assert await services.receivers.by_ids(VIEWER, [id]) == {}
    assert await services.messages() == []


async def test_receivers_are_listed_newest_first(services: Services):
    created = [
        await services.receivers.create(MANAGER, replace(NEW, name=f"n{n % 2}", enabled=n < 3)) for n in range(5)
    ]
    newest_first = created[::-1]
    first = await services.receivers.page(VIEWER, ReceiverFilter(), PageRequest(first=2))
    assert (first.items, first.has_next) == (newest_first[:2], True)
    second = await services.receivers.page(
        VIEWER, ReceiverFilter(), PageRequest(first=3, after=newest_first[1].position)
    )
    assert (second.items, second.has_next) == (newest_first[2:], False)
    odd = await services.receivers.page(
        VIEWER, ReceiverFilter(name="n1", type=NEW.type, version=NEW.version), PageRequest()
    )
    assert odd.items == [created[3], created[1]]
    disabled = await services.receivers.page(VIEWER, ReceiverFilter(enabled=False), PageRequest())
    assert disabled.items == [created[4], created[3]]
    assert (await services.receivers.page(VIEWER, ReceiverFilter(name="N1"), PageRequest())).items == []
    with pytest.raises(InvalidInput, match="NUL"):
        await services.receivers.page(VIEWER, ReceiverFilter(name="a\0b"), PageRequest())


@pytest.mark.parametrize(
    ("actor", "problem"),
    [(ANONYMOUS, Unauthenticated), (Actor(ActorKind.USER, "n", "other", frozenset()), Forbidden)],
)
async def test_receiver_access_requires_permission(
    services: Services, actor: Actor, problem: type[Unauthenticated | Forbidden]
):
    receiver = await services.receivers.create(MANAGER, NEW)
    calls = (
        lambda: services.receivers.create(actor, NEW),
        lambda: services.receivers.update(actor, receiver.id, ReceiverChange(name="x")),
        lambda: services.receivers.delete(actor, receiver.id),
        lambda: services.receivers.get(actor, receiver.id),
        lambda: services.receivers.by_ids(actor, [receiver.id]),
        lambda: services.receivers.page(actor, ReceiverFilter(), PageRequest()),
    )
    for call in calls:
        with pytest.raises(problem):
            await call()
    assert await services.receivers.get(VIEWER, receiver.id) == receiver
    assert len(await services.messages()) == 1


async def test_read_permission_does_not_allow_changes(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    calls = (
        (services.receivers.create(VIEWER, NEW), Permission.RECEIVER_CREATE),
        (services.receivers.update(VIEWER, receiver.id, ReceiverChange(name="x")), Permission.RECEIVER_UPDATE),
        (services.receivers.delete(VIEWER, receiver.id), Permission.RECEIVER_DELETE),
    )
    for call, permission in calls:
        with pytest.raises(Forbidden, match=permission):
            await call
    assert await services.receivers.get(VIEWER, receiver.id) == receiver


async def test_existing_returns_ids_of_receivers(services: Services):
    receiver = await services.receivers.create(MANAGER, NEW)
    async with services.db.read() as connection:
        assert await services.receivers.existing(connection, [receiver.id, new_id(), "a\0b"]) == {receiver.id}
