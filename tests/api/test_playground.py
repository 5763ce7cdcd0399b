"""The playground as the hub serves it: its page, its files, its policy, and where its bytes came from."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from graphql import (
    DocumentNode,
    GraphQLInputObjectType,
    GraphQLScalarType,
    NonNullTypeNode,
    OperationDefinitionNode,
    build_schema,
    parse,
    print_ast,
    validate,
)
from graphql.execution import get_variable_values
from starlette.applications import Starlette

from xzepr.api.console import playground

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "deploy" / "playground"
PUBLIC = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))
MANIFEST: dict[str, Any] = json.loads((playground.STATIC / "manifest.json").read_text(encoding="utf-8"))
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "worker-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "font-src": "'self' data:",
    "img-src": "'self' data:",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
    "form-action": "'none'",
}


async def get(path: str, **headers: str) -> httpx2.Response:
    """The answer of an app that has nothing but the playground."""
    transport = httpx2.ASGITransport(Starlette(routes=playground.playground_routes()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        return await client.get(path, headers=headers)


async def test_the_page_is_served_and_names_only_files_of_the_bundle():
    answer = await get("/graphql/playground")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    named = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert {name.removeprefix("playground/") for name in named if not name.startswith("data:")} <= set(
        MANIFEST["files"]
    )
    assert "<style" not in answer.text
    assert not re.search(r"<script[^>]*>[^<]", answer.text)


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in MANIFEST["files"] if name != "index.html")])
async def test_every_answer_carries_the_policy_of_the_playground(path: str):
    answer = await get(f"/graphql/playground{path}")
    assert answer.status_code == 200
    directives = answer.headers["content-security-policy"].split("; ")
    assert dict(directive.split(" ", 1) for directive in directives) == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", [name for name in MANIFEST["files"] if name.endswith((".js", ".css", ".ttf"))])
async def test_an_asset_is_served_as_what_it_is_and_kept_by_the_browser(name: str):
    answer = await get(f"/graphql/playground/{name}")
    expected = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".ttf": "font/ttf"}
    assert answer.headers["content-type"] == expected[Path(name).suffix]
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    assert hashlib.sha256(answer.content).hexdigest() == MANIFEST["files"][name]["sha256"]


@pytest.mark.parametrize("path", ["/graphql/playground", "/graphql/playground/manifest.json"])
async def test_what_keeps_its_name_is_asked_for_again(path: str):
    assert (await get(path)).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2f__init__.py", "%2e%2e/playground.py", "static"])
async def test_a_file_outside_the_bundle_is_not_found(name: str):
    assert (await get(f"/graphql/playground/{name}")).status_code == 404


def test_the_bundle_is_exactly_what_its_manifest_says():
    found = {path.name: path.read_bytes() for path in playground.STATIC.iterdir() if path.name != "manifest.json"}
    assert {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in found.items()
    } == MANIFEST["files"]


def test_the_bundle_was_built_from_the_sources_beside_it():
    source_files = [
        *(path for path in (SOURCES / "src").rglob("*") if path.is_file()),
        *(SOURCES / n for n in ("build.mjs", "package.json", "package-lock.json")),
    ]
    found = {str(path.relative_to(SOURCES).as_posix()): path.read_bytes() for path in source_files}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in found.items()} == MANIFEST["sources"]


def test_what_is_bundled_has_the_version_of_the_lock_file_and_a_licence():
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    locked = {
        (path.rpartition("node_modules/")[2], package["version"]) for path, package in lock["packages"].items() if path
    }
    third_party = (playground.STATIC / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    for package in MANIFEST["packages"]:
        assert (package["name"], package["version"]) in locked
        assert package["licence"] in {"MIT", "Apache-2.0", "BSD-2-Clause", "0BSD"}
        assert f"{package['name']} {package['version']} — {package['licence']}\n" in third_party


def test_the_lock_file_pins_by_hash_and_names_no_download_address():
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for path, package in lock["packages"].items() if path]
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert not any("resolved" in package for package in packages)


def test_readme_tables_match_the_manifest():
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    packages = [f"| {one['name']} | {one['version']} | {one['licence']} |" for one in MANIFEST["packages"]]
    files = [f"| `{name}` | {one['bytes']} | `{one['sha256']}` |" for name, one in MANIFEST["files"].items()]
    for mark, rows in (("packages", packages), ("files", files)):
        listed = readme.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0].splitlines()[2:]
        assert listed == rows


EXAMPLES = sorted((SOURCES / "src" / "examples").glob("*.graphql"))


def example_of(path: Path) -> tuple[DocumentNode, OperationDefinitionNode, dict[str, Any]]:
    """An example's document, its one operation, and the variables that come with it."""
    document = parse(path.read_text(encoding="utf-8"))
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    beside = path.with_suffix(".json")
    given: dict[str, Any] = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
    return document, operation, given


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_has_a_name_and_a_value_for_each_required_variable(path: Path):
    _, operation, given = example_of(path)
    assert operation.name is not None
    variables = operation.variable_definitions or ()
    declared = {one.variable.name.value: isinstance(one.type, NonNullTypeNode) for one in variables}
    assert set(given) <= set(declared)
    assert {name for name, required in declared.items() if required} <= set(given)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_valid_against_the_public_schema(path: Path):
    document, operation, given = example_of(path)
    assert validate(PUBLIC, document) == []
    coerced = get_variable_values(PUBLIC, operation.variable_definitions or (), given)
    assert not isinstance(coerced, list), coerced


def left_out(named: object, value: Any) -> list[str]:
    """The fields of a value that must not be null and are not given, also where the schema has a default for them."""
    if isinstance(value, list):
        return [name for one in cast(list[Any], value) for name in left_out(named, one)]
    if not isinstance(named, GraphQLInputObjectType) or not isinstance(value, dict):
        return []
    given = cast(dict[str, Any], value)
    types = {name: str(one.type) for name, one in named.fields.items()}
    missing = [name for name, type in types.items() if type.endswith("!") and name not in given]
    return missing + [name for key, one in given.items() for name in left_out(type_called(types[key]), one)]


def type_called(written: str) -> object:
    """The type that is named within `[Name!]!`."""
    return PUBLIC.type_map[written.strip("[]!")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_gives_all_that_the_editor_would_miss(path: Path):
    _, operation, given = example_of(path)
    for one in operation.variable_definitions or ():
        assert left_out(type_called(print_ast(one.type)), given.get(one.variable.name.value)) == []


def test_the_editor_is_told_of_scalars_that_the_schema_has():
    source = (SOURCES / "src" / "main.jsx").read_text(encoding="utf-8")
    told = re.findall(r"(\w+): \{ type:", re.findall(r"SCALARS = (.*);", source)[0])
    assert told
    assert all(isinstance(PUBLIC.type_map[name], GraphQLScalarType) for name in told)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_says_what_to_replace(path: Path):
    comment = " ".join(
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    _, _, given = example_of(path)
    for wanted in re.findall(r"paste (the \w+'s id) here", json.dumps(given)):
        assert f"Put {wanted} into the variables" in comment


def test_importing_the_playground_reads_no_file():
    script = (
        "import sys, builtins, pathlib\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and seen.append(str(args[0])))\n"
        "import xzepr.api.console.playground\n"
        "assert not [path for path in seen if '/console/static' in path], seen\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
