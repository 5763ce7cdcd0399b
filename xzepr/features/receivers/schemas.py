"""The JSON Schemas of receivers: checks of new schemas, compiled validators, and the violations of a payload."""

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
# Of a payload with more values, only the first violation is reported. The validator creates all errors at once, at
# 15 µs each, and would block other requests.
MAX_VALUES_WITH_ALL_ERRORS = 5_000
MAX_MESSAGE = 500  # characters
MAX_PATTERN_BYTES = 67_108_864  # of all compiled patterns of a schema; `^\p{L}{1,64}$` takes 3 MB and 20 ms

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_MASK = "the value"  # replaces values in messages
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
    """Checks a schema and returns it as it is stored: compact JSON text that keeps the order of the keys.

    Raises InvalidInput, with the location of every violation, if the schema is invalid, is larger than 256 KiB, has a
    reference to another document, or exceeds a limit of `expansion.py`.
    """
    text = dumps(schema, field=field)
    if len(text) > MAX_SCHEMA_BYTES:
        raise InvalidInput.one(field, f"the schema has {len(text):,} bytes; at most {MAX_SCHEMA_BYTES:,} are allowed")
    parsed: object = orjson.loads(text)  # a copy in which no two subschemas are the same Python object
    if is_object(parsed):
        draft = _draft(parsed, field)
        _check_graph(parsed, draft, field)
        _check_compiles(parsed, draft, field)
    elif not isinstance(parsed, bool):
        raise InvalidInput.one(field, "a schema is a JSON object, true or false")
    return text


def compile(schema: bytes) -> Validator:
    """Returns the validator of a stored schema, which `check` has accepted."""
    parsed = cast(Schema | bool, orjson.loads(schema))
    if isinstance(parsed, bool):
        return _build_validator(parsed, _DRAFT_2020)
    return _build_validator(parsed, _draft(parsed, "schema"))


def violations(validator: Validator, payload: object, *, field: str = "payload") -> tuple[Violation, ...]:
    """Returns the violations of a payload, each with its JSON pointer. Empty if the payload is valid.

    Returns at most 100, and only the first if the payload has more than 5,000 values. Messages repeat keys of the
    payload, never its values.
    """
    if validator.is_valid(payload):
        return ()
    if _has_many_values(payload):
        return tuple(_violation_of(error, field) for error in _first_error(validator, payload))
    return tuple(_violation_of(error, field) for error in islice(validator.iter_errors(payload), MAX_VIOLATIONS))


def fingerprint(type: str, description: str, name: str, version: str) -> str:
    """Returns SHA-256 of `v1 type description name version` in hex, as Event Provenance Registry computes it."""
    return hashlib.sha256(f"v1 {type} {description} {name} {version}".encode()).hexdigest()


def digest(schema: bytes) -> str:
    """Returns SHA-256 of a schema's stored text, in hex."""
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
    """Returns the draft of a schema: `$schema`, else draft 7 if `items` is a list anywhere, else 2020-12."""
    declared = schema.get("$schema")
    if declared is None:
        has_item_list = any(isinstance(part.get("items"), list) for _, part in _all_subschemas(schema, field))
        return _DRAFT_7 if has_item_list else _DRAFT_2020
    draft = _draft_named(declared)
    if draft is None:
        names = ", ".join(draft.metaschema for draft in _DRAFTS)
        message = f"unknown $schema {str(declared)[:200]!r}; these are supported: {names}"
        raise InvalidInput.one(pointer(field, ["$schema"]), message)
    for location, part in _all_subschemas(schema, field):
        if "$schema" in part and _draft_named(part["$schema"]) is not draft:
            message = "a subschema must have the same $schema as the whole schema"
            raise InvalidInput.one(pointer(location, ["$schema"]), message)
    return draft


def _draft_named(metaschema: object) -> _Draft | None:
    """Returns the draft with that metaschema. Both http and https name it, with or without an empty fragment."""
    name = _normalise(metaschema)
    return next((draft for draft in _DRAFTS if _normalise(draft.metaschema) == name), None)


def _normalise(metaschema: object) -> str:
    """Returns the URI of a metaschema with https and without an empty fragment."""
    return str(metaschema).removesuffix("#").replace("http://", "https://", 1)


def _all_subschemas(schema: Schema, field: str) -> Iterator[tuple[str, Schema]]:
    """Yields the schema and every subschema below a known keyword, each with its location."""
    stack = [(field, schema)]
    while stack:
        location, part = stack.pop()
        yield location, part
        for keys, child, _ in subschemas(part):
            if is_object(child):
                stack.append((pointer(location, keys), child))


def _check_graph(schema: Schema, draft: _Draft, field: str) -> None:
    """Raises InvalidInput for invalid references and identifiers, and for a schema that expands too much."""
    document = Document(schema, draft.dialect, field=field)
    if document.violations:
        raise InvalidInput(document.violations[:MAX_VIOLATIONS])
    if (exceeded := expansion.exceeded_limit(document.root)) is not None:
        raise InvalidInput.one(field, f"the schema {exceeded}")


def _check_compiles(schema: Schema, draft: _Draft, field: str) -> None:
    try:
        _build_validator(schema, draft)
    except (jsonschema_rs.ValidationError, ValueError) as error:
        metaschema = _build_validator({"$ref": draft.metaschema}, draft)
        schema_errors = islice(metaschema.iter_errors(schema), MAX_VIOLATIONS)
        if schema_violations := tuple(_schema_violation(schema_error, field) for schema_error in schema_errors):
            raise InvalidInput(schema_violations) from None
        if isinstance(error, jsonschema_rs.ValidationError):
            raise InvalidInput([_violation_of(error, field)]) from None
        raise InvalidInput.one(field, f"the schema cannot be compiled: {error}") from None


def _build_validator(schema: Schema | bool, draft: _Draft) -> Validator:
    max_bytes = MAX_PATTERN_BYTES // max(16, len(_patterns(schema)))
    linear_time = jsonschema_rs.RegexOptions(size_limit=max_bytes, dfa_size_limit=max_bytes)
    return draft.validator(schema, validate_formats=True, offline=True, pattern_options=linear_time, mask=_MASK)


def _patterns(schema: object) -> set[str]:
    """Returns the regular expressions in a schema, including values that only look like one."""
    patterns: set[str] = set()
    stack = [schema]
    while stack:
        value = stack.pop()
        if is_object(value):
            if isinstance(value.get("pattern"), str):
                patterns.add(value["pattern"])
            if is_object(value.get("patternProperties")):
                patterns.update(value["patternProperties"])
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(cast(list[object], value))
    return patterns


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


def _schema_violation(error: jsonschema_rs.ValidationError, field: str) -> Violation:
    """Returns the violation of a metaschema. Metaschemas allow a type or a list of types with `anyOf`."""
    if isinstance(error.kind, ValidationErrorKind.AnyOf) and error.schema_path[-2:] == ["type", "anyOf"]:
        return Violation(pointer(field, error.instance_path), _type_error(cast(object, error.instance)))
    return _violation_of(error, field)


def _type_error(declared: object) -> str:
    names = cast(list[object], declared) if isinstance(declared, list) else [declared]
    unknown = [name for name in names if name not in _TYPES]
    if unknown:
        shown = ", ".join(repr(name)[:100] for name in unknown[:10])
        return f"{shown} is no JSON Schema type; these are: {', '.join(_TYPES)}"
    return "a list of types must not be empty or name a type more than once"


def _violation_of(error: jsonschema_rs.ValidationError, field: str) -> Violation:
    match error.kind:
        case ValidationErrorKind.FalseSchema():
            message = "no value is allowed here"
        case ValidationErrorKind.Contains():
            message = "no element matches `contains`"
        case ValidationErrorKind.PropertyNames():
            message = f"a key is not allowed: {error.message}"
        case ValidationErrorKind.Format(format="regex"):
            message = _BAD_PATTERN
        case _:
            message = error.message
    shown = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
    return Violation(pointer(field, error.instance_path), shown)
