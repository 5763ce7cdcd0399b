"""The shape of the house: what `.importlinter` cannot say. A new name in a room fails until somebody has decided."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "xzepr"
LINES = 300

# Rooms whose files are layers (xzepr/, api/ and each feature) are decided in `.importlinter`; these are the others.
ROOMS = {
    "xzepr/core": "actor backoff clock errors exact_json ids paging text",
    "xzepr/infra": "cache crypto db embedded/ kafka/ migrate revisions telemetry/",
    "xzepr/infra/embedded": "account binaries cluster folder launch leftover server",
    "xzepr/infra/kafka": "bootstrap cluster latest producer topics",
    "xzepr/infra/telemetry": "logs metrics traces",
    "xzepr/settings": "around files keys load model reference shown types variables work",
    "xzepr/cli": "alone apply client config demo desired events gates handover hub_file keys live login lookup migrate "
    "options output places protocols report schema serve session signals start stream stream_status supervisor "
    "tail throwaway units users waiting watch web work worker",
    "xzepr/api/console": "playground static/",
    "xzepr/api/graphql": "accounts answers capacity complexity connection context dead_letters documents events "
    "execution fields groups guards http loaders messages operations paging plan problems processes pulse receivers "
    "recording refusals relay scalars schema sessions sharing sse stream variables websocket",
}
ROLES = {"base", "bases", "common", "helper", "helpers", "manager", "managers", "misc", "util", "utils"}


def modules(folder: Path) -> Iterator[Path]:
    """Every Python file below a folder."""
    return (path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """The dotted name of all that a file imports, with what it takes from there."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_is_longer_than_300_lines() -> None:
    long = {str(path.relative_to(ROOT)): count for path in modules(HOUSE) if (count := _lines(path)) > LINES}
    assert not long


def _lines(path: Path) -> int:
    return len(path.read_text().splitlines())


def test_store_is_imported_only_by_its_feature() -> None:
    strangers = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(HOUSE)
        for name in imported(path)
        if _feature_of_store(name) not in (None, _feature_of(path))
    ]
    assert not strangers


def _feature_of_store(name: str) -> str | None:
    match name.split("."):
        case ["xzepr", "features", feature, module, *_] if module.endswith("store"):
            return feature
        case _:
            return None


def _feature_of(path: Path) -> str | None:
    parts = path.relative_to(HOUSE).parts
    return parts[1] if parts[0] == "features" else None


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_of_a_package_is_listed(room: str) -> None:
    decided = set(ROOMS[room].split())
    found = {f"{path.name}/" if path.is_dir() else path.stem for path in (ROOT / room).iterdir()}
    undecided = found - decided - {"__init__", "__pycache__/"}
    assert not undecided, f"decide where {undecided} belong, and if it is {room}, say so in ROOMS"


def test_every_package_is_listed() -> None:
    folders = {path.parent.relative_to(ROOT).as_posix() for path in modules(HOUSE)}
    layered = {"xzepr", "xzepr/api", "xzepr/features"}
    unknown = {room for room in folders - layered - ROOMS.keys() if not room.startswith("xzepr/features/")}
    assert not unknown, f"decide what {unknown} are for, and say in ROOMS what may be in them"


def test_features_are_flat_packages() -> None:
    assert not [path for path in modules(HOUSE / "features") if len(path.relative_to(HOUSE).parts) > 3]


def test_no_module_has_a_vague_name() -> None:
    everywhere = [*modules(HOUSE), *modules(ROOT / "tests")]
    roles = [str(path) for path in everywhere if ROLES & {path.stem, *path.relative_to(ROOT).parts}]
    assert not roles


def test_every_module_has_a_docstring() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in modules(HOUSE)
        if path.read_bytes().strip() and not ast.get_docstring(ast.parse(path.read_bytes()))
    ]
    assert not silent
