"""JSON in and out without silent change: what would lose its value is refused, with its place.

Integers from -2^63 to 2^64-1 stay integers; everything with a fraction or an exponent is a double, so `1.10` may come
back as `1.1`, `1e5` as `100000.0` and `1e-400` as `0.0`; `-0` is the integer 0. Of equal keys in one object the last
wins, at the place of the first.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from math import isfinite
from typing import NoReturn, TypeAlias, cast

import orjson

from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.text import LONE_SURROGATE, NUL, text_error

MAX_READ_DEPTH = 1024
"""Arrays and objects within each other that `loads` reads."""
MAX_WRITE_DEPTH = 254
"""Arrays and objects within each other that `dumps` writes."""
MAX_VIOLATIONS = 100

_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1
_ALL_DIGITS_ZERO = bytes.maketrans(b"123456789", b"000000000")
_NINETEEN_DIGITS = b"0" * 19
_LONG_DIGITS = re.compile(rb"[0-9]{19,}")
# Neither pattern can fail once it has begun, so both read any text in linear time, also one that is not JSON.
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.?)*+"?|-?[0-9]++(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+', re.DOTALL)
_ESCAPE = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u([dD][89a-fA-F][0-9a-fA-F]{2}|0000)|\\.|[\ud800-\udfff]",
    re.DOTALL,
)

_CONTAINERS = (dict, list, tuple)
_ONLY_JSON = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS

_Place: TypeAlias = "tuple[_Place, str] | None"
_Found: TypeAlias = tuple[list[str], str]


def loads(data: bytes | str, *, field: str = "") -> object:
    """The value of a JSON text.

    Raises InvalidInput with a violation for each value that would be altered (at `payload/a/0` where `field` is
    `payload`), and ValueError, with line and column, for what is not JSON or is nested deeper than 1,024 levels.
    """
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        _explain(data, error, field)
    if _is_suspect(data.encode() if isinstance(data, str) else data):
        _refuse_altered(data, field)
    return value


def dumps(value: object, *, field: str = "") -> bytes:
    """The value as compact JSON in UTF-8, keys in their order.

    Raises InvalidInput for what JSON cannot hold or this hub does not keep: integers beyond 64 bits, NaN and
    infinities, NUL and lone surrogates, keys that are no text, other types, and nesting deeper than 254 levels.
    """
    try:
        text = orjson.dumps(value, option=_ONLY_JSON)
    except TypeError as error:
        if depth(value) > MAX_WRITE_DEPTH:
            raise InvalidInput.one(field, f"nested deeper than {MAX_WRITE_DEPTH} levels") from None
        _refuse(_unwritable(value), field)
        raise InvalidInput.one(field, f"cannot be written as JSON: {error}") from None
    if b"\\u0000" in text or b"null" in text:  # orjson writes NaN and infinities as null
        _refuse(_unwritable(value), field)
    return text


def depth(value: object) -> int:
    """How many arrays and objects lie within each other: 0 for a scalar, 1 for `[]`, 2 for `[{}]`."""
    levels = 0
    level = _containers([value])
    while level:
        levels += 1
        level = _containers(child for container in level for child in _children(container))
    return levels


def pointer(field: str, path: Sequence[str | int]) -> str:
    """The name of a place below a field: `payload/a~1b/0` (RFC 6901 after the field)."""
    return "/".join((field, *(_printable(str(part)).replace("~", "~0").replace("/", "~1") for part in path)))


def _containers(values: Iterable[object]) -> list[object]:
    return [value for value in values if isinstance(value, _CONTAINERS)]


def _children(container: object) -> Iterable[object]:
    if isinstance(container, dict):
        return cast(dict[object, object], container).values()
    return cast(list[object], container)


def _printable(text: str) -> str:
    """The text with NUL and lone surrogates written as escapes, so that any refusal can itself be sent."""
    return text.replace("\0", "\\u0000").encode("utf-8", "backslashreplace").decode()


def _is_suspect(data: bytes) -> bool:
    """Whether a text that parsed may hold NUL or an integer beyond 64 bits; cheap, and never wrongly False."""
    if b"\\u0000" in data:
        return True
    if _NINETEEN_DIGITS not in data.translate(_ALL_DIGITS_ZERO):
        return False
    return any(_is_long_integer(data, found) for found in _LONG_DIGITS.finditer(data))


def _is_long_integer(data: bytes, found: re.Match[bytes]) -> bool:
    if data[found.end() : found.end() + 1] in (b".", b"e", b"E"):
        return False
    sign = "-" if data[found.start() - 1 : found.start()] == b"-" else ""
    return not _fits(sign + found.group().decode())


def _fits(integer: str) -> bool:
    """Whether the text of an integer is within 64 bits; never converts a long one."""
    return len(integer) <= 20 and _MIN_INT <= int(integer) <= _MAX_INT


def _explain(data: bytes | str, error: orjson.JSONDecodeError, field: str) -> NoReturn:
    """Turn orjson's refusal into ours: altered values by their places, anything else by line and column."""
    if isinstance(data, bytes):
        try:
            data.decode()
        except UnicodeDecodeError as bad:
            line, column = data.count(b"\n", 0, bad.start) + 1, bad.start - data.rfind(b"\n", 0, bad.start)
            raise ValueError(f"not valid UTF-8 at line {line}, byte {column}") from None
    if _nests_too_deep(data):
        raise ValueError(f"nested deeper than {MAX_READ_DEPTH} levels") from None
    _refuse_altered(data, field)
    reason = "the text ends too early" if "memory" in error.msg else error.msg
    raise ValueError(f"not valid JSON: {reason} at line {error.lineno}, column {error.colno}") from None


def _nests_too_deep(data: bytes | str) -> bool:
    text = data if isinstance(data, str) else data.decode()
    if text.count("[") + text.count("{") <= MAX_READ_DEPTH:
        return False
    level = 0
    for bracket in re.finditer(r"[\[\]{}]", _TOKEN.sub("", text)):
        level += 1 if bracket.group() in "[{" else -1
        if level > MAX_READ_DEPTH:
            return True
    return False


def _refuse_altered(data: bytes | str, field: str) -> None:
    """Raise InvalidInput if the text is JSON with values that would be altered.

    Each such value is first replaced in the text by one that orjson can read: NUL, a letter and what stood there.
    """
    text = data if isinstance(data, str) else data.decode()
    try:
        marked = orjson.loads(_TOKEN.sub(_mark, text))
    except orjson.JSONDecodeError:
        return
    _refuse(_marks(marked), field)


def _mark(token: re.Match[str]) -> str:
    text = token.group()
    if text[0] == '"':
        return _ESCAPE.sub(_mark_escape, text)
    if text.lstrip("-").isdigit():
        return text if _fits(text) else f'"\\u0000i{_short(text)}"'
    return text if isfinite(float(text)) else f'"\\u0000f{_short(text)}"'


def _mark_escape(escape: re.Match[str]) -> str:
    text = escape.group()
    if len(text) == 1 and text >= "\ud800":
        return "\\u0000s"
    if escape.group(1) is None:
        return text
    return "\\u0000n" if escape.group(1) == "0000" else "\\u0000s"


def _short(number: str) -> str:
    return number if len(number) <= 40 else number[:37] + "..."


_INTEGER = "is beyond 64 bits and would lose digits: send it as a string"
_DOUBLE = "is beyond the range of a double: send it as a string"


def _marks(value: object) -> Iterator[_Found]:
    for place, leaf in _leaves(value):
        if isinstance(leaf, str) and "\0" in leaf:
            kind, text = leaf[leaf.index("\0") + 1], leaf[2:]
            message = {"i": f"{text} {_INTEGER}", "f": f"{text} {_DOUBLE}", "n": NUL, "s": LONE_SURROGATE}[kind]
            yield [part.replace("\0n", "\0").replace("\0s", "\ufffd") for part in _path(place)], message


def _unwritable(value: object) -> Iterator[_Found]:
    for place, leaf in _leaves(value):
        if (fault := _fault(leaf)) is not None:
            yield _path(place), fault


def _fault(leaf: object) -> str | None:
    match leaf:
        case bool() | None:
            return None
        case str():
            return text_error(leaf)
        case int():
            return None if _MIN_INT <= leaf <= _MAX_INT else f"an integer {_INTEGER}"
        case float():
            return None if isfinite(leaf) else "NaN and infinities are not JSON"
        case _:
            return f"{type(leaf).__name__} is not a JSON type"


def _leaves(value: object) -> Iterator[tuple[_Place, object]]:
    """Every key and every value that is no container, in order, with its place; a key has the place of its value."""
    stack: list[tuple[_Place, object]] = [(None, value)]
    while stack:
        place, item = stack.pop()
        if isinstance(item, dict):
            pairs = cast(dict[object, object], item)
            for key in pairs:
                yield (place, str(key)), key
            stack.extend(((place, str(key)), child) for key, child in reversed(pairs.items()))
        elif isinstance(item, list | tuple):
            entries = cast(list[object], item)
            stack.extend(((place, str(at)), entries[at]) for at in range(len(entries) - 1, -1, -1))
        else:
            yield place, item


def _refuse(found: Iterator[_Found], field: str) -> None:
    violations = [Violation(pointer(field, path), message) for path, message in islice(found, MAX_VIOLATIONS)]
    if violations:
        raise InvalidInput(violations)


def _path(place: _Place) -> list[str]:
    path: list[str] = []
    while place is not None:
        place, key = place
        path.append(key)
    return path[::-1]
