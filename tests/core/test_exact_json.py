"""JSON is read and written without loss, or rejected with pointers to the values that would be altered."""

import json
import math
import time
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.errors import InvalidInput
from xzepr.core.exact_json import MAX_VIOLATIONS, REPEATED_KEY, depth, dumps, loads

LOSSLESS_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
INT64 = st.integers(-(2**63), 2**64 - 1)
LOSSLESS = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | LOSSLESS_TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(LOSSLESS_TEXT, inner, max_size=5),
    max_leaves=20,
)
ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.just("\0")
    | st.just("\udc00"),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters()), inner, max_size=5),
    max_leaves=20,
)


def pointers(data: bytes | str, field: str = "payload") -> list[str]:
    """Returns the pointers to the values for which a text is rejected."""
    with pytest.raises(InvalidInput) as error:
        loads(data, field=field)
    return [violation.field for violation in error.value.violations]


def is_lossy(value: Any) -> bool:
    """Returns whether the hub would alter something in the value, found by plain recursion."""
    if isinstance(value, dict):
        return any(is_lossy(key) or is_lossy(child) for key, child in cast(dict[str, Any], value).items())
    if isinstance(value, list):
        return any(is_lossy(child) for child in cast(list[Any], value))
    if isinstance(value, str):
        return any(c == "\0" or "\ud800" <= c <= "\udfff" for c in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    return isinstance(value, int) and not -(2**63) <= value <= 2**64 - 1


@given(LOSSLESS)
def test_written_value_reads_back_equal(value: object):
    written = dumps(value)
    assert loads(written) == value
    assert loads(written.decode()) == value
    assert dumps(loads(written)) == written


@given(ANY)
def test_text_is_rejected_exactly_when_lossy(value: object):
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        if "NaN" in text or "Infinity" in text:
            text = text.replace("NaN", "1e999").replace("-Infinity", "-1e999").replace("Infinity", "1e999")
        if is_lossy(json.loads(text)):
            assert pointers(text)
        else:
            assert loads(text) == json.loads(text)
            assert loads(text.encode()) == json.loads(text)


@given(ANY)
def test_value_is_written_exactly_when_representable(value: object):
    if is_lossy(value):
        with pytest.raises(InvalidInput):
            dumps(value)
    else:
        assert json.loads(dumps(value)) == value


@given(st.text())
def test_any_text_is_read_or_rejected(text: str):
    try:
        value = loads(text)
    except (ValueError, InvalidInput):
        return
    assert value == json.loads(text)


def test_every_lossy_value_is_named_by_its_pointer():
    text = rb"""{"a": [1, 18446744073709551616, {"b/c~d": -9223372036854775809}],
        "big": 1e400, "nul": "x\u0000y", "half": "\ud800", "k\u0000n": 1, "fine": "\ud83d\ude00"}"""
    assert pointers(text) == [
        "payload/k\\u0000n",
        "payload/a/1",
        "payload/a/2/b~1c~0d",
        "payload/big",
        "payload/nul",
        "payload/half",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("18446744073709551616", "18446744073709551616 is beyond 64 bits"),
        ("-9223372036854775809", "-9223372036854775809 is beyond 64 bits"),
        ("9" * 5000, "is beyond 64 bits"),
        ("-1e400", "-1e400 is beyond the range of a double"),
        (r'"\u0000"', "NUL"),
        (r'"\uDBFF\uDBFF"', "lone surrogate"),
        ('"\udc00"', "lone surrogate"),
    ],
)
def test_error_message_describes_the_lossy_value(text: str, message: str):
    with pytest.raises(InvalidInput, match=message) as error:
        loads(text, field="payload")
    assert error.value.field == "payload"
    assert len(error.value.message) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551615", 2**64 - 1),
        (b"-9223372036854775808", -(2**63)),
        (b"[1700000000000000000]", [1_700_000_000_000_000_000]),
        (b'"18446744073709551616"', "18446744073709551616"),
        (b"18446744073709551616.0", 18446744073709551616.0),
        (b"18446744073709551616e1", 184467440737095516160.0),
        (b"0.12345678901234567890123", 0.12345678901234568),
        (rb'"\\u0000 \\ud800"', r"\u0000 \ud800"),
    ],
)
def test_harmless_lookalike_is_read(text: bytes, value: object):
    assert loads(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "empty"),
        (b'{"a": 1,\n "b": x}', "line 2, column 7"),
        (b'{"a": 1,\n "b": "\xff"}', "not valid UTF-8 at line 2, byte 8"),
        (b'["\\ud800", 1e400, oops]', "line 1, column"),
        (b"NaN", "not valid JSON"),
        (b"[" * 1025 + b"]" * 1025, "nested deeper than 1024"),
        (b"[" * 100_000, "nested deeper than 1024"),
        (b"[" * 1000, "too early"),
        (b'{"a":' * 100_000, "nested deeper than 1024"),
    ],
)
def test_invalid_json_is_rejected_with_its_location(text: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        loads(text)


def test_deep_value_does_not_overflow_the_stack():
    deep = loads(b"[" * 1023 + b'"\\u0001"' + b"]" * 1023)
    assert depth(deep) == 1023
    assert pointers(b"[" * 1023 + b'"\\u0000"' + b"]" * 1023, "p") == ["p" + "/0" * 1023]
    with pytest.raises(InvalidInput, match="nested deeper than 254"):
        dumps(deep, field="payload")
    assert depth(loads(dumps(loads(b"[" * 254 + b"]" * 254)))) == 254


@pytest.mark.parametrize(("value", "levels"), [(1, 0), ([], 1), ({"a": []}, 2), ([1, {"a": [[2]]}, 3], 4)])
def test_depth_counts_nested_containers(value: object, levels: int):
    assert depth(value) == levels


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": [2**64]}, "payload/a/0"),
        ({"a": {"b": float("nan"), "c": None}}, "payload/a/b"),
        ([None, "a\0b"], "payload/1"),
        ({"\ud800": 1}, "payload/\\ud800"),
        ([object()], "payload/0"),
    ],
)
def test_unrepresentable_value_is_not_written(value: object, pointer: str):
    with pytest.raises(InvalidInput) as error:
        dumps(value, field="payload")
    assert [violation.field for violation in error.value.violations] == [pointer]


def test_error_names_at_most_100_values():
    assert len(pointers(b"[" + b"1e999," * 5000 + b"1]")) == 100


@pytest.mark.parametrize(
    "text",
    [
        '"' + '\\"' * 250_000,
        "9" * 500_000 + ".",
        "1e" * 250_000,
        '"\\u0000' + '\\"' * 250_000,
        "-" * 500_000,
        "[" * 500_000,
    ],
)
def test_hostile_text_costs_linear_time(text: str):
    began = time.process_time()
    with pytest.raises(ValueError, match=r"not valid|nested"):
        loads(text)
    assert time.process_time() - began < 10


REPEATED = {
    '{"cmd":"a","cmd":"b"}': ["p/cmd"],
    '{"cmd":1,"\\u0063md":2}': ["p/cmd"],
    '{"a" : 1, "a" : 1}': ["p/a"],
    '{"":1,"":2}': ["p/"],
    '{"\\u003a":1,":":2}': ["p/:"],
    '{"\\u003A":1,":":2,"x":"::"}': ["p/:"],
    '{"a/b":{"~":1,"~":2}}': ["p/a~1b/~0"],
    '[{"a":{"b":1,"b" : {"c":[1,{"d":1,"d":{"e":1,"e":2}}]}}}]': ["p/0/a/b", "p/0/a/b/c/1/d", "p/0/a/b/c/1/d/e"],
    '{"x":{},"y":[[],{}],"x":{}}': ["p/x"],
    '{"k":"a:b","k":"\\":"}': ["p/k"],
    '{"k":1,"k":1,"k":1}': ["p/k", "p/k"],
    "[" * 300 + '{"a":1,"a":2}' + "]" * 300: ["p" + "/0" * 300 + "/a"],
}
NOT_REPEATED = [
    '{"a":"x:\\u003a \\\\u003a","b":[{"c":":"}]}',
    '{"k":{"k":{"k":1}},"l":[{"k":1},{"k":1}]}',
    '"a:b"',
    '":"',
    '{"a":"{\\"k\\":1,\\"k\\":2}"}',
    '{"\\\\u003a":1,"\\\\":2,":":3}',
    '{"ä":1,"a\u0308":2,"\\u00e4x":3}',
    "[" * 300 + '{"a":1,"b":2}' + "]" * 300,
]


@pytest.mark.parametrize("text", REPEATED, ids=range(len(REPEATED)))
def test_repeated_key_is_refused_with_its_place(text: str) -> None:
    for data in (text, text.encode()):
        with pytest.raises(InvalidInput) as caught:
            loads(data, field="p")
        assert [violation.field for violation in caught.value.violations] == REPEATED[text]
        assert {violation.message for violation in caught.value.violations} == {REPEATED_KEY}


@pytest.mark.parametrize("text", NOT_REPEATED, ids=range(len(NOT_REPEATED)))
def test_text_without_repeated_key_is_read(text: str) -> None:
    assert loads(text) == json.loads(text)


@given(
    st.recursive(
        st.sampled_from([1, ":", "a:", '":', "\\u003a"]),
        lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(st.sampled_from([":", "a", '"', "\\"]), inner)),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_repeated_keys_are_found_in_any_text(tree: object, escape: bool) -> None:
    repeats = 0

    def write(node: object) -> str:
        nonlocal repeats
        if not isinstance(node, list):
            text = json.dumps(node)
            return text.replace(":", "\\u003A") if escape and "u003a" not in text else text
        items = cast("list[object]", node)
        if items and isinstance(items[0], tuple):
            pairs = cast("list[tuple[str, object]]", items)
            repeats += len(pairs) - len({key for key, _ in pairs})
            return "{" + ", ".join(f"{write(key)} : {write(value)}" for key, value in pairs) + "}"
        return "[" + ",".join(map(write, items)) + "]"

    text = write(tree)
    if repeats == 0:
        assert loads(text) == json.loads(text)
    else:
        with pytest.raises(InvalidInput) as caught:
            loads(text)
        assert len(caught.value.violations) == min(repeats, MAX_VIOLATIONS)


def test_byte_order_mark_is_skipped_once() -> None:
    assert loads(b'\xef\xbb\xbf{"a":1}') == loads('\ufeff{"a":1}') == {"a": 1}
    for text in ("\ufeff", '\ufeff\ufeff{"a":1}', '{"a":\ufeff1}'):
        for data in (text, text.encode()):
            with pytest.raises(ValueError, match="not valid JSON"):
                loads(data)
