"""The structure of the package, where `.importlinter` cannot check it. Every new module must be listed here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xzepr"
LINES = 300

# The modules of each package. `.importlinter` lists those of xzepr/, xzepr/api/ and each feature, which are layers.
MODULES = {
    "xzepr/core": "actor backoff clock errors exact_json frozen ids lru_cache paging repeated_keys text",
    "xzepr/infra": "backup binary cache concurrency crypto db embedded/ files kafka/ keyset migrate notifications "
    "pipeline revisions session telemetry/",
    "xzepr/infra/embedded": "account binaries cluster folder launch leftover memory server",
    "xzepr/infra/kafka": "bootstrap cluster latest producer topics",
    "xzepr/infra/telemetry": "counting logs metrics traces",
    "xzepr/settings": "domain environment kafka load masking model reference registry security server storage types "
    "yaml_core yaml_files",
    "xzepr/server": "bounded_http http_server loops refusals request_starts signals single_process startup "
    "supervisor uvicorn_http uvicorn_protocols uvicorn_server work_process worker worker_config",
    "xzepr/cli": "accounts/ apply apply_plan boundary client/ demo event_input events gates hub_file local/ options "
    "output serve stream stream_status tail throwaway times version watch work yaml_reader",
    "xzepr/cli/local": "backup config keys migrate schema",
    "xzepr/cli/client": "credentials http lookup subscription units waiting",
    "xzepr/api/console": "playground static/",
    "xzepr/api/graphql": "accounts context dead_letters errors event_mutations events group_mutations groups "
    "messages paging permissions receiver_mutations receivers scalars schema snapshots status "
    "stream",
    "xzepr/api/graphql_server": "complexity connection documents errors http keep_alive limits liveness operations "
    "plans/ protocol request_body requests responses sessions socket_operations "
    "socket_writer sse websocket",
    "xzepr/api/graphql_server/plans": "arguments batches compiler conversions execution input_code leaves levels "
    "plan program rendered resolvers row_code variables",
    "xzepr/cli/accounts": "api_keys login users",
}
VAGUE_NAMES = {"base", "bases", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def modules(folder: Path) -> Iterator[Path]:
    """Returns every Python file below a folder."""
    return (path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports: modules, and names from modules."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_is_longer_than_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): count for path in modules(PACKAGE) if (count := _lines(path)) > LINES}
    assert not long


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_store_is_imported_only_by_its_feature() -> None:
    violations = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(PACKAGE)
        for name in imported(path)
        if _feature_of_store(name) not in (None, _feature_of(path))
    ]
    assert not violations


def _feature_of_store(name: str) -> str | None:
    match name.split("."):
        case ["xzepr", "features", feature, module, *_] if module.endswith("store"):
            return feature
        case _:
            return None


def _feature_of(path: Path) -> str | None:
    parts = path.relative_to(PACKAGE).parts
    return parts[1] if parts[0] == "features" else None


@pytest.mark.parametrize("package", MODULES)
def test_every_module_of_a_package_is_listed(package: str) -> None:
    listed = set(MODULES[package].split())
    present = {f"{path.name}/" if path.is_dir() else path.stem for path in (ROOT / package).iterdir()}
    unlisted = present - listed - {"__init__", "__pycache__/"}
    assert not unlisted, f"decide where {unlisted} belong; if that is {package}, list them in MODULES"


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in modules(PACKAGE)}
    layered = {"xzepr", "xzepr/api", "xzepr/features"}
    unlisted = {folder for folder in folders - layered - MODULES.keys() if not folder.startswith("xzepr/features/")}
    assert not unlisted, f"decide what {unlisted} are for, and list their modules in MODULES"


def test_features_are_flat_packages() -> None:
    assert not [path for path in modules(PACKAGE / "features") if len(path.relative_to(PACKAGE).parts) > 3]


def test_no_module_has_a_vague_name() -> None:
    paths = [*modules(PACKAGE), *modules(ROOT / "tests")]
    vague = [str(path) for path in paths if VAGUE_NAMES & {path.stem, *path.relative_to(ROOT).parts}]
    assert not vague


def test_every_module_has_a_docstring() -> None:
    undocumented = [
        str(path.relative_to(ROOT))
        for path in modules(PACKAGE)
        if path.read_bytes().strip() and not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert not undocumented
