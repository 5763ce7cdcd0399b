"""The JSON Schemas that receivers accept, and the violations reported for payloads."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.errors import InvalidInput
from xzepr.features.receivers import schemas
from xzepr.features.receivers.schemas import Validators, check, digest, fingerprint, violations

# Far above what any of these tests takes, and far below exponential time.
SECONDS = 10

Json = Any


def schema_errors(schema: Json) -> dict[str, str]:
    """Asserts that a schema is rejected. Returns its violations by JSON pointer."""
    with pytest.raises(InvalidInput) as error:
        check(schema)
    return {violation.field: violation.message for violation in error.value.violations}


def payload_errors(schema: Json, payload: Json) -> dict[str, str]:
    """Returns the violations of a payload under an accepted schema, by JSON pointer."""
    return {v.field: v.message for v in violations(schemas.compile(check(schema)), payload)}


def nested(levels: int, wrap: Callable[[Json], Json], innermost: Json) -> Json:
    for _ in range(levels):
        innermost = wrap(innermost)
    return innermost


def test_schema_is_stored_compact_in_key_order():
    assert (
        check({"type": "object", "properties": {"b": {}, "a": True}})
        == b'{"type":"object","properties":{"b":{},"a":true}}'
    )


@pytest.mark.parametrize(("schema", "accepts"), [(True, True), (False, False), ({}, True)])
def test_boolean_schemas_are_accepted(schema: Json, accepts: bool):
    assert (not payload_errors(schema, {"any": "thing"})) is accepts


@pytest.mark.parametrize("schema", [None, 5, "string", [], [{}]])
def test_other_json_is_rejected_as_schema(schema: Json):
    assert schema_errors(schema) == {"schema": "a schema is a JSON object, true or false"}


def test_each_payload_violation_has_a_json_pointer():
    schema = {
        "type": "object",
        "properties": {
            "size": {"type": "integer"},
            "a/b~": {"type": "array", "items": {"maximum": 3}},
            "never": False,
            "when": {"format": "date-time"},
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    errors = violations(
        schemas.compile(check(schema)), {"size": "big", "a/b~": [1, 9], "never": 1, "when": "noon", "x": 1}
    )
    assert sorted((v.field, v.message) for v in errors) == [
        ("payload", '"name" is a required property'),
        ("payload", "Additional properties are not allowed ('x' was unexpected)"),
        ("payload/a~1b~0/1", "the value is greater than the maximum of 3"),
        ("payload/never", "no value is allowed here"),
        ("payload/size", 'the value is not of type "integer"'),
        ("payload/when", 'the value is not a "date-time"'),
    ]


def test_violation_messages_omit_values():
    secret = "s3cret" * 1000
    errors = violations(schemas.compile(check({"items": {"enum": [1, "x" * 9000]}})), [secret, {"k": secret}])
    assert [v.field for v in errors] == ["payload/0", "payload/1"]
    assert all("s3cret" not in v.message and len(v.message) <= 500 for v in errors)


def test_at_most_hundred_violations_are_reported():
    assert len(violations(schemas.compile(check({"items": {"type": "integer"}})), ["x"] * 4000)) == 100


def test_large_payload_is_validated_quickly():
    validator = schemas.compile(check({"items": {"type": "integer"}}))
    began = time.process_time()
    assert [v.field for v in violations(validator, ["x"] * 200_000)] == ["payload/0"]
    assert violations(validator, [1] * 200_000) == ()
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    ("schema", "passes", "fails"),
    [
        ({"prefixItems": [{"type": "string"}]}, ["a"], [1]),
        ({"items": [{"type": "string"}]}, ["a"], [1]),
        ({"properties": {"p": {"items": [{"type": "string"}]}}}, {"p": ["a"]}, {"p": [1]}),
        ({"$schema": "http://json-schema.org/draft-04/schema#", "maximum": 3, "exclusiveMaximum": True}, 2, 3),
        ({"$schema": "http://json-schema.org/draft-07/schema", "if": {"const": 1}, "then": False}, 2, 1),
        ({"$schema": "https://json-schema.org/draft/2019-09/schema#", "items": [False]}, [], [1]),
        ({"$schema": "https://json-schema.org/draft/2020-12/schema", "dependentRequired": {"a": ["b"]}}, {}, {"a": 1}),
    ],
)
def test_draft_is_declared_or_inferred_from_items(schema: Json, passes: Json, fails: Json):
    assert payload_errors(schema, passes) == {}
    assert payload_errors(schema, fails) != {}


def test_items_list_is_rejected_in_draft_2020_12():
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "items": [{"type": "string"}]}
    assert list(schema_errors(schema)) == ["schema/items"]


@pytest.mark.parametrize(
    "declared", ["http://example.com/schema", "http://json-schema.org/draft-03/schema#", "", 5, []]
)
def test_unknown_draft_is_rejected(declared: Json):
    assert schema_errors({"$schema": declared})["schema/$schema"].startswith("unknown $schema")


def test_subschema_in_another_draft_is_rejected():
    subschema = {"$id": "http://x/y", "$schema": "http://json-schema.org/draft-04/schema#"}
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": subschema}}
    assert list(schema_errors(schema)) == ["schema/definitions/a/$schema"]


@pytest.mark.parametrize(
    "declared", ["http://json-schema.org/draft-07/schema", "https://json-schema.org/draft-07/schema#"]
)
def test_subschema_may_spell_its_draft_differently(declared: str):
    schema = {**DRAFT_7, "properties": {"a": {"$schema": declared, "type": "string"}}}
    assert list(payload_errors(schema, {"a": 1})) == ["payload/a"]


@pytest.mark.parametrize(
    "draft", ["http://json-schema.org/draft-04/schema#", "https://json-schema.org/draft/2020-12/schema"]
)
@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("interger", "'interger' is no JSON Schema type; these are: array, boolean"),
        (["string", "nul", "in"], "'nul', 'in' is no JSON Schema type"),
        (5, "5 is no JSON Schema type"),
        ([], "a list of types must not be empty"),
        (["null", "null"], "a list of types must not be empty or name a type more than once"),
    ],
)
def test_unknown_type_is_named(draft: str, declared: Json, message: str):
    errors = schema_errors({"$schema": draft, "properties": {"a": {"type": declared}}})
    assert errors["schema/properties/a/type"].startswith(message)


def test_all_schema_errors_are_reported():
    schema = {"type": "strin", "properties": {"a": {"minimum": "x"}, "b": {"pattern": "["}}}
    assert set(schema_errors(schema)) == {"schema/type", "schema/properties/a/minimum", "schema/properties/b/pattern"}


@pytest.mark.parametrize("pattern", ["(?=a)", "(?!a)", r"(a)\1", "(?:a{1000}){1000}"])
def test_pattern_beyond_linear_time_is_rejected(pattern: str):
    assert "linear time" in schema_errors({"properties": {"c": {"pattern": pattern}}})["schema/properties/c/pattern"]
    assert "linear time" in schema_errors({"patternProperties": {pattern: {}}})[f"schema/patternProperties/{pattern}"]


def test_patterns_run_in_linear_time():
    validator = schemas.compile(check({"pattern": "^(a+)+$"}))
    began = time.process_time()
    assert violations(validator, "a" * 50_000 + "b")
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize("value", [2**64, float("nan"), "a\0b", "\ud800"])
def test_schema_value_without_json_form_is_rejected(value: Json):
    assert list(schema_errors({"properties": {"a": {"const": value}}})) == ["schema/properties/a/const"]


def test_too_large_or_deep_schemas_are_rejected():
    assert "262,144" in schema_errors({"description": "x" * 262_144})["schema"]
    assert "nested deeper" in schema_errors(nested(100_000, lambda s: {"not": s}, {}))["schema"]


@pytest.mark.parametrize(
    "reference",
    [
        *("http://127.0.0.1/schema.json", "file:///etc/passwd", "//host/x", "other.json", "http://[", "urn:x:y"),
        *("https://json-schema.org/draft/2020-12/schema", "json-schema:///"),
    ],
)
@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
def test_external_references_are_rejected(keyword: str, reference: str):
    assert list(schema_errors({"properties": {"a": {keyword: reference}}})) == [f"schema/properties/a/{keyword}"]
    assert list(schema_errors({"$defs": {"unused": {keyword: reference}}})) == [f"schema/$defs/unused/{keyword}"]


@pytest.mark.parametrize("reference", ["#/$defs/b", "#b", "#/$defs/a/type", "#/$defs/list/1", "#/$defs/list/00"])
def test_dangling_references_are_rejected(reference: str):
    schema: Json = {"$defs": {"a": {"type": "string"}}, "x": {"list": [{"type": "null"}]}, "$ref": reference}
    assert list(schema_errors(schema)) == ["schema/$ref"]


RESOLVED: list[Json] = [
    {"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
    {"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "integer"}}},
    {"$ref": "#n", "$defs": {"x": {"$anchor": "n", "type": "integer"}}},
    {"$dynamicRef": "#n", "$defs": {"x": {"$dynamicAnchor": "n", "type": "integer"}}},
    {"$ref": "http://x/n", "$defs": {"x": {"$id": "http://x/n", "type": "integer"}}},
    {"$id": "http://x/root", "$ref": "n", "$defs": {"x": {"$id": "n", "type": "integer"}}},
    {"$id": "urn:x:y", "$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}},
    {"$ref": "#/elsewhere/0", "elsewhere": [{"type": "integer"}]},
    {"items": [{}], "$ref": "#n", "definitions": {"x": {"$id": "#n", "type": "integer"}}},
    {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "$ref": "http://x/n",
        "definitions": {"x": {"id": "http://x/n", "type": "integer"}},
    },
    {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": "http://x/",
        "$ref": "#/definitions/n",
        "definitions": {"n": {"type": "integer"}},
    },
]


@pytest.mark.parametrize(
    "schema",
    RESOLVED,
)
def test_internal_references_are_resolved(schema: Json):
    assert payload_errors(schema, 1) == {}
    assert payload_errors(schema, "one") != {}


@pytest.mark.parametrize(
    ("schema", "location"),
    [
        ({"$defs": {"a": {"$id": "http://x/"}, "b": {"$id": "http://x/"}}}, "schema/$defs/b/$id"),
        ({"$defs": {"a": {"$anchor": "x"}, "b": {"$anchor": "x"}}}, "schema/$defs/b/$anchor"),
        ({"$ref": "#/x", "x": {"$id": "http://x/"}}, "schema/x/$id"),
        ({"$ref": "#/$defs/a/$defs/b", "$defs": {"a": {"$id": "http://x/", "$defs": {"b": {}}}}}, "schema/$ref"),
    ],
)
def test_ambiguous_identifiers_are_rejected(schema: Json, location: str):
    errors = schema_errors(schema)
    assert len(errors) == 1
    assert location.replace("/b/", "/a/") in [pointer.replace("/b/", "/a/") for pointer in errors]


def bomb(levels: int, keyword: str = "allOf") -> Json:
    """Returns a schema of 45 bytes a level whose definitions each refer to the next one twice: 2^levels subschemas."""
    defs: dict[str, Json] = {f"d{i}": {keyword: [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


TREE = {"$ref": "#"}


BOMBS: list[Json] = [
    bomb(40),
    bomb(3000),
    bomb(40, "anyOf"),
    nested(20, lambda s: {"allOf": [s], "unevaluatedProperties": False}, {"properties": {"a": True}}),
    nested(20, lambda s: {"anyOf": [s], "unevaluatedItems": False}, {"prefixItems": [True]}),
    {"items": {"allOf": [True] * 10_000}},
    {
        "$ref": "#/$defs/a0",
        "$defs": {
            f"a{i}": {
                "$dynamicAnchor": f"a{i}",
                "allOf": [{"$dynamicRef": f"#a{min(i + 1, 20)}"}, {"$ref": f"#a{min(i + 1, 20)}"}],
            }
            for i in range(20)
        }
        | {"a20": {"$dynamicAnchor": "a20"}},
    },
]


@pytest.mark.parametrize(
    "schema",
    BOMBS,
    ids=["refs", "many refs", "anyOf", "unevaluated", "unevaluated items", "wide", "dynamic"],
)
def test_schema_above_10000_subschemas_is_rejected_quickly(schema: Json):
    began = time.process_time()
    assert "more than 10,000 subschemas" in schema_errors(schema)["schema"]
    assert time.process_time() - began < SECONDS


def test_schema_just_under_limit_validates_values():
    validator = schemas.compile(check(bomb(11)))
    assert violations(validator, 1) == ()
    assert violations(validator, "x")


RECURSIVE: list[tuple[Json, Json]] = [
    ({"properties": {"next": TREE}, "required": ["value"]}, {"value": 1, "next": {"value": 2}}),
    ({"properties": {"children": {"items": TREE}, "name": {"type": "string"}}}, {"children": [{"name": "a"}]}),
    ({"anyOf": [{"type": "integer"}, {"type": "array", "items": TREE}]}, [1, [2, [3]]]),
    (
        {
            "$recursiveAnchor": True,
            "items": {"$recursiveRef": "#"},
            "$schema": "https://json-schema.org/draft/2019-09/schema",
        },
        [[[]]],
    ),
    ({"$dynamicAnchor": "n", "additionalProperties": {"$dynamicRef": "#n"}}, {"a": {"b": {}}}),
    (
        {
            "properties": {"a": {"$ref": "#/$defs/l"}, "b": {"$ref": "#/$defs/l"}},
            "$defs": {"l": {"items": {"$ref": "#/$defs/l"}}},
        },
        {"a": [[]]},
    ),
    ({"properties": {"a": TREE}, "allOf": [{"minProperties": 0}], "unevaluatedProperties": False}, {"a": {"a": {}}}),
    ({"$defs": {"unused": {"$ref": "#/$defs/unused"}}}, 1),
]


@pytest.mark.parametrize(
    ("schema", "payload"),
    RECURSIVE,
)
def test_recursion_in_one_branch_is_accepted(schema: Json, payload: Json):
    assert payload_errors(schema, payload) == {}


BRANCHING: list[Json] = [
    {"allOf": [{"properties": {"a": TREE}}, {"properties": {"a": TREE}}]},
    {"items": {"anyOf": [TREE, TREE]}},
    {
        "properties": {"next": TREE},
        "allOf": [{"$ref": "#/$defs/b"}],
        "$defs": {"b": {"properties": {"next": {"$ref": "#/$defs/b"}}}},
    },
    {"properties": {"a": TREE}, "patternProperties": {"b": TREE}},
    {"allOf": [{"properties": {"a": TREE}}, {"additionalProperties": TREE}]},
    {"items": TREE, "contains": TREE},
    {"anyOf": [{"properties": {"a": {"allOf": [TREE]}}}, {"unevaluatedProperties": TREE}]},
    {"allOf": [{"prefixItems": [TREE]}, {"items": TREE}]},
    {
        "$id": "http://x/",
        "$dynamicAnchor": "n",
        "items": {"$dynamicRef": "#n"},
        "$defs": {"o": {"$id": "o", "$dynamicAnchor": "n", "items": {"$ref": "/"}}},
    },
]


@pytest.mark.parametrize(
    "schema",
    BRANCHING,
)
def test_recursion_in_several_branches_is_rejected(schema: Json):
    assert "recurses in more than one branch" in schema_errors(schema)["schema"]


DEFINITIONS = "#/definitions/"
DRAFT_7 = {"$schema": "http://json-schema.org/draft-07/schema#"}


def refs(**properties: str) -> Json:
    """Returns a schema whose properties refer to definitions, or to a list of them if the name ends with `[]`."""
    parts = {name: {"$ref": DEFINITIONS + target.removesuffix("[]")} for name, target in properties.items()}
    lists = {name: {"type": "array", "items": parts[name]} for name, target in properties.items() if "[]" in target}
    return {"type": "object", "properties": parts | lists, "additionalProperties": False}


CYCLONEDX: Json = {
    **DRAFT_7,
    **refs(components="component[]", services="service[]", metadata="metadata", signature="signature"),
    "definitions": {
        "metadata": refs(component="component", tools="tools"),
        "tools": {"oneOf": [refs(components="component[]", services="service[]"), {"type": "array"}]},
        "component": refs(components="component[]", pedigree="pedigree", evidence="evidence", signature="signature"),
        "pedigree": refs(ancestors="component[]", descendants="component[]", variants="component[]", patches="patch[]"),
        "patch": refs(resolves="issue[]"),
        "issue": {"type": "object", "properties": {"id": {"type": "string"}}},
        "evidence": refs(identity="component[]"),
        "service": refs(services="service[]", signature="signature"),
        "signature": {"oneOf": [refs(signers="signer[]"), refs(chain="signer[]"), {"$ref": DEFINITIONS + "signer"}]},
        "signer": {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]},
    },
}
SARIF: Json = {
    **DRAFT_7,
    **refs(runs="run[]", inlineExternalProperties="external[]", properties="bag"),
    "definitions": {
        "bag": {"type": "object", "additionalProperties": True, "properties": {"tags": {"type": "array"}}},
        "run": refs(results="result[]", graphs="graph[]", logicalLocations="location[]", properties="bag"),
        "external": refs(results="result[]", graphs="graph[]", properties="bag"),
        "result": refs(locations="location[]", relatedLocations="location[]", graphs="graph[]", stacks="stack[]"),
        "stack": refs(frames="location[]", message="message"),
        "location": refs(message="message", relationships="location[]", annotations="location[]", properties="bag"),
        "graph": refs(nodes="node[]", edges="node[]", description="message"),
        "node": refs(children="node[]", label="message", location="location", properties="bag"),
        "message": {"anyOf": [{"required": ["text"]}, {"required": ["id"]}], **refs(properties="bag")},
    },
}
CYCLONEDX["definitions"]["component"]["properties"]["name"] = {"type": "string"}
SARIF["definitions"]["message"]["properties"]["text"] = {"type": "string"}


RECURSIONS: list[tuple[Json, Json, Json, str | None]] = [
    (
        CYCLONEDX,
        {"components": [{"name": "a", "pedigree": {"ancestors": [{"components": [{"name": "b"}]}]}}]},
        {"components": [{"pedigree": {"variants": [{"components": [{"name": 1}]}]}}]},
        "payload/components/0/pedigree/variants/0/components/0/name",
    ),
    (
        SARIF,
        {"runs": [{"graphs": [{"nodes": [{"children": [{"label": {"text": "a"}}]}]}]}]},
        {"runs": [{"graphs": [{"nodes": [{"children": [{"label": {"text": 5}}]}]}]}]},
        "payload/runs/0/graphs/0/nodes/0/children/0/label/text",
    ),
    ({"properties": {"left": TREE, "right": TREE, "n": {"type": "null"}}}, {"left": {}}, {"left": {"n": 1}}, None),
    (
        {
            "$dynamicAnchor": "n",
            "properties": {"a": {"$dynamicRef": "#n"}},
            "items": {"$dynamicRef": "#n"},
            "not": {"const": 1},
        },
        {"a": [{}]},
        {"a": [1]},
        "payload/a/0",
    ),
    (
        {"properties": {"a": TREE}, "additionalProperties": TREE, "not": {"const": 1}},
        {"b": {}},
        {"b": 1},
        "payload/b",
    ),
    (
        {**DRAFT_7, "items": [TREE, TREE], "additionalItems": TREE, "not": {"const": 1}},
        [[], [[]]],
        [[], [1]],
        "payload/1/0",
    ),
]


@pytest.mark.parametrize(
    ("schema", "passes", "fails", "location"),
    RECURSIONS,
    ids=["CycloneDX", "SARIF", "tree", "dynamic", "additional", "list"],
)
def test_recursions_at_different_places_are_accepted(schema: Json, passes: Json, fails: Json, location: str | None):
    assert payload_errors(schema, passes) == {}
    assert list(payload_errors(schema, fails)) == [location or "payload/left/n"]


def chain(levels: int, **extra: Json) -> Json:
    """Returns a schema whose definitions each refer to the next one from two properties."""
    defs: dict[str, Json] = {
        f"d{i}": {"properties": {name: {"$ref": f"#/$defs/d{i + 1}"} for name in "ab"}, **extra} for i in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**defs, f"d{levels}": {"type": "integer"}}}


def test_shared_definitions_at_different_places_count_once():
    value = nested(26, lambda v: {"a": v}, "x")
    assert list(payload_errors(chain(26), value)) == ["payload" + "/a" * 26]
    assert payload_errors(chain(200), {"a": {"b": {}}}) == {}


def test_subschemas_added_along_a_recursion_are_counted():
    deep = nested(100, lambda s: {"properties": {"next": s}, "allOf": [True] * 99}, True)
    schema = {"allOf": [{"properties": {"next": TREE, "other": TREE}}, deep]}
    assert "more than 10,000 subschemas to one place" in schema_errors(schema)["schema"]


ENDLESS: list[Json] = [
    {"properties": {"a": TREE, "b": TREE}, "allOf": [TREE]},
    TREE,
    {"allOf": [TREE]},
    {"not": {"anyOf": [TREE]}},
    {"if": True, "then": TREE},
    {"$dynamicRef": "#n", "$dynamicAnchor": "n"},
]


@pytest.mark.parametrize("schema", ENDLESS)
def test_recursion_without_descent_is_rejected(schema: Json):
    assert "without descending into the value" in schema_errors(schema)["schema"]


def test_recursive_schema_validates_deep_payload_quickly():
    schema = {
        "$ref": "#/$defs/n",
        "$defs": {"n": {"oneOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#/$defs/n"}}]}},
    }
    validator = schemas.compile(check(schema))
    began = time.process_time()
    assert violations(validator, nested(64, lambda p: [p], "x")) != ()
    assert time.process_time() - began < SECONDS


def test_largest_schemas_are_checked_within_a_second():
    wide: Json = {"properties": {f"field{i}": {"type": "string", "description": "d" * 10} for i in range(4_000)}}
    refs: Json = {"properties": {f"f{i}": {"$ref": "#/$defs/a"} for i in range(4_500)}, "$defs": {"a": {}}}
    dynamic: Json = {
        "$defs": {
            f"d{i}": {"$id": f"r{i}", "$dynamicAnchor": "n", "items": {"$dynamicRef": "#n"}} for i in range(2_500)
        }
    }
    for schema in (wide, refs, dynamic):
        began = time.process_time()
        assert len(check(schema)) > 100_000
        assert time.process_time() - began < SECONDS


def test_fingerprint_matches_event_provenance_registry():
    # printf 'v1 brand.test.pass a description magnificent 7.0.1' | sha256sum
    assert fingerprint("brand.test.pass", "a description", "magnificent", "7.0.1") == (
        "78b7fc78af7c5261e2a87c8bba712f1cf630d9ceaf3cf1e072608395bc27147d"
    )
    assert digest(b"{}") == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


def test_validator_cache_evicts_oldest():
    validators = Validators(limit=2)
    first = validators.get("a", b"{}")
    validators.get("b", b"true")
    assert validators.get("a", b"{}") is first
    validators.get("c", b"false")
    assert validators.get("a", b"{}") is first
    assert len(schemas.violations(validators.get("b", b"false"), 1)) == 1, "b was evicted and is compiled again"


NAMES = st.sampled_from(["a", "b", "n"])
REFERENCES = st.sampled_from(
    ["#", "#n", "#/$defs/a", "#/$defs/b", "#/properties/a", "#/allOf/0", "#/a", "a", "http://x/n"]
)
SCHEMAS: st.SearchStrategy[Json] = st.recursive(
    st.booleans()
    | st.fixed_dictionaries({"$ref": REFERENCES})
    | st.fixed_dictionaries({"$dynamicRef": st.just("#n"), "type": st.sampled_from(["object", "array"])})
    | st.fixed_dictionaries({"$dynamicAnchor": st.just("n")})
    | st.fixed_dictionaries({"$id": st.sampled_from(["n", "http://x/n", "#n", "a#b", "http://["])}),
    lambda subschema: st.fixed_dictionaries(
        {},
        optional={
            "$ref": REFERENCES,
            "$id": st.just("http://x/n"),
            "$anchor": st.just("n"),
            "$defs": st.dictionaries(NAMES, subschema, max_size=3),
            "properties": st.dictionaries(NAMES, subschema, max_size=2),
            "dependencies": st.dictionaries(NAMES, subschema | st.lists(NAMES), max_size=2),
            "allOf": st.lists(subschema, max_size=3),
            "anyOf": st.lists(subschema, max_size=2),
            "items": subschema | st.lists(subschema, max_size=2),
            "not": subschema,
            "unevaluatedProperties": subschema,
            "a": subschema,
        },
    ),
    max_leaves=15,
)
PAYLOADS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(NAMES, value, max_size=3),
    max_leaves=15,
)


@given(SCHEMAS, PAYLOADS)
def test_any_schema_is_rejected_or_validates(schema: Json, payload: Json):
    began = time.process_time()
    try:
        validator = schemas.compile(check(schema))
    except InvalidInput as error:
        reasons = error.violations
        assert reasons[0].message
    else:
        assert validator.is_valid(payload) is (violations(validator, payload) == ())
    assert time.process_time() - began < SECONDS


def test_identifier_unknown_to_another_draft_is_rejected():
    inner: dict[str, Json] = {"$id": "http://x/inner", "definitions": {"n": {}}, "allOf": [{"$ref": "#/definitions/n"}]}
    draft_7 = "http://json-schema.org/draft-07/schema#"
    schema: dict[str, Json] = {"$schema": draft_7, "$ref": "#/$defs/a", "$defs": {"a": inner}, "definitions": {"n": {}}}
    assert list(schema_errors(schema)) == ["schema/$defs/a/$id"]


@pytest.mark.parametrize(
    "identifier",
    [
        *("http://x/a/../i", "http://x/./i", "HTTP://x/i", "http://X/i", "http://x/%69", "http://x:80/i"),
        *(
            "http://x:/i",
            "URN:a:b",
            "json-schema:///i",
            "http://x/a;b",
            "http://x/\u00e9",
            "http://x/ i",
            "ht\ttp://x/i",
        ),
    ],
)
def test_non_canonical_identifiers_are_rejected(identifier: str):
    schema: Json = {"$defs": {"a": {"$id": "http://x/i", "type": "string"}, "b": {"$id": identifier}}}
    assert list(schema_errors(schema)) == ["schema/$defs/b/$id"]


def test_patterns_too_large_together_are_rejected():
    schema = {"properties": {f"p{i}": {"pattern": rf"^\p{{L}}{{1,64}}$|{i}"} for i in range(5_000)}}
    began = time.process_time()
    assert any("too large" in message for message in schema_errors(schema).values())
    assert time.process_time() - began < SECONDS
    assert check({"properties": {f"p{i}": {"pattern": rf"^[\w.-]{{1,255}}-{i}$"} for i in range(300)}})
