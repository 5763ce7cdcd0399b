"""SQL of a batch: what the recorder reads and writes under the writer lock."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from xzepr.core.actor import Actor
from xzepr.core.ids import texts_with_length, with_length
from xzepr.features.events.model import Accepted
from xzepr.features.groups.model import UnitStatus
from xzepr.features.stream.model import Message
from xzepr.infra.binary import FALSE, NULL, TRUE, Type, array, bigint, integer, timestamp
from xzepr.infra.pipeline import Pipeline, Reply, Statement

Row = tuple[bytes, ...]
"""The columns of an event and its message that do not depend on its position, as elements of binary arrays."""


@dataclass(frozen=True, slots=True)
class Start:
    """The state of the stream and of the catalog when a batch begins."""

    position: int
    """The position of the newest message."""
    id: str | None
    """Its id; None while the stream is empty."""
    time: datetime
    """The time of the batch, which is never before the time of the newest message."""
    token: str
    """The catalog's token."""


@dataclass(frozen=True, slots=True)
class UsedKey:
    """An idempotency key, and the digest and position of its event."""

    owner_id: str
    key: str
    digest: bytes
    position: int


_START = Statement(
    b"start",
    """
    SELECT coalesce(max(newest.position), 0), max(newest.id), greatest(clock_timestamp(), max(newest.time)),
           (SELECT token::text FROM catalog WHERE one)
    FROM (SELECT position, id, time FROM messages ORDER BY position DESC LIMIT 1) AS newest
    """,
    Start,
)
_STATUSES = Statement(
    b"statuses",
    """
    SELECT unit_id, receiver_id, position, success, run_position, run_began_at
    FROM unit_status WHERE unit_id = ANY($1::bytea[])
    """,
    UnitStatus,
)
_USED_KEYS = Statement(
    b"used keys",
    """
    SELECT i.owner_id, i.key, i.digest, i.position
    FROM unnest($1::text[], $2::text[]) AS requested (owner_id, key)
    JOIN idempotency AS i USING (owner_id, key)
    """,
    UsedKey,
)
# Events, their messages and the statuses of their units. COMMIT notifies the other processes' feeds.
_INSERT_EVENTS = Statement(
    b"insert events",
    """
    WITH e AS MATERIALIZED (
        SELECT * FROM unnest(
            $1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::json[], $10::boolean[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::text[],
            $16::bigint[], $17::integer[]
        ) AS e (id, unit_id, name, version, release, platform_id, package, description, payload, success, receiver_id,
                created_at, actor_kind, actor_id, actor_name, position, receiver_revision)
    ), new_events AS (
        INSERT INTO events (position, id, unit_id, name, version, release, platform_id, package, description, payload,
                            success, receiver_id, receiver_revision, owner_id, created_at, recorded_at)
        SELECT position, id, unit_id, name, version, release, platform_id, package, description, payload, success,
               receiver_id, receiver_revision, actor_id, coalesce(created_at, $18::timestamptz), $18
        FROM e
    ), new_messages AS (
        INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name, receiver_id, event_position)
        SELECT position, id, 'event.recorded', $18, actor_kind, actor_id, actor_name, receiver_id, position
        FROM e
    ), new_statuses AS (
        INSERT INTO unit_status (unit_id, receiver_id, position, success, run_position, run_began_at)
        SELECT * FROM unnest($19::bytea[], $20::text[], $21::bigint[], $22::boolean[], $23::bigint[],
                             $24::timestamptz[])
        ON CONFLICT (unit_id, receiver_id) DO UPDATE SET
            position = EXCLUDED.position, success = EXCLUDED.success,
            run_position = EXCLUDED.run_position, run_began_at = EXCLUDED.run_began_at
    )
    SELECT pg_notify('xzepr_stream', $25::text)
    """,
    tuple,
)
_INSERT_GATE_MESSAGES = Statement(
    b"insert gate messages",
    """
    INSERT INTO messages (position, id, kind, time, actor_kind, actor_id, actor_name,
                          receiver_id, group_id, event_position, data)
    SELECT m.position, m.id, m.kind, $11::timestamptz, m.actor_kind, m.actor_id, m.actor_name,
           m.receiver_id, m.group_id, m.event_position, m.data
    FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::bigint[], $10::json[])
         AS m (position, id, kind, actor_kind, actor_id, actor_name, receiver_id, group_id, event_position, data)
    """,
    tuple,
)
_INSERT_KEYS = Statement(
    b"insert keys",
    """
    INSERT INTO idempotency (owner_id, key, digest, position, recorded_at)
    SELECT k.owner_id, k.key, k.digest, k.position, clock_timestamp()
    FROM unnest($1::text[], $2::text[], $3::bytea[], $4::bigint[]) AS k (owner_id, key, digest, position)
    """,
    tuple,
)
STATEMENTS: tuple[Statement[Any], ...] = (
    _START,
    _STATUSES,
    _USED_KEYS,
    _INSERT_EVENTS,
    _INSERT_GATE_MESSAGES,
    _INSERT_KEYS,
)

_ROW_TYPES = (
    *(Type.TEXT, Type.BYTEA, Type.TEXT, Type.TEXT, Type.TEXT, Type.TEXT, Type.TEXT, Type.TEXT, Type.JSON),
    *(Type.BOOLEAN, Type.TEXT, Type.TIMESTAMPTZ, Type.TEXT, Type.TEXT, Type.TEXT),
)


def actor_columns(actor: Actor) -> Row:
    """Encodes an actor as the last columns of `row_of`."""
    return texts_with_length((actor.kind, actor.id, actor.name))


def row_of(accepted: Accepted, actor_columns: Row) -> Row:
    """Encodes an event that has no position yet."""
    new = accepted.new
    id, description, receiver_id = texts_with_length((accepted.id, new.description, new.receiver_id))
    return (
        id,
        with_length(accepted.unit_id),
        *accepted.unit_parts,
        description,
        with_length(accepted.payload),
        TRUE if new.success else FALSE,
        receiver_id,
        NULL if new.created_at is None else timestamp(new.created_at),
        *actor_columns,
    )


def send_start(pipeline: Pipeline) -> Reply[Start]:
    """Reads the start of a batch. The transaction holds the writer lock."""
    return pipeline.send(_START)


def send_statuses(pipeline: Pipeline, unit_ids: Sequence[bytes]) -> Reply[UnitStatus]:
    """Reads every status of the units. The cost does not depend on the number of past events."""
    return pipeline.send(_STATUSES, [array(Type.BYTEA, [with_length(id) for id in unit_ids])])


def send_used_keys(pipeline: Pipeline, keys: Sequence[tuple[str, str]]) -> Reply[UsedKey]:
    """Reads which of the keys, each with its owner's id before it, were used before."""
    return pipeline.send(_USED_KEYS, [_texts([owner_id for owner_id, _ in keys]), _texts([key for _, key in keys])])


def send_events(
    pipeline: Pipeline,
    rows: Sequence[Row],
    positions: Sequence[int],
    revisions: Sequence[int],
    *,
    time: datetime,
    statuses: Sequence[UnitStatus],
    process_id: str,
) -> None:
    """Writes events with their messages, and the final statuses of their units."""
    columns = [array(type, column) for type, column in zip(_ROW_TYPES, zip(*rows, strict=True), strict=True)]
    pipeline.send(
        _INSERT_EVENTS,
        [
            *columns,
            array(Type.BIGINT, [bigint(position) for position in positions]),
            array(Type.INTEGER, [integer(revision) for revision in revisions]),
            timestamp(time)[4:],
            *_status_columns(statuses),
            process_id.encode(),
        ],
    )


def _status_columns(statuses: Sequence[UnitStatus]) -> tuple[bytes, ...]:
    return (
        array(Type.BYTEA, [with_length(status.unit_id) for status in statuses]),
        _texts([status.receiver_id for status in statuses]),
        array(Type.BIGINT, [bigint(status.position) for status in statuses]),
        array(Type.BOOLEAN, [TRUE if status.success else FALSE for status in statuses]),
        array(Type.BIGINT, [_optional_bigint(status.run_position) for status in statuses]),
        array(
            Type.TIMESTAMPTZ,
            [NULL if status.run_began_at is None else timestamp(status.run_began_at) for status in statuses],
        ),
    )


def send_gate_messages(pipeline: Pipeline, messages: Sequence[Message]) -> None:
    """Writes messages about gates, which all have an event and the same time."""
    pipeline.send(
        _INSERT_GATE_MESSAGES,
        [
            array(Type.BIGINT, [bigint(m.position) for m in messages]),
            _texts([m.id for m in messages]),
            _texts([m.kind for m in messages]),
            _texts([m.actor_kind for m in messages]),
            _texts([m.actor_id for m in messages]),
            _texts([m.actor_name for m in messages]),
            _texts([m.receiver_id or "" for m in messages]),
            _texts([m.group_id or "" for m in messages]),
            array(Type.BIGINT, [_optional_bigint(m.event and m.event.position) for m in messages]),
            array(Type.JSON, [with_length(m.data or b"null") for m in messages]),
            timestamp(messages[0].time)[4:],
        ],
    )


def send_keys(pipeline: Pipeline, keys: Sequence[UsedKey]) -> None:
    """Stores used idempotency keys."""
    pipeline.send(
        _INSERT_KEYS,
        [
            _texts([key.owner_id for key in keys]),
            _texts([key.key for key in keys]),
            array(Type.BYTEA, [with_length(key.digest) for key in keys]),
            array(Type.BIGINT, [bigint(key.position) for key in keys]),
        ],
    )


def _texts(values: Sequence[str]) -> bytes:
    return array(Type.TEXT, texts_with_length(values))


def _optional_bigint(value: int | None) -> bytes:
    return NULL if value is None else bigint(value)
