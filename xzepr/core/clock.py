"""Times as the hub uses them: with a time zone, in UTC, and as text in RFC 3339."""

import re
from datetime import UTC, datetime

EXAMPLE = "2026-11-20T21:15:27Z"

# RFC 3339, section 5.6. `datetime.fromisoformat` reads more, and other forms in each version of Python.
_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
).fullmatch


def now() -> datetime:
    """Returns the current time in UTC. The order of the stream uses the database's clock, not this one."""
    return datetime.now(UTC)


def read_time(text: str) -> datetime:
    """Returns a time in RFC 3339 in UTC. Digits beyond microseconds are dropped.

    A leap second, 23:59:60 in UTC, becomes the last microsecond before it. Raises ValueError with a message.
    """
    match = _RFC_3339(text)
    try:
        if match is None:
            raise ValueError
        if match[1] == "60":
            return _leap_second(text.upper())
        time = datetime.fromisoformat(text.upper())
    except (ValueError, OverflowError):
        if _RFC_3339(text + "Z"):
            raise ValueError(f"{text!r} has no time zone: end it with Z or an offset such as +01:00") from None
        raise ValueError(f"{text!r} is not a time: write it as {EXAMPLE} (RFC 3339)") from None
    if time.tzinfo is UTC:
        return time
    try:
        return time.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is outside the years 1 to 9999 in UTC") from None


def write_time(time: datetime) -> str:
    """Returns a time in RFC 3339: in UTC, with six decimals and Z, so that texts have the order of their times."""
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return f"{time.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def json_time(time: datetime) -> datetime | str:
    """Returns what orjson, with OPT_UTC_Z, writes as `write_time` does; orjson itself omits decimals that are zero."""
    return time if time.microsecond and (time.tzinfo is UTC or not time.utcoffset()) else write_time(time)


def _leap_second(text: str) -> datetime:
    time = datetime.fromisoformat(f"{text[:17]}59.999999{text[19:].lstrip('.0123456789')}").astimezone(UTC)
    if (time.hour, time.minute) != (23, 59):
        raise ValueError
    return time
