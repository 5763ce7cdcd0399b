"""What a new API key must be, and what looks like one."""

import re
from collections.abc import Iterator
from datetime import datetime

from xzepr.core.errors import InvalidInput, Violation
from xzepr.features.auth.model import NewApiKey

MAX_NAME = 255
MAX_KEYS = 100
"""Keys that one user may have at a time, revoked ones not counted."""

TICKET_SECONDS = 30
"""How long a stream ticket waits to be used."""

_API_KEY = re.compile(r"xzepr_[0-9a-f]{64}")
_STREAM_TICKET = re.compile(r"xzepr_ticket_[0-9a-f]{64}")


def is_api_key(credential: str) -> bool:
    """Whether the text has the form of an API key."""
    return _API_KEY.fullmatch(credential) is not None


def is_stream_ticket(text: str) -> bool:
    """Whether the text has the form of a stream ticket."""
    return _STREAM_TICKET.fullmatch(text) is not None


def check_new_key(new: NewApiKey, now: datetime) -> None:
    """Raises InvalidInput with everything that is wrong."""
    violations = list(_violations(new, now))
    if violations:
        raise InvalidInput(violations)


def _violations(new: NewApiKey, now: datetime) -> Iterator[Violation]:
    if not 1 <= len(new.name) <= MAX_NAME or not new.name.isprintable():
        yield Violation("name", f"a key's name has 1 to {MAX_NAME} printable characters")
    if new.permissions is not None and not new.permissions:
        yield Violation("permissions", "name at least one permission, or none of them for all that you may do")
    if new.expires_at is not None and new.expires_at.tzinfo is None:
        yield Violation("expires_at", "the time needs its offset from UTC")
    elif new.expires_at is not None and new.expires_at <= now:
        yield Violation("expires_at", "the time has passed already")
