"""Lists of 5,000 users and 20,000 API keys: what PostgreSQL reads for them."""

import pytest

from tests.support.explained import PLANS, explained
from xzepr.features.auth import store as auth_store
from xzepr.features.users import store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("plans", PLANS)
async def test_list_of_users_follows_their_names(long_history: str, plans: str) -> None:
    async with explained(long_history, plans) as connection:
        users = await store.first(connection, 1_000)
    assert len(users) == 1_000
    assert connection.cost.indexes == {"users_username_key"}
    assert connection.cost.rows == 1_000


@pytest.mark.parametrize("plans", PLANS)
async def test_list_of_keys_reads_those_of_the_user(long_history: str, plans: str) -> None:
    async with explained(long_history, plans) as connection:
        keys = await auth_store.keys_of(connection, "U100")
    assert len(keys) == 4
    assert not connection.cost.flaws
    assert connection.cost.rows == 4
