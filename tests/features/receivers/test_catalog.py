"""Receivers and groups that a process keeps: never older than what was committed before the read, in any process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest

from tests.api.graphql.statement_counter import CountedDatabase
from tests.support.hub import MANAGER, VIEWER, actor, execute, hub_on, new_group, new_receiver
from xzepr.core.actor import Permission
from xzepr.core.errors import Forbidden, NotFound, Unavailable
from xzepr.core.ids import new_id
from xzepr.features.groups.model import Group, GroupChange, Unit
from xzepr.features.groups.service import Groups
from xzepr.features.receivers.catalog import Catalog, CatalogPart
from xzepr.features.receivers.model import Receiver, ReceiverChange
from xzepr.features.receivers.service import Receivers
from xzepr.hub import Hub
from xzepr.infra.db import Connection
from xzepr.settings import Settings

AT = datetime(2026, 1, 1, tzinfo=UTC)
RECEIVER = Receiver("r", 1, "n", "t", "1", "", b"{}", "", 1, "", True, "o", 1, AT, AT)
GROUP = Group("g", 2, "n", "t", "1", "", True, "o", 1, 2, AT, AT, ())
READS_NOTHING = actor("x", Permission.EVENT_READ)


@dataclass(frozen=True, slots=True)
class Process:
    """A process that reads: its services, and the statements that they have sent."""

    db: CountedDatabase
    receivers: Receivers
    groups: Groups

    def statements(self) -> int:
        """Returns the number of statements since the last call."""
        count = len(self.db.statements)
        self.db.statements.clear()
        return count


@pytest.fixture
async def writer(database_url: str) -> AsyncIterator[Hub]:
    """Another process, which writes."""
    async with hub_on(Settings(), database_url) as hub:
        yield hub


@pytest.fixture
async def reader(database_url: str, writer: Hub) -> AsyncIterator[Process]:
    db = CountedDatabase(database_url)
    await db.open()
    try:
        settings, stream = writer.settings, replace(writer.stream, db=db)
        receivers = Receivers(db, stream, settings.events)
        limits = settings.groups
        yield Process(
            db, receivers, Groups(db=db, stream=stream, receivers=receivers, limits=limits, text_limits=settings.events)
        )
    finally:
        await db.close()


async def test_read_sees_each_write_of_another_process(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    group = await new_group(writer, receiver)
    for n in range(100):
        changed = await writer.receivers.update(MANAGER, receiver.id, ReceiverChange(description=str(n)))
        assert await reader.receivers.get(VIEWER, receiver.id) == changed
        changed_group = await writer.groups.update(MANAGER, group.id, GroupChange(description=str(n)))
        assert await reader.groups.get(VIEWER, group.id) == changed_group
        assert await reader.groups.of_receivers(VIEWER, [receiver.id]) == {receiver.id: [changed_group]}


async def test_concurrent_reads_see_all_earlier_writes(writer: Hub, reader: Process):
    receivers = [await new_receiver(writer, f"r{n}") for n in range(4)]
    ids = [receiver.id for receiver in receivers]
    descriptions = dict.fromkeys(ids, -1)

    async def write(id: str) -> None:
        for n in range(25):
            await writer.receivers.update(MANAGER, id, ReceiverChange(description=str(n)))
            descriptions[id] = n
            await asyncio.sleep(0)

    async def read() -> None:
        while not all(task.done() for task in writers):
            written = dict(descriptions)
            for id, receiver in (await reader.receivers.by_ids(VIEWER, ids)).items():
                assert written[id] == -1 or int(receiver.description) >= written[id]

    writers = [asyncio.create_task(write(id)) for id in ids]
    await asyncio.gather(*writers, *(read() for _ in range(8)))


async def test_kept_receivers_are_the_same_objects(writer: Hub, reader: Process):
    receivers = [await new_receiver(writer, f"r{n}") for n in range(3)]
    ids = [receiver.id for receiver in receivers]
    first = await reader.receivers.by_ids(VIEWER, ids[:2])
    assert reader.statements() == 1
    assert (await reader.receivers.by_ids(VIEWER, ids[:2]))[ids[0]] is first[ids[0]]
    assert reader.statements() == 1, "the token"
    all_three = await reader.receivers.by_ids(VIEWER, ids)
    assert reader.statements() == 1, "the receiver that is missing"
    assert [all_three[id] for id in ids] == receivers
    assert all_three[ids[1]] is first[ids[1]]


async def test_partly_kept_receivers_are_read_again_after_change(writer: Hub, reader: Process):
    receivers = [await new_receiver(writer, f"r{n}") for n in range(2)]
    ids = [receiver.id for receiver in receivers]
    await reader.receivers.get(VIEWER, ids[0])
    changed = await writer.receivers.update(MANAGER, ids[0], ReceiverChange(enabled=False))
    assert await reader.receivers.by_ids(VIEWER, ids) == {ids[0]: changed, ids[1]: receivers[1]}


async def test_groups_of_receivers_share_objects(writer: Hub, reader: Process):
    one, two, lonely = [await new_receiver(writer, f"r{n}") for n in range(3)]
    both, single = await new_group(writer, one, two, name="both"), await new_group(writer, two, name="single")
    group = await reader.groups.get(VIEWER, both.id)
    of_receivers = await reader.groups.of_receivers(VIEWER, [one.id, two.id, lonely.id])
    assert of_receivers == {one.id: [both], two.id: [both, single], lonely.id: []}
    assert of_receivers[one.id][0] is of_receivers[two.id][0] is group
    reader.statements()
    again = await reader.groups.of_receivers(VIEWER, [one.id, two.id, lonely.id])
    assert again[two.id] is of_receivers[two.id]
    assert reader.statements() == 1, "the token"


async def test_membership_change_is_seen_without_group_change(writer: Hub, reader: Process, database_url: str):
    receiver = await new_receiver(writer)
    group = await new_group(writer, receiver, await new_receiver(writer))
    assert await reader.groups.of_receivers(VIEWER, [receiver.id]) == {receiver.id: [group]}
    await execute(database_url, "DELETE FROM group_members WHERE receiver_id = %s", (receiver.id,))
    assert await reader.groups.of_receivers(VIEWER, [receiver.id]) == {receiver.id: []}
    assert (await reader.groups.get(VIEWER, group.id)).receiver_ids == group.receiver_ids[1:]


async def test_deleted_receiver_is_not_found_in_any_process(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    await reader.receivers.get(VIEWER, receiver.id)
    await writer.receivers.delete(MANAGER, receiver.id)
    with pytest.raises(NotFound):
        await reader.receivers.get(VIEWER, receiver.id)


async def test_unknown_ids_are_not_kept(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    unknown = new_id()
    for _ in range(2):
        assert await reader.receivers.by_ids(VIEWER, [receiver.id, unknown, "no id"]) == {receiver.id: receiver}
    assert reader.statements() == 2
    assert await reader.receivers.by_ids(VIEWER, ["no id"]) == {}
    assert reader.statements() == 0


async def test_permission_is_checked_before_kept_values(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    group = await new_group(writer, receiver)
    await reader.receivers.get(VIEWER, receiver.id)
    await reader.groups.get(VIEWER, group.id)
    await reader.groups.of_receivers(VIEWER, [receiver.id])
    reader.statements()
    for read in (
        reader.receivers.get(READS_NOTHING, receiver.id),
        reader.groups.get(READS_NOTHING, group.id),
        reader.groups.of_receivers(READS_NOTHING, [receiver.id]),
        reader.groups.gates_of_units(READS_NOTHING, [Unit("a", "b", "c", "d", "e")]),
    ):
        with pytest.raises(Forbidden):
            await read
    assert reader.statements() == 0


async def test_simultaneous_reads_share_a_statement(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    reads = [reader.receivers.get(VIEWER, receiver.id) for _ in range(20)]
    assert set(await asyncio.gather(*reads)) == {receiver}
    assert reader.statements() == 1, "the receiver"
    await asyncio.gather(*[reader.receivers.get(VIEWER, receiver.id) for _ in range(20)])
    assert reader.statements() == 1, "the token"


async def test_kept_receivers_are_not_served_without_database(writer: Hub, reader: Process):
    receiver = await new_receiver(writer)
    await reader.receivers.get(VIEWER, receiver.id)
    await reader.db.close()
    with pytest.raises(Unavailable):
        await reader.receivers.get(VIEWER, receiver.id)


async def test_late_result_of_an_older_read_is_not_kept(writer: Hub):
    receiver = await new_receiver(writer)
    begun, released = asyncio.Event(), asyncio.Event()

    async def read(connection: Connection, ids: Sequence[str]) -> tuple[str, dict[str, str]]:
        cursor = await connection.execute("SELECT token::text, description FROM catalog, receivers")
        token, description = (await cursor.fetchall())[0]
        if not begun.is_set():
            begun.set()
            await released.wait()
        return token, dict.fromkeys(ids, str(description))

    part = CatalogPart[str](Catalog(writer.db), read, max_bytes=1000, size_of=len)
    early = asyncio.create_task(part.by_ids(["a"]))
    await begun.wait()
    await writer.receivers.update(MANAGER, receiver.id, ReceiverChange(description="new"))
    assert await part.by_ids(["a", "b"]) == {"a": "new", "b": "new"}
    released.set()
    assert await early == {"a": receiver.description}
    assert await part.by_ids(["a", "b"]) == {"a": "new", "b": "new"}


async def test_kept_values_are_bounded_by_size(writer: Hub):
    catalog = Catalog(writer.db)
    read_ids: list[str] = []

    async def read(_: Connection, ids: Sequence[str]) -> tuple[str, dict[str, bytes]]:
        read_ids.extend(ids)
        return await catalog.token(), {id: bytes(400) for id in ids}

    part = CatalogPart[bytes](catalog, read, max_bytes=1000, size_of=len)
    for ids in (["a", "b"], ["a"], ["b"], ["c"], ["b"], ["a"]):
        assert set(await part.by_ids(ids)) == set(ids)
    assert sorted(read_ids[:2]) == ["a", "b"]
    assert read_ids[2:] == ["c", "a"], "the value that was used longest ago made room for c"


def test_size_counts_schema_members_and_texts():
    ordinary = replace(RECEIVER, schema=b"{}", description="")
    assert replace(ordinary, schema=bytes(5002)).size - ordinary.size == 5000
    assert replace(ordinary, description="🚀" * 1000).size - ordinary.size >= 4000
    assert replace(GROUP, receiver_ids=("a", "b")).size > GROUP.size
    assert replace(GROUP, description="x" * 1000).size - GROUP.size >= 1000
