"""Lists of 5,000 groups beside a million events, and the gates of a unit: what PostgreSQL reads for them."""

from hashlib import sha256

import pytest

from tests.support.explained import PLANS, Cost, explained
from xzepr.features.groups import store
from xzepr.features.groups.model import GroupFilter

pytestmark = pytest.mark.slow

LIMIT = 51
GROUPS = 5_000
FAR = 6_000  # a position far from the head: those of groups are 5,001 to 10,000

FREQUENT = {
    "everything": GroupFilter(),
    "common name": GroupFilter(name="app"),
    "common type": GroupFilter(type="build"),
    "common version": GroupFilter(version="1"),
    "enabled": GroupFilter(enabled=True),
    "common values": GroupFilter(name="app", type="build", version="1", enabled=True),
}
SELDOM = {
    "one name": GroupFilter(name="r104"),
    "rare type": GroupFilter(type="rare"),
    "rare version": GroupFilter(version="rare"),
    "unknown name": GroupFilter(name="unknown"),
    "unknown type": GroupFilter(type="unknown"),
    "unknown version": GroupFilter(version="unknown"),
    "rare name and member": GroupFilter(name="rare", receiver_id="R100"),
}


async def _cost(url: str, filter: GroupFilter, before: int | None, plans: str) -> tuple[int, Cost]:
    async with explained(url, plans) as connection:
        groups, reached = await store.page(connection, filter, before, LIMIT)
    positions = [group.position for group in groups]
    assert (reached, positions) == (None, sorted(positions, reverse=True))
    assert not connection.cost.flaws
    return len(positions), connection.cost


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", FREQUENT)
async def test_frequent_group_costs_as_much_anywhere(long_history: str, title: str, plans: str) -> None:
    count, head = await _cost(long_history, FREQUENT[title], None, plans)
    far_count, far = await _cost(long_history, FREQUENT[title], FAR, plans)
    assert (count, far_count) == (LIMIT, LIMIT)
    assert head.rows <= 1_500
    assert far.rows <= 1.5 * head.rows + 2
    assert far.buffers <= 1.5 * head.buffers + 8


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", SELDOM)
async def test_seldom_group_is_found_by_its_index(long_history: str, title: str, plans: str) -> None:
    for before in (None, FAR):
        _, cost = await _cost(long_history, SELDOM[title], before, plans)
        assert cost.rows <= 1_000
        assert cost.buffers <= 1_500


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("receiver_id", ["R100", "unknown"])
async def test_groups_of_a_member_read_at_most_all(long_history: str, receiver_id: str, plans: str) -> None:
    count, cost = await _cost(long_history, GroupFilter(receiver_id=receiver_id), None, plans)
    assert count == (4 if receiver_id == "R100" else 0)
    assert cost.rows <= 2 * GROUPS
    assert cost.buffers <= 5 * GROUPS


@pytest.mark.parametrize("plans", PLANS)
async def test_gates_of_a_unit_read_its_statuses_only(long_history: str, plans: str) -> None:
    async with explained(long_history, plans) as connection:
        statuses = await (await store.statuses(connection, [sha256(b"100").digest()])).fetchall()
        groups = await (await store.enabled_groups_with_members(connection, ["R100", "unknown"])).fetchall()
    assert len(statuses) <= 8
    assert len(groups) <= 4
    assert not connection.cost.flaws
    assert connection.cost.rows <= 60
