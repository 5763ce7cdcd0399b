"""The playground's page, files and security policy, and the sources of its bundle."""

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
    """Returns the response of an application that has only the playground."""
    transport = httpx2.ASGITransport(Starlette(routes=playground.playground_routes()))
    async with httpx2.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        return await client.get(path, headers=headers)


async def test_page_references_only_bundled_files():
    response = await get("/graphql/playground")
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    references = re.findall(r'(?:src|href)="([^"]+)"', response.text)
    assert {name.removeprefix("playground/") for name in references if not name.startswith("data:")} <= set(
        MANIFEST["files"]
    )
    assert "<style" not in response.text
    assert not re.search(r"<script[^>]*>[^<]", response.text)


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in MANIFEST["files"] if name != "index.html")])
async def test_every_response_carries_the_security_policy(path: str):
    response = await get(f"/graphql/playground{path}")
    assert response.status_code == 200
    directives = response.headers["content-security-policy"].split("; ")
    assert dict(directive.split(" ", 1) for directive in directives) == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", [name for name in MANIFEST["files"] if name.endswith((".js", ".css", ".ttf"))])
async def test_asset_is_served_as_immutable_with_its_type(name: str):
    response = await get(f"/graphql/playground/{name}")
    expected = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".ttf": "font/ttf"}
    assert response.headers["content-type"] == expected[Path(name).suffix]
    assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert response.headers["content-encoding"] == "gzip"
    assert hashlib.sha256(response.content).hexdigest() == MANIFEST["files"][name]["sha256"]


@pytest.mark.parametrize("path", ["/graphql/playground", "/graphql/playground/manifest.json"])
async def test_file_with_stable_name_is_revalidated(path: str):
    assert (await get(path)).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2f__init__.py", "%2e%2e/playground.py", "static"])
async def test_file_outside_bundle_is_not_found(name: str):
    assert (await get(f"/graphql/playground/{name}")).status_code == 404


def test_bundle_matches_its_manifest():
    files = {path.name: path.read_bytes() for path in playground.STATIC.iterdir() if path.name != "manifest.json"}
    assert {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} for name, content in files.items()
    } == MANIFEST["files"]


def test_bundle_was_built_from_current_sources():
    source_files = [
        *(path for path in (SOURCES / "src").rglob("*") if path.is_file()),
        *(SOURCES / n for n in ("build.mjs", "package.json", "package-lock.json")),
    ]
    sources = {str(path.relative_to(SOURCES).as_posix()): path.read_bytes() for path in source_files}
    assert {name: hashlib.sha256(content).hexdigest() for name, content in sources.items()} == MANIFEST["sources"]


def test_bundled_packages_match_the_lock_file():
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    locked = {
        (path.rpartition("node_modules/")[2], package["version"]) for path, package in lock["packages"].items() if path
    }
    third_party = (playground.STATIC / "THIRD_PARTY.txt").read_text(encoding="utf-8")
    for package in MANIFEST["packages"]:
        assert (package["name"], package["version"]) in locked
        assert package["licence"] in {"MIT", "Apache-2.0", "BSD-2-Clause", "0BSD"}
        assert f"{package['name']} {package['version']} — {package['licence']}\n" in third_party


def test_lock_file_pins_packages_by_hash():
    lock = json.loads((SOURCES / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for path, package in lock["packages"].items() if path]
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert not any("resolved" in package for package in packages)


def test_readme_tables_match_the_manifest():
    readme = (SOURCES / "README.md").read_text(encoding="utf-8")
    packages = [f"| {entry['name']} | {entry['version']} | {entry['licence']} |" for entry in MANIFEST["packages"]]
    files = [f"| `{name}` | {entry['bytes']} | `{entry['sha256']}` |" for name, entry in MANIFEST["files"].items()]
    for mark, rows in (("packages", packages), ("files", files)):
        listed = readme.partition(f"<!-- {mark} -->\n")[2].partition(f"<!-- /{mark} -->")[0].splitlines()[2:]
        assert listed == rows


EXAMPLES = sorted((SOURCES / "src" / "examples").glob("*.graphql"))


def example_of(path: Path) -> tuple[DocumentNode, OperationDefinitionNode, dict[str, Any]]:
    """Returns an example's document, its operation and its variables."""
    document = parse(path.read_text(encoding="utf-8"))
    (operation,) = document.definitions
    assert isinstance(operation, OperationDefinitionNode)
    variables_file = path.with_suffix(".json")
    values: dict[str, Any] = json.loads(variables_file.read_text(encoding="utf-8")) if variables_file.exists() else {}
    return document, operation, values


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_sets_all_required_variables(path: Path):
    _, operation, values = example_of(path)
    assert operation.name is not None
    variables = operation.variable_definitions or ()
    declared = {variable.variable.name.value: isinstance(variable.type, NonNullTypeNode) for variable in variables}
    assert set(values) <= set(declared)
    assert {name for name, required in declared.items() if required} <= set(values)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_valid_against_public_schema(path: Path):
    document, operation, values = example_of(path)
    assert validate(PUBLIC, document) == []
    coerced = get_variable_values(PUBLIC, operation.variable_definitions or (), values)
    assert not isinstance(coerced, list), coerced


def omitted_fields(input_type: object, value: Any) -> list[str]:
    """Returns the non-null fields that the value omits, including those with a default in the schema."""
    if isinstance(value, list):
        return [name for item in cast(list[Any], value) for name in omitted_fields(input_type, item)]
    if not isinstance(input_type, GraphQLInputObjectType) or not isinstance(value, dict):
        return []
    entries = cast(dict[str, Any], value)
    types = {name: str(field.type) for name, field in input_type.fields.items()}
    omitted = [name for name, type in types.items() if type.endswith("!") and name not in entries]
    return omitted + [name for key, entry in entries.items() for name in omitted_fields(named_type(types[key]), entry)]


def named_type(expression: str) -> object:
    """Returns the type in a type expression such as `[Name!]!`."""
    return PUBLIC.type_map[expression.strip("[]!")]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_sets_all_non_null_fields(path: Path):
    _, operation, values = example_of(path)
    for variable in operation.variable_definitions or ():
        assert omitted_fields(named_type(print_ast(variable.type)), values.get(variable.variable.name.value)) == []


def test_scalars_of_the_editor_exist_in_schema():
    source = (SOURCES / "src" / "main.jsx").read_text(encoding="utf-8")
    scalars = re.findall(r"(\w+): \{ type:", re.findall(r"SCALARS = (.*);", source)[0])
    assert scalars
    assert all(isinstance(PUBLIC.type_map[name], GraphQLScalarType) for name in scalars)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_comment_explains_placeholders(path: Path):
    comment = " ".join(
        line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")
    )
    _, _, values = example_of(path)
    for placeholder in re.findall(r"paste (the \w+'s id) here", json.dumps(values)):
        assert f"Put {placeholder} into the variables" in comment


def test_importing_playground_reads_no_file():
    script = (
        "import sys, builtins, pathlib\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: event == 'open' and opened.append(str(args[0])))\n"
        "import xzepr.api.console.playground\n"
        "assert not [path for path in opened if '/console/static' in path], opened\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
