"""The recorder keeps the catalog between its transactions, and reads it again after a change."""

from collections.abc import Collection
from typing import Any

import pytest

from tests.support.hub import MANAGER, execute, new_event, new_group, new_receiver, running_hub
from xzepr.core.errors import Conflict, NotFound, Problem
from xzepr.features.events.catalog import KnownCatalog, Standing
from xzepr.features.events.model import Recorded
from xzepr.features.receivers.model import ReceiverChange
from xzepr.hub import Hub
from xzepr.infra.pipeline import Pipeline


async def stored(database_url: str) -> list[tuple[Any, ...]]:
    """Returns the names of all events in order."""
    return await execute(database_url, "SELECT name FROM events ORDER BY position")


async def test_catalog_is_read_once_while_it_is_unchanged(hub: Hub, monkeypatch: pytest.MonkeyPatch):
    reads = list[Collection[str]]()
    read = KnownCatalog._read  # pyright: ignore[reportPrivateUsage]

    async def counted(self: KnownCatalog, pipeline: Pipeline, ids: Collection[str]) -> dict[str, Standing]:
        reads.append(ids)
        return await read(self, pipeline, ids)

    monkeypatch.setattr(KnownCatalog, "_read", counted)
    build, scan = await new_receiver(hub, "build"), await new_receiver(hub, "scan")
    for receiver in (build, build, scan, build, scan):
        await hub.recorder.record(MANAGER, new_event(receiver))
    assert reads == [[build.id], [scan.id]]
    await new_group(hub, build)
    for receiver in (build, scan):
        await hub.recorder.record(MANAGER, new_event(receiver))
    assert reads[2:] == [[build.id], [scan.id]]


async def test_changes_of_another_process_are_seen(database_url: str):
    async with running_hub(database_url) as hub, running_hub(database_url) as other:
        build = await new_receiver(hub)
        assert (await hub.recorder.record(MANAGER, new_event(build))).gates == ()
        group = await new_group(other, build)
        [gate] = (await hub.recorder.record(MANAGER, new_event(build))).gates
        assert (gate.group, gate.complete) == (group, True)
        await other.groups.set_enabled(MANAGER, group.id, False)
        assert (await hub.recorder.record(MANAGER, new_event(build))).gates == ()
        await other.receivers.update(MANAGER, build.id, ReceiverChange(enabled=False))
        with pytest.raises(Conflict):
            await hub.recorder.record(MANAGER, new_event(build))
    assert len(await stored(database_url)) == 3


@pytest.mark.parametrize(("change", "error"), [("UPDATE", Conflict), ("DELETE", NotFound)])
async def test_changes_by_administrators_are_seen(hub: Hub, database_url: str, change: str, error: type[Problem]):
    build = await new_receiver(hub)
    await hub.recorder.record(MANAGER, new_event(build))
    statement = "UPDATE receivers SET enabled = false" if change == "UPDATE" else "DELETE FROM receivers"
    await execute(database_url, statement)
    with pytest.raises(error) as raised:
        await hub.recorder.record(MANAGER, new_event(build))
    assert raised.value.field == "receiver_id"
    assert len(await stored(database_url)) == 1


async def test_stale_payloads_are_validated_under_the_lock(database_url: str):
    async with running_hub(database_url) as hub:
        build = await new_receiver(hub, schema={"type": "object"})
        await hub.recorder.record(MANAGER, new_event(build))
        await execute(
            database_url,
            """UPDATE receivers SET revision = 2, schema = '{"required": ["size"]}', schema_digest = 'other'""",
        )
        sizes: list[object] = [{"size": 1}, {}, {"size": 2}]
        results = await hub.recorder.record_all(MANAGER, [new_event(build, payload=payload) for payload in sizes])
        assert [getattr(result, "code", None) for result in results] == [None, "INVALID_INPUT", None]
        assert all(result.event.receiver_revision == 2 for result in results if isinstance(result, Recorded))
