"""Rules for API keys and stream tickets, without I/O: their formats and the limits on new keys."""

import re
from collections.abc import Iterator
from datetime import datetime

from xzepr.core.errors import InvalidInput, Violation
from xzepr.features.auth.model import NewApiKey

MAX_NAME = 255  # characters
MAX_KEYS = 100  # of one user, without revoked ones
TICKET_SECONDS = 30  # from the creation of a stream ticket until it expires

_API_KEY = re.compile(r"xzepr_[0-9a-f]{64}")
_STREAM_TICKET = re.compile(r"xzepr_ticket_[0-9a-f]{64}")


def is_api_key(credential: str) -> bool:
    """Returns whether the text has the format of an API key."""
    return _API_KEY.fullmatch(credential) is not None


def is_stream_ticket(text: str) -> bool:
    """Returns whether the text has the format of a stream ticket."""
    return _STREAM_TICKET.fullmatch(text) is not None


def check_new_key(new: NewApiKey, now: datetime) -> None:
    """Checks a new key. Raises InvalidInput with all violations."""
    violations = list(_violations(new, now))
    if violations:
        raise InvalidInput(violations)


def _violations(new: NewApiKey, now: datetime) -> Iterator[Violation]:
    if not 1 <= len(new.name) <= MAX_NAME or not new.name.isprintable():
        yield Violation("name", f"the name of a key must have 1 to {MAX_NAME} printable characters")
    if new.permissions is not None and not new.permissions:
        yield Violation("permissions", "list at least one permission, or omit the field for all your permissions")
    if new.expires_at is not None and new.expires_at.tzinfo is None:
        yield Violation("expires_at", "expires_at needs an offset from UTC")
    elif new.expires_at is not None and new.expires_at <= now:
        yield Violation("expires_at", "expires_at is in the past")
