"""Lists of 30,000 dead letters: what PostgreSQL reads for a page, near the head and far from it."""

import pytest

from tests.support.explained import PLANS, explained
from xzepr.features.relay import dead_letter_store

pytestmark = pytest.mark.slow

LIMIT = 51
# Of each 10,000 dead letters, route r1 has dropped every second, r2 the oldest 60, and r3 all but these.
NUMBERS = {
    ("r1", False): LIMIT,
    ("r1", True): LIMIT,
    ("r2", False): LIMIT,
    ("r2", True): LIMIT,
    ("r3", False): LIMIT,
    ("r3", True): LIMIT,
    ("unknown", False): 0,
    ("unknown", True): 0,
}


@pytest.mark.parametrize("plans", PLANS)
@pytest.mark.parametrize(("route", "dropped"), NUMBERS)
async def test_page_of_dead_letters_reads_itself_only(long_history: str, route: str, dropped: bool, plans: str) -> None:
    for before in (None, 1_000):
        async with explained(long_history, plans) as connection:
            rows = await dead_letter_store.page(connection, route, dropped, before, LIMIT)
        assert len(rows) == NUMBERS[route, dropped]
        assert not connection.cost.flaws
        assert connection.cost.rows <= LIMIT
        assert connection.cost.buffers <= 2 * LIMIT
