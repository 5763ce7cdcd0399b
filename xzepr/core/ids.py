"""Ids: ULIDs for things, a digest for units."""

import hashlib

from ulid import ULID


def new_id() -> str:
    """A new ULID, 26 characters of Crockford base 32. Order by position, never by id: clocks disagree."""
    return str(ULID())


def unit_id(name: str, version: str, release: str, platform_id: str, package: str) -> bytes:
    """SHA-256 of the five strings in UTF-8, each with its length in bytes (4 bytes, big-endian) before it; 32 bytes."""
    digest = hashlib.sha256()
    for part in (name, version, release, platform_id, package):
        text = part.encode()
        digest.update(len(text).to_bytes(4, "big"))
        digest.update(text)
    return digest.digest()
