"""The public schema: its file is up to date, and its guards and enums match the code."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from graphql import (
    FieldDefinitionNode,
    GraphQLEnumType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    ObjectTypeDefinitionNode,
    build_schema,
)

from tests.contract.guarded_fields import guards_of
from xzepr.api.graphql.schema import sdl
from xzepr.core.actor import Permission, Role
from xzepr.features.stream.kinds import KINDS, Kind

SDL = Path(__file__).parents[2] / "schema.graphql"
SCHEMA = build_schema(sdl())
ROOTS = ("Query", "Mutation", "Subscription")


def test_schema_file_is_up_to_date() -> None:
    assert SDL.read_text(encoding="utf-8") == sdl(), "update it with `make schema` and review the difference"


def test_schema_command_prints_the_schema_file() -> None:
    command = [sys.executable, "-m", "xzepr", "schema"]
    process = subprocess.run(command, cwd=SDL.parent, capture_output=True, text=True, check=True)
    assert process.stdout == SDL.read_text(encoding="utf-8")


def nodes(name: str) -> Iterator[tuple[str, FieldDefinitionNode]]:
    """Yields the fields of a type with their definitions."""
    for field, definition in type_named(name).fields.items():
        assert definition.ast_node is not None, "the schema was built from SDL"
        yield field, definition.ast_node


def type_named(name: str) -> GraphQLObjectType | GraphQLInterfaceType:
    """Returns an object or an interface."""
    type = SCHEMA.type_map[name]
    assert isinstance(type, GraphQLObjectType | GraphQLInterfaceType)
    return type


def test_every_root_field_has_exactly_one_guard() -> None:
    guards = {(root, field): len(guards_of(node)) for root in ROOTS for field, node in nodes(root)}
    assert {path: count for path, count in guards.items() if count != 1} == {}


def test_only_login_is_open_to_anyone() -> None:
    open_to_all = [field for root in ROOTS for field, node in nodes(root) if guards_of(node) == [("anyone", None)]]
    assert open_to_all == ["login"]


def test_guards_name_exactly_the_permissions() -> None:
    names = {
        permission
        for type in SCHEMA.type_map.values()
        if isinstance(type, GraphQLObjectType) and isinstance(type.ast_node, ObjectTypeDefinitionNode)
        for node in (type.ast_node, *(field for _, field in nodes(type.name)))
        for guard, permission in guards_of(node)
        if guard == "requires"
    }
    assert names == set(Permission)


def test_enums_match_the_tables_in_code() -> None:
    for name, table in (("Permission", Permission), ("Role", Role), ("StreamKind", Kind)):
        enum = SCHEMA.type_map[name]
        assert isinstance(enum, GraphQLEnumType)
        assert list(enum.values) == [member.name for member in table]


def test_message_type_requires_permission_of_its_kind() -> None:
    guards = {
        type.name: guards_of(type.ast_node)
        for type in SCHEMA.type_map.values()
        if isinstance(type, GraphQLObjectType)
        and type_named("StreamMessage") in type.interfaces
        and type.ast_node is not None
    }
    assert guards == {facts.graphql_type: [("requires", facts.permission.value)] for facts in KINDS.values()}


def test_guarded_fields_are_nullable() -> None:
    """A rejected field becomes null; if it were non-null, results beside it would be lost."""
    non_null = [
        f"{type.name}.{name}"
        for type in SCHEMA.type_map.values()
        if isinstance(type, GraphQLObjectType) and type.name != "Subscription" and not type.name.startswith("__")
        for name, node in nodes(type.name)
        if guards_of(node) and str(type.fields[name].type).endswith("!")
    ]
    assert non_null == []


WITHOUT_INPUT = {"createStreamTicket"}


def test_mutation_takes_one_input_returns_payload() -> None:
    for name, field in type_named("Mutation").fields.items():
        capital = name[0].upper() + name[1:]
        arguments = {name: str(argument.type) for name, argument in field.args.items()}
        assert arguments == ({} if name in WITHOUT_INPUT else {"input": f"{capital}Input!"})
        assert str(field.type).rstrip("!").endswith("Payload")


def test_every_type_has_a_description() -> None:
    """Payloads, inputs and connections are described by the fields that have them."""
    formal = ("Payload", "Input", "Connection", "Edge", "Query", "Mutation", "Subscription", "Boolean", "String", "Int")
    undescribed = [
        type.name
        for type in SCHEMA.type_map.values()
        if not type.description and not type.name.startswith("__") and not type.name.endswith(formal)
    ]
    assert undescribed == []


def test_building_the_schema_opens_nothing(tmp_path: Path) -> None:
    code = "import xzepr.app, sys; from xzepr.api.graphql.schema import build; build(); print(len(sys.modules) > 0)"
    command = [sys.executable, "-c", code]
    environ = {"PYTHONPATH": str(SDL.parent), "DATABASE_URL": "postgresql://unknown@127.0.0.1:1/unknown"}
    process = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr, list(tmp_path.iterdir())) == (0, "", [])
