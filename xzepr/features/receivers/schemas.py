"""The JSON Schemas of receivers: which are accepted, their compiled validators, and what a payload violates."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

import jsonschema_rs
import orjson
from jsonschema_rs import ValidationErrorKind, Validator

from xzepr.core.errors import InvalidInput, Violation
from xzepr.core.exact_json import dumps, pointer
from xzepr.core.lru_cache import LRUCache
from xzepr.features.receivers import expansion
from xzepr.features.receivers.references import Dialect, Document, Schema, is_object, subschemas

MAX_SCHEMA_BYTES = 262_144
MAX_VIOLATIONS = 100
MAX_VALUES_WITH_ALL_ERRORS = 5_000
"""A payload of more values than this is judged as quickly as any, but only its first violation is named: the validator
makes all errors at once, at 15 µs each, and would hold up everybody else."""
MAX_MESSAGE = 500
MAX_PATTERN_BYTES = 67_108_864
"""What the compiled patterns of a schema share: one such as `^\\p{L}{1,64}$` takes 3 MB and 20 ms."""

_MASK = "the value"
_BAD_PATTERN = "not a regular expression that runs in linear time (no look-around, no back-references), or too large"


@dataclass(frozen=True, slots=True)
class _Draft:
    metaschema: str
    validator: type[Validator]
    dialect: Dialect


_SINCE_2020 = frozenset({"prefixItems"})
_SINCE_2019 = _SINCE_2020 | {"$defs", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties", "contentSchema"}
_SINCE_7 = _SINCE_2019 | {"if", "then", "else"}
_SINCE_6 = _SINCE_7 | {"contains", "propertyNames"}

_DRAFT_7 = _Draft(
    "http://json-schema.org/draft-07/schema#",
    jsonschema_rs.Draft7Validator,
    Dialect(_SINCE_2019, ref_hides_siblings=True),
)
_DRAFT_2020 = _Draft(
    "https://json-schema.org/draft/2020-12/schema",
    jsonschema_rs.Draft202012Validator,
    Dialect(frozenset({"additionalItems", "dependencies"})),
)
_DRAFTS = (
    _Draft(
        "http://json-schema.org/draft-04/schema#",
        jsonschema_rs.Draft4Validator,
        Dialect(_SINCE_6, id_keyword="id", ref_hides_siblings=True),
    ),
    _Draft(
        "http://json-schema.org/draft-06/schema#",
        jsonschema_rs.Draft6Validator,
        Dialect(_SINCE_7, ref_hides_siblings=True),
    ),
    _DRAFT_7,
    _Draft(
        "https://json-schema.org/draft/2019-09/schema",
        jsonschema_rs.Draft201909Validator,
        Dialect(_SINCE_2020),
    ),
    _DRAFT_2020,
)


def check(schema: object, *, field: str = "schema") -> bytes:
    """The schema as it is stored: compact JSON text, its keys in their order.

    Raises InvalidInput, with the place of every violation, for what is no JSON Schema of a draft that the hub knows, is
    larger than 256 KiB, refers out of the document, or makes too much work (`expansion.py` says when).
    """
    text = dumps(schema, field=field)
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidInput.one(field, f"the schema has {len(text):,} bytes; at most {MAX_SCHEMA_BYTES:,} are allowed")
    read: object = orjson.loads(text)  # our own copy: no part of it is shared with another
    if is_object(read):
        draft = _draft(read, field)
        _check_size(read, draft, field)
        _check_compiles(read, draft, field)
    elif not isinstance(read, bool):
        raise InvalidInput.one(field, "a schema is a JSON object, true or false")
    return text


def compile(schema: bytes) -> Validator:
    """The validator of a schema that `check` accepted, from its stored text."""
    read = cast(Schema | bool, orjson.loads(schema))
    if isinstance(read, bool):
        return _build_validator(read, _DRAFT_2020)
    return _build_validator(read, _draft(read, "schema"))


def violations(validator: Validator, payload: object, *, field: str = "payload") -> tuple[Violation, ...]:
    """What a payload (as JSON values) violates, by JSON pointer; empty when it is accepted.

    At most 100 are named, and of a payload of more than 5,000 values only the first. Messages repeat keys of the
    payload, never its values.
    """
    if validator.is_valid(payload):
        return ()
    if _has_many_values(payload):
        return tuple(_violation_of(error, field) for error in _first_error(validator, payload))
    return tuple(_violation_of(error, field) for error in islice(validator.iter_errors(payload), MAX_VIOLATIONS))


def fingerprint(type: str, description: str, name: str, version: str) -> str:
    """The fingerprint as Event Provenance Registry makes it: SHA-256 of `v1 type description name version`, in hex."""
    return hashlib.sha256(f"v1 {type} {description} {name} {version}".encode()).hexdigest()


def digest(schema: bytes) -> str:
    """SHA-256 of a schema's stored text, in hex."""
    return hashlib.sha256(schema).hexdigest()


class Validators:
    """A cache of compiled validators by the digest of their schemas."""

    def __init__(self, limit: int = 1_000) -> None:
        self._compiled = LRUCache[str, Validator](limit)

    def get(self, digest: str, schema: bytes) -> Validator:
        """Returns the validator of the schema with that digest, compiled if it is not cached."""
        validator = self._compiled.get(digest)
        if validator is None:
            validator = compile(schema)
            self._compiled.put(digest, validator)
        return validator


def _draft(schema: Schema, field: str) -> _Draft:
    """The draft that a schema is written in: `$schema`, else draft 7 if `items` is a list anywhere, else 2020-12."""
    declared = schema.get("$schema")
    if declared is None:
        lists = any(isinstance(part.get("items"), list) for _, part in _all_subschemas(schema, field))
        return _DRAFT_7 if lists else _DRAFT_2020
    draft = next((draft for draft in _DRAFTS if _normalise(draft.metaschema) == _normalise(declared)), None)
    if draft is None:
        known = ", ".join(draft.metaschema for draft in _DRAFTS)
        raise InvalidInput.one(
            pointer(field, ["$schema"]), f"unknown $schema {str(declared)[:200]!r}; known are {known}"
        )
    if other := [place for place, part in _all_subschemas(schema, field) if part.get("$schema", declared) != declared]:
        raise InvalidInput.one(
            pointer(other[0], ["$schema"]), "a part of a schema is written in the draft of the whole"
        )
    return draft


def _normalise(metaschema: object) -> str:
    """The name of a draft, however it is written: http or https, with an empty fragment or without."""
    return str(metaschema).removesuffix("#").replace("http://", "https://", 1)


def _all_subschemas(schema: Schema, field: str) -> Iterator[tuple[str, Schema]]:
    """The schema and every subschema that a keyword names, with their places."""
    stack = [(field, schema)]
    while stack:
        place, part = stack.pop()
        yield place, part
        for keys, child, _ in subschemas(part):
            if is_object(child):
                stack.append((pointer(place, keys), child))


def _check_size(schema: Schema, draft: _Draft, field: str) -> None:
    document = Document(schema, draft.dialect, field=field)
    if document.violations:
        raise InvalidInput(document.violations[:MAX_VIOLATIONS])
    if (fault := expansion.exceeded_limit(document.root)) is not None:
        raise InvalidInput.one(field, f"the schema {fault}")


def _check_compiles(schema: Schema, draft: _Draft, field: str) -> None:
    try:
        _build_validator(schema, draft)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        metaschema = _build_validator({"$ref": draft.metaschema}, draft)
        found = tuple(_violation_of(fault, field) for fault in islice(metaschema.iter_errors(schema), MAX_VIOLATIONS))
        if found:
            raise InvalidInput(found) from None
        if isinstance(error, jsonschema_rs.ValidationError):
            raise InvalidInput([_violation_of(error, field)]) from None
        raise InvalidInput.one(field, f"the schema cannot be compiled: {error}") from None


def _build_validator(schema: Schema | bool, draft: _Draft) -> Validator:
    share = MAX_PATTERN_BYTES // max(16, len(_patterns(schema)))
    linear = jsonschema_rs.RegexOptions(size_limit=share, dfa_size_limit=share)
    return draft.validator(schema, validate_formats=True, offline=True, pattern_options=linear, mask=_MASK)


def _patterns(schema: object) -> set[str]:
    """The regular expressions of a schema, and whatever else looks like one."""
    found: set[str] = set()
    stack = [schema]
    while stack:
        value = stack.pop()
        if is_object(value):
            if isinstance(value.get("pattern"), str):
                found.add(value["pattern"])
            if is_object(value.get("patternProperties")):
                found.update(value["patternProperties"])
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(cast(list[object], value))
    return found


def _has_many_values(payload: object) -> bool:
    count, stack = 0, [payload]
    while stack and count <= MAX_VALUES_WITH_ALL_ERRORS:
        value = stack.pop()
        count += 1
        if is_object(value):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(cast(list[Any], value))
    return count > MAX_VALUES_WITH_ALL_ERRORS


def _first_error(validator: Validator, payload: object) -> Iterator[jsonschema_rs.ValidationError]:
    try:
        validator.validate(payload)
    except jsonschema_rs.ValidationError as error:
        yield error


def _violation_of(error: jsonschema_rs.ValidationError, field: str) -> Violation:
    match error.kind:
        case ValidationErrorKind.FalseSchema():
            message = "no value is allowed here"
        case ValidationErrorKind.Contains():
            message = "no element is what the array must contain"
        case ValidationErrorKind.PropertyNames():
            message = f"a key is refused: {error.message}"
        case ValidationErrorKind.Format(format="regex"):
            message = _BAD_PATTERN
        case _:
            message = error.message
    shown = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
    return Violation(pointer(field, error.instance_path), shown)
