"""Ids are ULIDs, and the id of a unit is the documented digest."""

import hashlib
import time

from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from xzepr.core.ids import digest_of_parts, is_id, new_id, texts_with_length, unit_id, with_length

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def test_new_id_is_a_current_ulid() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_id() for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert len(set(ids)) == 1000
    assert all(is_id(id) for id in ids)
    assert [str(ULID.from_str(id)) for id in ids] == ids
    assert all(before <= ULID.from_str(id).milliseconds <= after for id in ids)


@given(st.tuples(TEXTS, TEXTS, TEXTS, TEXTS, TEXTS))
def test_unit_id_is_sha256_of_length_prefixed_texts(texts: tuple[str, str, str, str, str]) -> None:
    encoded = b"".join(len(text.encode()).to_bytes(4, "big") + text.encode() for text in texts)
    assert unit_id(*texts) == hashlib.sha256(encoded).digest()


def test_unit_id_depends_on_text_boundaries() -> None:
    assert unit_id("a", "bc", "", "", "") != unit_id("ab", "c", "", "", "")


@given(st.lists(TEXTS))
def test_parts_with_length_are_what_is_hashed(texts: list[str]) -> None:
    parts = texts_with_length(texts)
    assert parts == tuple(with_length(text.encode()) for text in texts)
    assert all(
        part == len(text.encode()).to_bytes(4, "big") + text.encode() for part, text in zip(parts, texts, strict=True)
    )
    assert digest_of_parts([text.encode() for text in texts]) == hashlib.sha256(b"".join(parts)).digest()
