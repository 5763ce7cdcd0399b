"""Checks of text fields, shared by receivers, groups and events."""

import re
from collections.abc import Iterator, Mapping

from xzepr.core.errors import InvalidInput, Violation

MAX_ID_CHARS = 64  # of a text that should be an id; ids have 26

NUL = "text with the character NUL (\\u0000) cannot be stored"
LONE_SURROGATE = "text with a lone surrogate (\\ud800 to \\udfff) is not Unicode and cannot be stored"

_SURROGATES = re.compile("[\ud800-\udfff]")


def text_error(text: str) -> str | None:
    """Returns why the database cannot store a text; None if it can."""
    if "\0" in text:
        return NUL
    return None if text.isascii() or _SURROGATES.search(text) is None else LONE_SURROGATE


def check_text(field: str, text: str, *, max_chars: int) -> Iterator[Violation]:
    """Yields a violation if the text has a character that cannot be stored, is blank, or is too long.

    White space counts: nothing is trimmed. `max_chars` counts Unicode characters.
    """
    if (error := text_error(text)) is not None:
        yield Violation(field, f"{field}: {error}")
    if not text.strip():
        yield Violation(field, f"{field} must not be blank")
    if len(text) > max_chars:
        yield Violation(field, f"{field} has {len(text):,} characters; at most {max_chars:,} are allowed")


def check_queryable(filters: Mapping[str, str | None]) -> None:
    """Raises InvalidInput for filter texts, by field, that cannot be sent to the database. None means no filter."""
    errors = [(field, text_error(text)) for field, text in filters.items() if text is not None]
    if violations := [Violation(field, f"{field}: {error}") for field, error in errors if error is not None]:
        raise InvalidInput(violations)
