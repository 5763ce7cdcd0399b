"""Ids: ULIDs for objects and messages, SHA-256 digests for units."""

import hashlib
import re
from collections.abc import Iterable

from ulid import ULID

_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id() -> str:
    """Returns a new ULID: 26 characters of Crockford base 32.

    Never sort by ids, because the clocks of servers differ: sort by position.
    """
    return str(ULID())


def is_id(text: str) -> bool:
    """Returns whether the text has the form of an id. Look up no other text: PostgreSQL rejects some of it."""
    return _ID.fullmatch(text) is not None


def unit_id(name: str, version: str, release: str, platform_id: str, package: str) -> bytes:
    """Returns the id of a unit: `digest_of_parts` of the five strings in UTF-8."""
    return digest_of_parts([part.encode() for part in (name, version, release, platform_id, package)])


def digest_of_parts(parts: Iterable[bytes]) -> bytes:
    """Returns 32 bytes: the SHA-256 of all parts, each preceded by its length in bytes (4 bytes, big-endian).

    The lengths make different lists of parts differ in what is hashed.
    """
    return hashlib.sha256(b"".join([len(part).to_bytes(4, "big") + part for part in parts])).digest()
