"""Ids: ULIDs for objects and messages, SHA-256 digests for units."""

import hashlib
import os
import re
import struct
import time
from collections.abc import Iterable
from functools import lru_cache

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Eight bytes stand for each letter, so that a random byte is a random letter.
_LETTERS = (_ALPHABET * 8).encode()
_LAST_LETTERS = [high + low for high in _ALPHABET for low in _ALPHABET]  # for 10 bits
_RANDOM_LETTERS = 16  # of an id
_KEPT_IDS = 256
_random_letters: list[str] = []  # for the next ids
os.register_at_fork(after_in_child=_random_letters.clear)
_LENGTH = struct.Struct(">I").pack
_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def new_id() -> str:
    """Returns a new ULID: 26 characters of Crockford base 32, for 48 bits of time and 80 random ones.

    Never sort by ids, because the clocks of servers differ: sort by position.
    """
    milliseconds = time.time_ns() // 1_000_000
    try:
        random_letters = _random_letters.pop()
    except IndexError:
        random_letters = _more_random_letters()
    return _early_letters(milliseconds >> 10) + _LAST_LETTERS[milliseconds & 1023] + random_letters


@lru_cache(maxsize=1)  # ids of the same 1,024 ms share them
def _early_letters(time: int) -> str:
    return "".join([_ALPHABET[time >> shift & 31] for shift in range(35, -1, -5)])


def _more_random_letters() -> str:
    """Returns the random letters of one id, and keeps those of more ids. A system call for each would take longer."""
    letters = os.urandom(_RANDOM_LETTERS * _KEPT_IDS).translate(_LETTERS).decode()
    first, *others = [letters[start : start + _RANDOM_LETTERS] for start in range(0, len(letters), _RANDOM_LETTERS)]
    _random_letters.extend(others)
    return first


def is_id(text: str) -> bool:
    """Returns whether the text has the form of an id. Look up no other text: PostgreSQL rejects some of it."""
    return _ID.fullmatch(text) is not None


def unit_id(name: str, version: str, release: str, platform_id: str, package: str) -> bytes:
    """Returns the id of a unit: `digest_of_parts` of the five strings in UTF-8."""
    return digest_of_parts([part.encode() for part in (name, version, release, platform_id, package)])


def digest_of_parts(parts: Iterable[bytes]) -> bytes:
    """Returns 32 bytes: the SHA-256 of all parts, each `with_length`.

    The lengths make different lists of parts differ in what is hashed.
    """
    return hashlib.sha256(b"".join([_LENGTH(len(part)) + part for part in parts])).digest()


def with_length(part: bytes) -> bytes:
    """Returns the part after its length in bytes (4 bytes, big-endian)."""
    return _LENGTH(len(part)) + part


def texts_with_length(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Returns each text in UTF-8, `with_length`."""
    return tuple([_LENGTH(len(part := text.encode())) + part for text in texts])
