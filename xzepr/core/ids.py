"""Ids: ULIDs for things, a digest for units."""

import hashlib
import re
from collections.abc import Iterable

from ulid import ULID

_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id() -> str:
    """A new ULID, 26 characters of Crockford base 32. Order by position, never by id: clocks disagree."""
    return str(ULID())


def is_id(text: str) -> bool:
    """Whether the text could be an id of ours. What could not is nobody's: it need not, and may not, reach Postgres."""
    return _ID.fullmatch(text) is not None


def unit_id(name: str, version: str, release: str, platform_id: str, package: str) -> bytes:
    """SHA-256 of the five strings in UTF-8, each with its length in bytes (4 bytes, big-endian) before it; 32 bytes."""
    return digest_of_parts([part.encode() for part in (name, version, release, platform_id, package)])


def digest_of_parts(parts: Iterable[bytes]) -> bytes:
    """SHA-256 of the parts, each with its length (4 bytes, big-endian) before it, so that no two lists are alike."""
    return hashlib.sha256(b"".join([len(part).to_bytes(4, "big") + part for part in parts])).digest()
