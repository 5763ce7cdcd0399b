"""The service of dead letters: administrators list the messages that Kafka rejected, and retry or drop them."""

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

_MAX_POSITIONS = 1000  # of one request


class DeadLetterState(StrEnum):
    """The state of a message that was rejected."""

    WAITING = "waiting"
    """No administrator has decided yet."""
    RETRYING = "retrying"
    """An administrator requested a retry; the relay sends the message within a second or two."""
    DROPPED = "dropped"
    """An administrator decided that Kafka does not need the message."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message of the stream that the route's brokers rejected."""

    route: str
    position: int
    message_id: str
    reason: str
    """Why the brokers rejected it last, for an operator."""
    attempts: int
    refused_at: datetime
    """When it was last rejected."""
    state: DeadLetterState
    by: str | None
    """Name of the administrator who dropped it or requested the retry."""


async def page(
    db: Database, actor: Actor, route: str, request: PageRequest, *, dropped: bool = False
) -> Page[DeadLetter]:
    """Returns a route's dead letters, newest position first: the dropped ones, or all others.

    Raises NotFound if the route is unknown. Needs stream:admin.
    """
    actor.must(Permission.STREAM_ADMIN)
    async with db.read() as connection:
        await _must_exist(connection, route)
        rows = await dead_letter_store.page(connection, route, dropped, request.after, request.first + 1)
    return Page([_dead_letter(row) for row in rows[: request.first]], len(rows) > request.first)


async def retry(db: Database, actor: Actor, route: str, positions: Sequence[int] | None) -> int:
    """Requests a retry of these positions (dropped ones too), or of all that are not dropped if None.

    Returns their number. Each is sent once, after the messages that are in Kafka by then. Raises NotFound if the route
    or a position is unknown; then nothing is retried. Needs stream:admin.
    """
    actor.must(Permission.STREAM_ADMIN)
    _check_count(positions)
    async with db.write() as connection:
        await _must_exist(connection, route)
        retried = await dead_letter_store.request_retry(connection, route, positions, new_id(), actor.name)
        return _require_all(positions, retried)


async def drop(db: Database, actor: Actor, route: str, positions: Sequence[int] | None) -> int:
    """Drops these positions, or all that wait for a decision if None. Returns their number.

    The stream keeps the messages. Raises NotFound if the route is unknown, or if a position is unknown, already dropped
    or about to be retried; then nothing is dropped. Needs stream:admin.
    """
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
        raise InvalidInput.one("positions", f"give 1 to {_MAX_POSITIONS} positions, or request all")


def _require_all(positions: Sequence[int] | None, changed: Sequence[int]) -> int:
    """Returns the number of changed dead letters. Raises NotFound if one of the positions is missing."""
    absent = sorted(set(positions or ()) - set(changed))
    if absent:
        raise NotFound("dead letter", ", ".join(map(str, absent[:10])), field="positions")
    return len(changed)


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
