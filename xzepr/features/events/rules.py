"""Rules for new events, without I/O: limits on fields, the digest of the content, and the position in the stream."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import cast

import orjson

from xzepr.core import exact_json
from xzepr.core.clock import write_time
from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.ids import digest_of_parts, new_id, texts_with_length
from xzepr.core.text import MAX_ID_CHARS, check_queryable, check_text
from xzepr.features.events.model import Accepted, EventFilter, NewEvent
from xzepr.features.stream.model import Event
from xzepr.settings import EventSettings

_NAMES = ("name", "version", "release", "platform_id", "package", "receiver_id")
_MAX_KEY_CHARS = 255
# What the compact JSON of a double without a fraction, within 64 bits, has. Strings may have it, too.
_WHOLE_DOUBLES = (b".0,", b".0]", b".0}", b"e+1")


def accept(new: NewEvent, limits: EventSettings) -> Accepted:
    """Returns the event with its id, its payload as compact text and its digests.

    Raises InvalidInput with all violations. Does not validate the payload with the receiver's schema.
    """
    violations = [] if _has_good_texts(new, limits) else _text_violations(new, limits)
    payload = _payload(new.payload, limits, violations)
    if new.created_at is not None:
        new = replace(new, created_at=_to_utc(new.created_at, violations))
    if violations:
        raise InvalidInput(violations)
    unit_parts = texts_with_length((new.name, new.version, new.release, new.platform_id, new.package))
    unit_id = sha256(b"".join(unit_parts)).digest()
    digest = None if new.idempotency_key is None else _digest(new, unit_id, _canonical(new.payload, payload))
    return Accepted(new_id(), new, unit_parts, unit_id, payload, digest)


def _has_good_texts(new: NewEvent, limits: EventSettings) -> bool:
    """Returns whether no text violates a rule. It may return False wrongly, for text that is not ASCII."""
    names = (new.name, new.version, new.release, new.platform_id, new.package)
    key = "-" if new.idempotency_key is None else new.idempotency_key
    texts = (*names, new.receiver_id, new.description, key)
    joined = "".join(texts)
    return (
        joined.isascii()
        and "\0" not in joined
        and max(map(len, names)) <= limits.max_name_chars
        and len(new.receiver_id) <= MAX_ID_CHARS
        and len(new.description) <= limits.max_description_chars
        and len(key) <= _MAX_KEY_CHARS
        and all(map(str.strip, texts))
    )


def _text_violations(new: NewEvent, limits: EventSettings) -> list[Violation]:
    violations: list[Violation] = []
    for field in _NAMES:
        max_chars = MAX_ID_CHARS if field == "receiver_id" else limits.max_name_chars
        violations += check_text(field, getattr(new, field), max_chars=max_chars)
    violations += check_text("description", new.description, max_chars=limits.max_description_chars)
    if new.idempotency_key is not None:
        violations += check_text("idempotency_key", new.idempotency_key, max_chars=_MAX_KEY_CHARS)
    return violations


def _to_utc(time: datetime, violations: list[Violation]) -> datetime | None:
    """Converts a time to UTC, so that a repeat may give it in another time zone. Returns None for an invalid time.

    PostgreSQL would store a time before the year 1, but psycopg could not read it.
    """
    if time.tzinfo is None:
        violations.append(Violation("created_at", "the time has no time zone"))
        return None
    try:
        return time.astimezone(UTC)
    except OverflowError:
        violations.append(Violation("created_at", "the time is outside the years 1 to 9999 in UTC"))
        return None


def check_filter(filter: EventFilter) -> None:
    """Raises InvalidInput if the filter has a text that no event can have."""
    check_queryable({field: getattr(filter, field) for field in _NAMES})


def _payload(value: object, limits: EventSettings, violations: list[Violation]) -> bytes:
    try:
        text = exact_json.dumps(value, field="payload")
        payload_violations: Sequence[Violation] = ()
    except InvalidInput as error:
        text, payload_violations = b"", error.violations
    # A value has at most as many levels as its text has brackets, and counting those is a hundred times faster.
    if payload_violations or text.count(b"[") + text.count(b"{") > limits.max_payload_depth:
        if exact_json.depth(value) > limits.max_payload_depth:
            payload_violations = [
                Violation("payload", f"payload is nested deeper than {limits.max_payload_depth} levels")
            ]
        if payload_violations:
            violations += payload_violations
            return b""
    if len(text) > limits.max_payload_bytes:
        message = f"payload has {len(text):,} bytes; at most {limits.max_payload_bytes:,} are allowed"
        violations.append(Violation("payload", message))
    return text


def has_content(accepted: Accepted, digest: bytes) -> bool:
    """Returns whether a digest that an idempotency key was stored with is that of the event's content.

    Older versions stored the digest of the payload as it was written, with the keys in their order.
    """
    return digest in (accepted.digest, _digest(accepted.new, accepted.unit_id, accepted.payload))


def _canonical(value: object, text: bytes) -> bytes:
    """Returns a text that is the same for equal JSON values: the order of keys does not matter, and 1.0 is 1.

    `text` is the value as compact JSON, in which whole doubles are searched first, because a walk takes longer.
    Unlike RFC 8785, it keeps integers beyond 2^53 apart, because the hub stores them exactly.
    """
    if text.endswith(b".0") or any(part in text for part in _WHOLE_DOUBLES):
        value = _with_integers(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _with_integers(value: object) -> object:
    if isinstance(value, float):
        return int(value) if value.is_integer() and -(2**63) <= value < 2**64 else value
    if isinstance(value, dict):
        return {key: _with_integers(child) for key, child in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_with_integers(child) for child in cast("list[object]", value)]
    return value


def _digest(new: NewEvent, unit_id: bytes, payload: bytes) -> bytes:
    parts = (
        unit_id,
        new.description.encode(),
        payload,
        b"passed" if new.success else b"failed",
        new.receiver_id.encode(),
        b"" if new.created_at is None else new.created_at.isoformat().encode(),
    )
    return digest_of_parts(parts)


def latest_time(recorded_at: datetime, now: datetime, limits: EventSettings) -> datetime:
    """Returns the latest time that an event may report.

    `recorded_at` is from the database's clock and `now` from this process's. The later one counts, so that no event is
    rejected because one clock was set back.
    """
    return max(recorded_at, now) + timedelta(seconds=limits.max_clock_skew_seconds)


def position_event(
    accepted: Accepted, revision: int, position: int, recorded_at: datetime, owner_id: str, latest: datetime
) -> Event:
    """Returns the event with its position in the stream. Raises InvalidInput if it reports a time after `latest`."""
    new = accepted.new
    created_at = new.created_at
    if created_at is None:
        created_at = recorded_at
    elif created_at > latest:
        raise InvalidInput.one(
            "created_at", f"the time must not be later than {write_time(latest)}: it is ahead of the hub's clock"
        )
    return Event(
        position,
        accepted.id,
        accepted.unit_id,
        new.name,
        new.version,
        new.release,
        new.platform_id,
        new.package,
        new.description,
        accepted.payload,
        new.success,
        new.receiver_id,
        revision,
        owner_id,
        created_at,
        recorded_at,
    )
