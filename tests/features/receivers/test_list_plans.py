"""Lists of 5,000 receivers beside a million events: what PostgreSQL reads for a page, near the head and far from it."""

import pytest

from tests.support.explained import PLANS, Cost, explained
from xzepr.features.receivers import store
from xzepr.features.receivers.model import ReceiverFilter

pytestmark = pytest.mark.slow

LIMIT = 51
RECEIVERS = 5_000
FAR = 1_000  # a position far from the head: those of receivers are 1 to 5,000

FREQUENT = {
    "everything": ReceiverFilter(),
    "common name": ReceiverFilter(name="app"),
    "common type": ReceiverFilter(type="build"),
    "common version": ReceiverFilter(version="1"),
    "common name and type": ReceiverFilter(name="app", type="build"),
    "common values": ReceiverFilter(name="app", type="build", version="1", enabled=True),
}
SELDOM = {
    "one name": ReceiverFilter(name="r104"),
    "rare name": ReceiverFilter(name="rare"),
    "rare type": ReceiverFilter(type="rare"),
    "rare version": ReceiverFilter(version="rare"),
    "unknown name": ReceiverFilter(name="unknown"),
    "unknown type": ReceiverFilter(type="unknown"),
    "unknown version": ReceiverFilter(version="unknown"),
    "rare type and common name": ReceiverFilter(name="app", type="rare"),
}


async def _cost(url: str, filter: ReceiverFilter, before: int | None, plans: str) -> tuple[int, Cost]:
    async with explained(url, plans) as connection:
        receivers, reached = await store.page(connection, filter, before, LIMIT)
    positions = [receiver.position for receiver in receivers]
    assert (reached, positions) == (None, sorted(positions, reverse=True))
    assert not connection.cost.flaws
    return len(positions), connection.cost


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", FREQUENT)
async def test_frequent_receiver_costs_as_much_anywhere(long_history: str, title: str, plans: str) -> None:
    count, head = await _cost(long_history, FREQUENT[title], None, plans)
    far_count, far = await _cost(long_history, FREQUENT[title], FAR, plans)
    assert (count, far_count) == (LIMIT, LIMIT)
    assert head.rows <= 1_200
    assert far.rows <= 1.5 * head.rows + 2
    assert far.buffers <= 1.5 * head.buffers + 8


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", SELDOM)
async def test_seldom_receiver_is_found_by_its_index(long_history: str, title: str, plans: str) -> None:
    for before in (None, FAR):
        _, cost = await _cost(long_history, SELDOM[title], before, plans)
        assert cost.rows <= 500
        assert cost.buffers <= 500


@pytest.mark.parametrize("plans", PLANS)
async def test_disabled_receivers_read_at_most_all(long_history: str, plans: str) -> None:
    count, cost = await _cost(long_history, ReceiverFilter(enabled=False), None, plans)
    assert count == LIMIT
    assert cost.rows <= RECEIVERS
