"""Stream tickets are single-use, short-lived, valid in every process, and limited to their creator's permissions."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.hub import execute, hub_on
from xzepr.core.actor import ANONYMOUS, SYSTEM, Actor, Permission, Role
from xzepr.core.errors import InvalidToken, TokenExpired, Unauthenticated
from xzepr.features.auth.model import NewApiKey, TicketHolder
from xzepr.features.users.model import NewUser
from xzepr.hub import Hub
from xzepr.settings import Settings

PASSWORD = "correct horse battery"


@pytest.fixture
async def hub(database_url: str) -> AsyncIterator[Hub]:
    settings = Settings.model_validate({"database": {"min_connections": 1, "max_connections": 4}})
    async with hub_on(settings, database_url) as hub:
        await hub.users.create(SYSTEM, NewUser("root", PASSWORD, (Role.ADMIN,)))
        await hub.users.create(SYSTEM, NewUser("ada", PASSWORD, (Role.EVENT_VIEWER,)))
        yield hub


async def ada(hub: Hub) -> Actor:
    return await hub.auth.authenticate((await hub.auth.login("ada", PASSWORD)).token)


async def tickets(database_url: str) -> int:
    return int((await execute(database_url, "SELECT count(*) FROM stream_tickets"))[0][0])


async def clock(database_url: str) -> datetime:
    """Returns the time of the database, which decides when tickets expire."""
    return (await execute(database_url, "SELECT clock_timestamp()"))[0][0]


async def test_ticket_is_redeemed_once_in_any_process(hub: Hub, database_url: str) -> None:
    actor = await ada(hub)
    before = await clock(database_url)
    ticket = await hub.auth.create_stream_ticket(actor)
    assert before <= ticket.expires_at - timedelta(seconds=30) <= await clock(database_url)
    async with hub_on(hub.settings, database_url) as other_hub:
        holder = await other_hub.auth.redeem_stream_ticket(ticket.text)
        ticket_actor = await other_hub.auth.actor_by_ticket(holder)
        assert (ticket_actor, ticket_actor.ends_at) == (actor, actor.ends_at)
        for each in (other_hub, hub):
            with pytest.raises(InvalidToken, match="was used"):
                await each.auth.redeem_stream_ticket(ticket.text)
    assert await tickets(database_url) == 0


async def test_one_of_concurrent_redemptions_succeeds(hub: Hub) -> None:
    ticket = await hub.auth.create_stream_ticket(await ada(hub))
    results = await asyncio.gather(
        *(hub.auth.redeem_stream_ticket(ticket.text) for _ in range(20)), return_exceptions=True
    )
    assert sum(isinstance(result, TicketHolder) for result in results) == 1
    assert sum(isinstance(result, InvalidToken) for result in results) == 19


async def test_ticket_secret_is_never_stored(hub: Hub, database_url: str) -> None:
    ticket = await hub.auth.create_stream_ticket(await ada(hub))
    stored = await execute(database_url, "SELECT t::text FROM stream_tickets AS t")
    assert len(stored) == 1
    assert ticket.text[-64:] not in f"{stored} {ticket!r}"


async def test_expired_ticket_is_rejected(hub: Hub, database_url: str) -> None:
    actor = await ada(hub)
    ticket = await hub.auth.create_stream_ticket(actor)
    await hub.auth.create_stream_ticket(actor)
    await execute(database_url, "UPDATE stream_tickets SET expires_at = clock_timestamp() - interval '1 ms'")
    with pytest.raises(InvalidToken):
        await hub.auth.redeem_stream_ticket(ticket.text)
    await hub.auth.create_stream_ticket(actor)
    assert await tickets(database_url) == 1


async def test_clock_set_back_does_not_extend_ticket(hub: Hub, database_url: str) -> None:
    ticket = await hub.auth.create_stream_ticket(await ada(hub))
    await execute(database_url, "UPDATE stream_tickets SET expires_at = clock_timestamp() + interval '1 hour'")
    with pytest.raises(InvalidToken):
        await hub.auth.redeem_stream_ticket(ticket.text)
    assert await tickets(database_url) == 0


@pytest.mark.parametrize("text", ["", "x", "xzepr_" + "0" * 64, "xzepr_ticket_" + "0" * 64, "xzepr_ticket_" + "Ä" * 64])
async def test_malformed_ticket_is_rejected(hub: Hub, text: str) -> None:
    with pytest.raises(InvalidToken):
        await hub.auth.redeem_stream_ticket(text)


async def test_ticket_cannot_be_used_as_credential(hub: Hub) -> None:
    ticket = await hub.auth.create_stream_ticket(await ada(hub))
    with pytest.raises(InvalidToken):
        await hub.auth.authenticate(ticket.text)
    assert await hub.auth.redeem_stream_ticket(ticket.text)


async def test_unknown_actor_gets_no_ticket(hub: Hub, database_url: str) -> None:
    with pytest.raises(Unauthenticated):
        await hub.auth.create_stream_ticket(ANONYMOUS)
    for actor in (SYSTEM, replace(await ada(hub), key_id="01JUNKNOWNKEY")):
        with pytest.raises(InvalidToken):
            await hub.auth.create_stream_ticket(actor)
    assert await tickets(database_url) == 0


async def test_ticket_has_permissions_of_its_narrowed_key(hub: Hub) -> None:
    owner = await ada(hub)
    key = await hub.auth.create_api_key(owner, NewApiKey("narrow", (Permission.GROUP_READ,)))
    ticket = await hub.auth.create_stream_ticket(await hub.auth.authenticate(key.secret))
    holder = await hub.auth.redeem_stream_ticket(ticket.text)
    assert (await hub.auth.actor_by_ticket(holder)).permissions == {Permission.GROUP_READ}
    await hub.auth.revoke_api_key(owner, key.key.id)
    with pytest.raises(InvalidToken):
        await hub.auth.actor_by_ticket(holder)


async def test_ticket_ends_with_its_token_or_user(hub: Hub) -> None:
    actor = await ada(hub)
    holder = await hub.auth.redeem_stream_ticket((await hub.auth.create_stream_ticket(actor)).text)
    with pytest.raises(TokenExpired):
        await hub.auth.actor_by_ticket(replace(holder, ends_at=1.0))
    await hub.users.set_enabled(SYSTEM, actor.id, False)
    with pytest.raises(InvalidToken):
        await hub.auth.actor_by_ticket(holder)
