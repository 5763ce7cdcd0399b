"""What a text field must be: checked in one place for receivers, groups and events."""

import re
from collections.abc import Iterator, Mapping

from xzepr.core.errors import InvalidInput, Violation

MAX_ID_CHARS = 64  # of a text that names a thing by its id; ids have 26

NUL = "text with the character NUL (\\u0000) cannot be kept"
LONE_SURROGATE = "text with a lone surrogate (\\ud800 to \\udfff) is not Unicode and cannot be kept"

_SURROGATES = re.compile("[\ud800-\udfff]")


def text_error(text: str) -> str | None:
    """What keeps a text out of the database, or None."""
    if "\0" in text:
        return NUL
    return None if text.isascii() or _SURROGATES.search(text) is None else LONE_SURROGATE


def check_text(field: str, text: str, *, max_chars: int) -> Iterator[Violation]:
    """Yields the violations of one field: a character that cannot be stored, nothing but white space, too long.

    Nothing is trimmed, and the limit counts Unicode characters.
    """
    if (fault := text_error(text)) is not None:
        yield Violation(field, f"{field}: {fault}")
    if not text.strip():
        yield Violation(field, f"{field} must not be blank")
    if len(text) > max_chars:
        yield Violation(field, f"{field} has {len(text):,} characters; at most {max_chars:,} are allowed")


def check_queryable(filters: Mapping[str, str | None]) -> None:
    """Raises InvalidInput for a text to look for, by its field, that the database cannot even be asked for."""
    faults = [(field, text_error(text)) for field, text in filters.items() if text is not None]
    if violations := [Violation(field, f"{field}: {fault}") for field, fault in faults if fault is not None]:
        raise InvalidInput(violations)
