"""Dead letters as administrators see them: what was left out of Kafka and why; send it again, or give it up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from xzepr.core.actor import Actor, Permission
from xzepr.core.errors import InvalidInput, NotFound
from xzepr.core.ids import new_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.relay import dead_letter_store
from xzepr.features.relay import store as relay_store
from xzepr.features.relay.dead_letter_store import DeadLetterRow
from xzepr.infra.db import Connection, Database

_MAX_POSITIONS = 1000


class DeadLetterState(StrEnum):
    """What becomes of a message that was refused."""

    WAITING = "waiting"
    """For an administrator."""
    RETRYING = "retrying"
    """An administrator has said so, and the relay will send it within a second or two."""
    DROPPED = "dropped"
    """An administrator gave it up."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the stream that its route's brokers refused."""

    route: str
    position: int
    message_id: str
    reason: str
    """The last one, in words for an operator."""
    attempts: int
    refused_at: datetime
    """When it was refused last."""
    state: DeadLetterState
    by: str | None
    """Who dropped it or had it sent again."""


async def page(
    db: Database, actor: Actor, route: str, request: PageRequest, *, dropped: bool = False
) -> Page[DeadLetter]:
    """A route's dead letters, newest position first: those that are open, or those that were dropped. Raises NotFound.
    Needs stream:admin."""
    actor.must(Permission.STREAM_ADMIN)
    async with db.read() as connection:
        await _must_exist(connection, route)
        rows = await dead_letter_store.page(connection, route, dropped, request.after, request.first + 1)
    return Page([_dead_letter(row) for row in rows[: request.first]], len(rows) > request.first)


async def retry(db: Database, actor: Actor, route: str, positions: Sequence[int] | None) -> int:
    """Has the relay send these again, dropped ones too, or with None all that are open; returns how many. Each is sent
    once, behind what has been sent meanwhile. Raises NotFound, and then tells nothing. Needs stream:admin."""
    actor.must(Permission.STREAM_ADMIN)
    _check_count(positions)
    async with db.write() as connection:
        await _must_exist(connection, route)
        retried = await dead_letter_store.request_retry(connection, route, positions, new_id(), actor.name)
        return _require_all(positions, retried)


async def drop(db: Database, actor: Actor, route: str, positions: Sequence[int] | None) -> int:
    """Gives these up, or with None all that are open and not about to be sent; returns how many. The stream keeps them.
    Raises NotFound, and then drops nothing. Needs stream:admin."""
    actor.must(Permission.STREAM_ADMIN)
    _check_count(positions)
    async with db.write() as connection:
        await _must_exist(connection, route)
        dropped = await dead_letter_store.drop(connection, route, positions, actor.name)
        return _require_all(positions, dropped)


async def _must_exist(connection: Connection, route: str) -> None:
    if await relay_store.row(connection, route) is None:
        raise NotFound("route", route, field="route")


def _check_count(positions: Sequence[int] | None) -> None:
    if positions is not None and not 1 <= len(positions) <= _MAX_POSITIONS:
        raise InvalidInput.one("positions", f"name 1 to {_MAX_POSITIONS} positions, or ask for all")


def _require_all(positions: Sequence[int] | None, done: Sequence[int]) -> int:
    absent = sorted(set(positions or ()) - set(done))
    if absent:
        raise NotFound("dead letter", ", ".join(map(str, absent[:10])), field="positions")
    return len(done)


def _dead_letter(row: DeadLetterRow) -> DeadLetter:
    state = DeadLetterState.WAITING
    if row.dropped_at is not None:
        state = DeadLetterState.DROPPED
    elif row.retry_by is not None:
        state = DeadLetterState.RETRYING
    return DeadLetter(
        route=row.route,
        position=row.position,
        message_id=row.message_id,
        reason=row.reason,
        attempts=row.attempts,
        refused_at=row.refused_at,
        state=state,
        by=row.dropped_by or row.retry_by,
    )
