"""Pages of a stream of a million events: what PostgreSQL reads for a page at the old end and far from it."""

from dataclasses import replace
from hashlib import sha256

import pytest

from tests.support.explained import PLANS, Cost, explained
from xzepr.features.stream import page_store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import StreamFilter

pytestmark = pytest.mark.slow

LIMIT = 51
EXAMINED = 20_000
FAR = 510_000  # a position half way through the stream, more than 10,000 pages of 50 messages from its old end
NO_EVENTS = frozenset({Kind.RECEIVER_CREATED, Kind.GROUP_CREATED})

FREQUENT = {
    "everything": StreamFilter(),
    "kind": StreamFilter(kinds=frozenset({Kind.EVENT_RECORDED})),
    "common receiver": StreamFilter(receiver_ids=frozenset({"A", "unknown"})),
    "common unit": StreamFilter(unit_id=sha256(b"common").digest()),
    "common name": StreamFilter(name="app"),
    "common version": StreamFilter(version="1"),
    "common release": StreamFilter(release="1"),
    "common platform": StreamFilter(platform_id="linux"),
    "common package": StreamFilter(package="oci"),
    "success": StreamFilter(success=True),
    "gates": StreamFilter(kinds=frozenset({Kind.GATE_COMPLETED, Kind.GATE_REGRESSED})),
    "many conditions": StreamFilter(kinds=frozenset({Kind.EVENT_RECORDED}), receiver_ids=frozenset("A"), name="app"),
}
SELDOM = {
    "unknown receiver": StreamFilter(receiver_ids=frozenset({"unknown"})),
    "no receiver": StreamFilter(receiver_ids=frozenset()),
    "gates of a name": StreamFilter(kinds=frozenset({Kind.GATE_COMPLETED}), name="lib7"),
    "rare group": StreamFilter(group_ids=frozenset({"G5000"})),
    "unknown group": StreamFilter(group_ids=frozenset({"unknown"})),
    "unknown unit": StreamFilter(unit_id=sha256(b"unknown").digest()),
    "rare name": StreamFilter(name="rare"),
    "unknown name": StreamFilter(name="unknown"),
    "unknown version": StreamFilter(version="unknown"),
    "unknown release": StreamFilter(release="unknown"),
    "unknown platform": StreamFilter(platform_id="unknown"),
    "unknown package": StreamFilter(package="unknown"),
    "kind of no event": StreamFilter(kinds=NO_EVENTS, success=True),
    "old kind": StreamFilter(kinds=NO_EVENTS),
    "no kind": StreamFilter(kinds=frozenset()),
    "common values of no event": StreamFilter(receiver_ids=frozenset("B"), name="app"),
}


async def _cost(url: str, filter: StreamFilter, after: int, plans: str) -> Cost:
    async with explained(url, plans) as connection:
        messages, stopped = await page_store.page(connection, after, filter, LIMIT)
    positions = [message.position for message in messages]
    assert positions == sorted(positions)
    assert len(messages) == LIMIT or (stopped is not None and stopped.position == after + EXAMINED)
    assert not connection.cost.flaws
    return connection.cost


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", FREQUENT)
async def test_frequent_message_costs_as_much_anywhere(long_history: str, title: str, plans: str) -> None:
    near, far = [await _cost(long_history, FREQUENT[title], after, plans) for after in (20_000, FAR)]
    assert near.rows <= 2_500
    assert far.rows <= 1.5 * near.rows + 2
    assert far.buffers <= 1.5 * near.buffers + 8


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize("title", SELDOM)
async def test_seldom_message_reads_a_bounded_number(long_history: str, title: str, plans: str) -> None:
    for after in (20_000, FAR):
        cost = await _cost(long_history, SELDOM[title], after, plans)
        assert cost.rows <= 2 * EXAMINED + 1_000  # messages and their events
        assert cost.buffers <= 6 * EXAMINED


async def test_pages_of_a_rare_message_are_complete(analyzed_history: str) -> None:
    filter = replace(StreamFilter(), name="rare", kinds=frozenset({Kind.GATE_COMPLETED}))
    found: list[int] = []
    after: int | None = None
    async with explained(analyzed_history, "auto") as connection:
        while True:
            messages, stopped = await page_store.page(connection, after, filter, 3)
            found += [message.position for message in messages]
            if len(messages) < 3 and stopped is None:
                break
            after = found[-1] if stopped is None else stopped.position
    assert found == [10_000 + n + n // 10 + 1 for n in range(9, 60, 10)]
