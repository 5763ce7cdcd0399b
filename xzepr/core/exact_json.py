"""Reads and writes JSON without altering values: a value that would change is rejected, with a JSON pointer to it.

Integers from -2^63 to 2^64-1 stay integers, and `-0` is the integer 0. A number with a fraction or an exponent is a
double: `1.10` may come back as `1.1`, `1e5` as `100000.0`, and `1e-400` as `0.0`.
"""

import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite
from typing import NoReturn, TypeAlias, cast

import orjson

from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.repeated_keys import Location, may_have_repeated_keys, repeated_keys
from xzepr.core.text import LONE_SURROGATE, NUL, text_error

MAX_READ_DEPTH = 1024  # nested arrays and objects that `loads` reads
MAX_WRITE_DEPTH = 254  # nested arrays and objects that `dumps` writes
REPEATED_KEY = "this key is given more than once in its object"
MAX_VIOLATIONS = 100  # of one value; further ones are not reported

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_ALL_DIGITS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_LONG_DIGITS = re.compile(rb"[0-9]{19,}")
# Neither pattern backtracks, so both take linear time for any text, even if it is not JSON.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|-?[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+', re.DOTALL)
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2}|0000)|\\.|[\ud800-\udfff]",
    re.DOTALL,
)

_CONTAINERS = (dict, list, tuple)
_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS

_Error: TypeAlias = tuple[list[str], str]  # the path to a value, and a message


def loads(data: bytes | str, *, field: str = "") -> object:
    """Returns the value of a JSON text. A byte order mark before it is skipped.

    Raises InvalidInput if values would be altered or lost, with a violation for each (at `payload/a/0` if `field` is
    `payload`). Raises ValueError with line and column if the text is not JSON, or if it is nested deeper than 1,024
    levels.
    """
    data = data.removeprefix("\ufeff") if isinstance(data, str) else data.removeprefix(BOM_UTF8)
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _raise_decode_error(data, error, field)
    encoded = data.encode() if isinstance(data, str) else data
    if _may_be_altered(encoded):
        _reject_altered(data, field)
    if may_have_repeated_keys(encoded, value):
        text = data if isinstance(data, str) else data.decode()
        _raise_if_any(((_path(location), REPEATED_KEY) for location in repeated_keys(text)), field)
    return value


def dumps(value: object, *, field: str = "") -> bytes:
    """Returns the value as compact JSON in UTF-8, with the keys in their order.

    Raises InvalidInput if JSON or the hub cannot represent a value: integers beyond 64 bits, NaN and infinities, NUL
    and lone surrogates, keys that are not text, other types, and nesting deeper than 254 levels.
    """
    try:
        text = orjson.dumps(value, option=_ONLY_JSON)
    except TypeError as error:
        if depth(value) > MAX_WRITE_DEPTH:
            raise InvalidInput.one(field, f"nested deeper than {MAX_WRITE_DEPTH} levels") from None
        _raise_if_any(_unwritable_values(value), field)
        raise InvalidInput.one(field, f"cannot be written as JSON: {error}") from None
    if b"\\u0000" in text or b"null" in text:  # orjson writes NaN and infinities as null
        _raise_if_any(_unwritable_values(value), field)
    return text


def depth(value: object) -> int:
    """Returns the number of nested arrays and objects: 0 for a scalar, 1 for `[]`, 2 for `[{}]`."""
    levels = 0
    level = _containers([value])
    while level:
        levels += 1
        level = _containers(child for container in level for child in _children(container))
    return levels


def pointer(field: str, path: Sequence[str | int]) -> str:
    """Returns a field and the path below it as one pointer: `payload/a~1b/0` (RFC 6901 after the field)."""
    return "/".join((field, *(_printable(str(part)).replace("~", "~0").replace("/", "~1") for part in path)))


def _containers(values: Iterable[object]) -> list[object]:
    return [value for value in values if isinstance(value, _CONTAINERS)]


def _children(container: object) -> Iterable[object]:
    if isinstance(container, dict):
        return cast(dict[object, object], container).values()
    return cast(list[object], container)


def _printable(text: str) -> str:
    """Returns the text with NUL and lone surrogates as escapes, so that an error about it can be sent."""
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _may_be_altered(data: bytes) -> bool:
    """Returns whether a valid JSON text may have NUL or an integer beyond 64 bits. It may return True wrongly."""
    if b"\\" in data and b"\\u0000" in data:  # the search for one byte takes a fifth of the time
        return True
    if _NINETEEN_DIGITS not in data.translate(_ALL_DIGITS_ZERO):
        return False
    return any(_is_long_integer(data, digits) for digits in _LONG_DIGITS.finditer(data))


def _is_long_integer(data: bytes, digits: re.Match[bytes]) -> bool:
    if data[digits.end() : digits.end() + 1] in (b".", b"e", b"E"):
        return False
    sign = "-" if data[digits.start() - 1 : digits.start()] == b"-" else ""
    return not _fits(sign + digits.group().decode())


def _fits(integer: str) -> bool:
    """Returns whether an integer, as text, is within 64 bits, without converting a long one."""
    return len(integer) <= 20 and _MIN_INT <= int(integer) <= _MAX_INT


def _raise_decode_error(data: bytes | str, error: orjson.JSONDecodeError, field: str) -> NoReturn:
    """Raises the error of `loads` for a text that orjson rejects."""
    if isinstance(data, bytes):
        try:
            data.decode()
        except UnicodeDecodeError as bad:
            line, column = data.count(b"\n", 0, bad.start) + 1, bad.start - data.rfind(b"\n", 0, bad.start)
            raise ValueError(f"not valid UTF-8 at line {line}, byte {column}") from None
    if _is_too_deep(data):
        raise ValueError(f"nested deeper than {MAX_READ_DEPTH} levels") from None
    _reject_altered(data, field)
    reason = "the text ends too early" if "memory" in error.msg else error.msg
    raise ValueError(f"not valid JSON: {reason} at line {error.lineno}, column {error.colno}") from None


def _is_too_deep(data: bytes | str) -> bool:
    text = data if isinstance(data, str) else data.decode()
    if text.count("[") + text.count("{") <= MAX_READ_DEPTH:
        return False
    level = 0
    for bracket in re.finditer(r"[\[\]{}]", _TOKEN.sub("", text)):
        level += 1 if bracket.group() in "[{" else -1
        if level > MAX_READ_DEPTH:
            return True
    return False


def _reject_altered(data: bytes | str, field: str) -> None:
    """Raises InvalidInput if the text is JSON with values that would be altered.

    Each such value is first replaced in the text by a marker that orjson can read: a string of NUL, a letter and the
    original text.
    """
    text = data if isinstance(data, str) else data.decode()
    try:
        marked = orjson.loads(_TOKEN.sub(_mark, text))
    except orjson.JSONDecodeError:
        return
    _raise_if_any(_marked_values(marked), field)


def _mark(token: re.Match[str]) -> str:
    text = token.group()
    if text[0] == '"':
        return _ESCAPE.sub(_mark_escape, text)
    if text.lstrip("-").isdigit():
        return text if _fits(text) else f'"\\u0000i{_shorten(text)}"'
    return text if isfinite(float(text)) else f'"\\u0000f{_shorten(text)}"'


def _mark_escape(escape: re.Match[str]) -> str:
    text = escape.group()
    if len(text) == 1 and text >= "\ud800":
        return "\\u0000s"
    if escape.group(1) is None:
        return text
    return "\\u0000n" if escape.group(1) == "0000" else "\\u0000s"


def _shorten(number: str) -> str:
    return number if len(number) <= 40 else number[:37] + "..."


_LONG_INTEGER = "is beyond 64 bits and would lose digits: send it as a string"
_LARGE_DOUBLE = "is beyond the range of a double: send it as a string"


def _marked_values(value: object) -> Iterator[_Error]:
    for location, leaf in _leaves(value):
        if isinstance(leaf, str) and "\0" in leaf:
            kind, text = leaf[leaf.index("\0") + 1], leaf[2:]
            messages = {"i": f"{text} {_LONG_INTEGER}", "f": f"{text} {_LARGE_DOUBLE}", "n": NUL, "s": LONE_SURROGATE}
            yield [part.replace("\0n", "\0").replace("\0s", "\ufffd") for part in _path(location)], messages[kind]


def _unwritable_values(value: object) -> Iterator[_Error]:
    for location, leaf in _leaves(value):
        if (message := _why_unwritable(leaf)) is not None:
            yield _path(location), message


def _why_unwritable(leaf: object) -> str | None:
    match leaf:
        case bool() | None:
            return None
        case str():
            return text_error(leaf)
        case int():
            return None if _MIN_INT <= leaf <= _MAX_INT else f"an integer {_LONG_INTEGER}"
        case float():
            return None if isfinite(leaf) else "NaN and infinities are not JSON"
        case _:
            return f"{type(leaf).__name__} is not a JSON type"


def _leaves(value: object) -> Iterator[tuple[Location, object]]:
    """Yields every key and every scalar in order, with its location. A key has the location of its value."""
    stack: list[tuple[Location, object]] = [(None, value)]
    while stack:
        location, item = stack.pop()
        if isinstance(item, dict):
            pairs = cast(dict[object, object], item)
            for key in pairs:
                yield (location, str(key)), key
            stack.extend(((location, str(key)), child) for key, child in reversed(pairs.items()))
        elif isinstance(item, list | tuple):
            entries = cast(list[object], item)
            stack.extend(((location, str(index)), entries[index]) for index in range(len(entries) - 1, -1, -1))
        else:
            yield location, item


def _raise_if_any(errors: Iterator[_Error], field: str) -> None:
    violations = [Violation(pointer(field, path), message) for path, message in islice(errors, MAX_VIOLATIONS)]
    if violations:
        raise InvalidInput(violations)


def _path(location: Location) -> list[str]:
    path: list[str] = []
    while location is not None:
        location, key = location
        path.append(key)
    return path[::-1]
