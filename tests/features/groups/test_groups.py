"""Groups: validation, changes, permissions and their messages in the stream."""

from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.support.hub import (
    MANAGER,
    VIEWER,
    actor,
    execute,
    kinds,
    messages,
    new_event,
    new_group,
    new_receiver,
    running_hub,
)
from xzepr.core.actor import ANONYMOUS, Permission
from xzepr.core.errors import Conflict, Forbidden, InvalidInput, NotFound, Problem, Unauthenticated
from xzepr.core.ids import new_id
from xzepr.core.paging import PageRequest
from xzepr.features.groups import rules
from xzepr.features.groups.model import GroupChange, GroupFilter, NewGroup
from xzepr.features.stream.kinds import Kind
from xzepr.hub import Hub


async def test_created_group_is_published_in_full(hub: Hub):
    members = [await new_receiver(hub, name) for name in "cab"]
    ids = tuple(member.id for member in (members[1], members[2], members[0]))
    group = await hub.groups.create(MANAGER, NewGroup(" Straße ", "t", "1", "🚀", ids, enabled=False))
    assert await hub.groups.get(VIEWER, group.id) == group
    assert (group.name, group.description, group.enabled, group.owner_id) == (" Straße ", "🚀", False, "manager")
    assert group.receiver_ids == ids, "in the order of the request"
    assert (group.resource_version, group.position, group.changed_position) == (1, 4, 4)
    assert group.created_at == group.updated_at
    [message] = await messages(hub, 3)
    assert (message.kind, message.group_id, message.position) == (Kind.GROUP_CREATED, group.id, group.position)
    assert message.data is not None
    assert rules.from_snapshot(orjson.loads(message.data)) == group


async def test_group_update_keeps_omitted_fields(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    group = await new_group(hub, build, scan, enabled=False)
    await hub.recorder.record(MANAGER, new_event(build))
    await hub.recorder.record(MANAGER, new_event(scan, success=False))
    position = (await messages(hub))[-1].position
    steps: list[GroupChange] = [
        GroupChange(enabled=True),
        GroupChange(receiver_ids=(build.id,)),
        GroupChange(name="renamed"),
        GroupChange(receiver_ids=(scan.id, build.id)),
        GroupChange(enabled=False),
        GroupChange(),
    ]
    for number, change in enumerate(steps, 2):
        changed_fields = {
            field: value for field in ("enabled", "receiver_ids", "name") if (value := getattr(change, field))
        }
        expected = replace(group, **changed_fields) if change.enabled is not False else replace(group, enabled=False)
        group = await hub.groups.update(MANAGER, group.id, change)
        assert group == replace(
            expected, resource_version=number, changed_position=position + number - 1, updated_at=group.updated_at
        )
        assert await hub.groups.get(VIEWER, group.id) == group
    published = await messages(hub, position)
    assert [message.kind for message in published] == [Kind.GROUP_UPDATED] * len(steps)
    assert published[-1].data is not None
    assert rules.from_snapshot(orjson.loads(published[-1].data)) == group
    assert published[-1].event is None


async def test_enabling_or_deleting_publishes_one_message(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build, enabled=False)
    await hub.recorder.record(MANAGER, new_event(build))
    position = (await messages(hub))[-1].position
    await hub.groups.set_enabled(MANAGER, group.id, True)
    before = await hub.groups.set_enabled(MANAGER, group.id, False)
    deleted = await hub.groups.delete(MANAGER, group.id)
    assert deleted == before
    published = await messages(hub, position)
    assert [message.kind for message in published] == [Kind.GROUP_UPDATED, Kind.GROUP_UPDATED, Kind.GROUP_DELETED]
    assert published[-1].data is not None
    assert rules.from_snapshot(orjson.loads(published[-1].data)) == before, "the message holds the last state"
    with pytest.raises(NotFound):
        await hub.groups.get(VIEWER, group.id)
    await hub.receivers.delete(MANAGER, (await new_receiver(hub)).id)
    with pytest.raises(Conflict, match="has events"):
        await hub.receivers.delete(MANAGER, build.id)


async def test_all_unknown_receivers_are_reported(hub: Hub, database_url: str):
    build = await new_receiver(hub)
    missing = new_id()
    new = NewGroup("n", "t", "1", "d", ("absent-id", build.id, missing))
    with pytest.raises(InvalidInput) as error:
        await hub.groups.create(MANAGER, new)
    assert [violation.field for violation in error.value.violations] == ["receiver_ids/0", "receiver_ids/2"]
    assert "absent-id" in error.value.violations[0].message
    assert missing in error.value.violations[1].message
    group = await new_group(hub, build)
    with pytest.raises(InvalidInput):
        await hub.groups.update(MANAGER, group.id, GroupChange(name="other", receiver_ids=(missing,)))
    assert await hub.groups.get(VIEWER, group.id) == group
    assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.GROUP_CREATED]
    assert await execute(database_url, "SELECT count(*) FROM groups") == [(1,)]


INVALID: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no members": ({"receiver_ids": ()}, ["receiver_ids"]),
    "too many members": ({"receiver_ids": ("a",) * 4}, ["receiver_ids"]),
    "a blank member": ({"receiver_ids": (" ",)}, ["receiver_ids/0"]),
    "a duplicate member": ({"receiver_ids": ("a", "b", "a")}, ["receiver_ids/2"]),
    "a member with invalid characters": ({"receiver_ids": ("\0", "\ud800")}, ["receiver_ids/0", "receiver_ids/1"]),
    "invalid texts": (
        {"name": "", "type": "\0", "version": "x" * 256, "description": "\ud800"},
        ["name", "type", "version", "description"],
    ),
}


@pytest.mark.parametrize("case", INVALID)
async def test_all_group_violations_are_reported(database_url: str, case: str):
    fields, locations = INVALID[case]
    async with running_hub(database_url, groups={"max_members": 3}) as hub:
        build = await new_receiver(hub)
        group = await new_group(hub, build)
        for call in (
            hub.groups.create(MANAGER, replace(NewGroup("n", "t", "1", "d", (build.id,)), **fields)),
            hub.groups.update(MANAGER, group.id, GroupChange(**fields)),
        ):
            with pytest.raises(InvalidInput) as error:
                await call
            assert [violation.field for violation in error.value.violations] == locations
        assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.GROUP_CREATED]


async def test_group_has_at_most_hundred_members(hub: Hub):
    members = [await new_receiver(hub) for _ in range(101)]
    assert len((await new_group(hub, *members[1:])).receiver_ids) == 100
    with pytest.raises(InvalidInput, match="at most 100"):
        await new_group(hub, *members)


async def test_enabled_groups_per_receiver_are_limited(database_url: str):
    async with running_hub(database_url, groups={"max_groups_per_receiver": 2}) as hub:
        build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
        first = await new_group(hub, build)
        await new_group(hub, build)
        disabled = await new_group(hub, build, enabled=False)
        scan_group = await new_group(hub, scan)
        position = (await messages(hub))[-1].position
        for call in (
            hub.groups.create(MANAGER, NewGroup("n", "t", "1", "d", (scan.id, build.id))),
            hub.groups.set_enabled(MANAGER, disabled.id, True),
            hub.groups.update(MANAGER, scan_group.id, GroupChange(receiver_ids=(build.id,))),
        ):
            with pytest.raises(Conflict, match="2 enabled groups already"):
                await call
        assert await kinds(hub, position) == []
        assert (await hub.groups.get(VIEWER, scan_group.id)) == scan_group
        await hub.groups.update(MANAGER, first.id, GroupChange(name="renamed while enabled"))
        await hub.groups.set_enabled(MANAGER, first.id, False)
        await hub.groups.set_enabled(MANAGER, disabled.id, True)


async def test_stale_expected_version_is_conflict(hub: Hub):
    group = await new_group(hub, await new_receiver(hub))
    changed = await hub.groups.update(MANAGER, group.id, GroupChange(name="b"), expected_version=1)
    position = changed.changed_position
    for call in (
        hub.groups.update(MANAGER, group.id, GroupChange(name="c"), expected_version=1),
        hub.groups.set_enabled(MANAGER, group.id, False, expected_version=3),
        hub.groups.delete(MANAGER, group.id, expected_version=1),
    ):
        with pytest.raises(Conflict) as error:
            await call
        assert error.value.field == "expected_version"
    assert await hub.groups.get(VIEWER, group.id) == changed
    assert await kinds(hub, position) == []
    await hub.groups.delete(MANAGER, group.id, expected_version=2)


@pytest.mark.parametrize("id", ["unknown", "", "\0", "\ud800", "01M7XD0WJCG1Y78QPF4180KVTM"])
async def test_unknown_id_raises_not_found(hub: Hub, id: str):
    for call in (
        hub.groups.get(VIEWER, id),
        hub.groups.update(MANAGER, id, GroupChange(name="x")),
        hub.groups.delete(MANAGER, id),
        hub.events.get(VIEWER, id),
    ):
        with pytest.raises(NotFound):
            await call
    assert await messages(hub) == []


async def test_groups_are_listed_newest_first(hub: Hub):
    build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
    a = await new_group(hub, build)
    b = await new_group(hub, build, scan, enabled=False)
    c = await new_group(hub, scan, name="other")
    page = await hub.groups.page(VIEWER, GroupFilter(), PageRequest(first=2))
    assert (list(page.items), page.has_next) == ([c, b], True)
    page = await hub.groups.page(VIEWER, GroupFilter(), PageRequest(first=2, after=b.position))
    assert (list(page.items), page.has_next) == ([a], False)
    for group_filter, expected in (
        (GroupFilter(name="gate"), [b, a]),
        (GroupFilter(enabled=True), [c, a]),
        (GroupFilter(receiver_id=scan.id), [c, b]),
        (GroupFilter(name="gate", enabled=False, type="com.example.gate", version="1.0"), [b]),
        (GroupFilter(name="GATE"), []),
    ):
        assert list((await hub.groups.page(VIEWER, group_filter, PageRequest())).items) == expected
    assert await hub.groups.of_receivers(VIEWER, [build.id, scan.id]) == {build.id: [a, b], scan.id: [b, c]}


async def test_group_access_requires_permission(hub: Hub):
    build = await new_receiver(hub)
    group = await new_group(hub, build)
    new = NewGroup("n", "t", "1", "d", (build.id,))
    no_group_access = actor("other", *(set(Permission) - {p for p in Permission if p.value.startswith("group:")}))
    calls: list[tuple[type[Problem], Any]] = [
        (Forbidden, hub.groups.create(VIEWER, new)),
        (Forbidden, hub.groups.update(VIEWER, group.id, GroupChange(name="x"))),
        (Forbidden, hub.groups.set_enabled(VIEWER, group.id, False)),
        (Forbidden, hub.groups.delete(VIEWER, group.id)),
        (Forbidden, hub.groups.get(no_group_access, group.id)),
        (Forbidden, hub.groups.page(no_group_access, GroupFilter(), PageRequest())),
        (Unauthenticated, hub.groups.create(ANONYMOUS, new)),
    ]
    for problem, call in calls:
        with pytest.raises(problem):
            await call
    assert await hub.groups.get(VIEWER, group.id) == group
    assert await kinds(hub) == [Kind.RECEIVER_CREATED, Kind.GROUP_CREATED]
