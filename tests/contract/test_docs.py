"""The documentation: links, names and tables are correct, and the commands of the tutorial run."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import build_schema, parse, validate

from tests.contract.console_blocks import Block, blocks, run
from tests.support.server import serving
from xzepr.cli import FAMILIES
from xzepr.features.stream.kinds import KINDS
from xzepr.settings import KafkaSettings
from xzepr.settings.registry import keys, sections

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xzepr"
DOCS = ROOT / "docs"
DECISIONS = sorted((DOCS / "adr").glob("[0-9]*.md"))
PAGES = {
    path.relative_to(ROOT).as_posix(): path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
}
README_LINES = 60

# Paths are named from the repository, from the package, or from the folder of the page.
FOLDERS = {".ci", "deploy", "docs", "migrations", "tests", "xzepr"} | {path.name for path in PACKAGE.iterdir()}
MODULES = {path.name for folder in ("xzepr", "tests", "migrations") for path in (ROOT / folder).rglob("*.py")}
# Names that look like paths or modules: folders of an installed hub, and topics.
NO_PATHS = {"data/", "keys/", KafkaSettings().topic, KafkaSettings().state_topic}
LOCAL_TO_ONE_MACHINE = re.compile(r"/work/|/home/|/root/|\.\./shared|index-url|artifactory|\bpypi\.", re.IGNORECASE)

# Replaces the `xzepr login` of the page, which asks for the password on a terminal.
LOGIN = Block('echo "$PASSWORD" | xzepr login --username admin --password-stdin', "Logged in to … as admin until …")

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_GRAPHQL = re.compile(r"^```graphql\n(.*?)^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"\w[\w./-]*|\.ci/\w+")
_DOTTED = re.compile(r"(xzepr|tests)(\.[a-z_]\w*)+")
_TREE = re.compile(r"^```\n(xzepr/\n.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Path:
    """Each page of the documentation in turn."""
    return PAGES[request.param]


def prose(path: Path) -> str:
    """Returns a page without its code blocks."""
    return _FENCED.sub("", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> set[str]:
    """Returns the anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path) -> Iterator[str]:
    """Yields the links of a page into this repository that do not resolve."""
    for link in _LINK.findall(prose(path)):
        if "://" in link or link.startswith("mailto:"):
            continue
        target, _, anchor = link.partition("#")
        linked = (path.parent / target).resolve() if target else path
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            yield link


def test_every_link_resolves(page: Path) -> None:
    assert list(broken_links(page)) == []


def missing_paths(text: str, folder: Path) -> Iterator[str]:
    """Yields the files, folders and modules that a text names in backquotes and that do not exist."""
    for code in set(_CODE.findall(text)) - NO_PATHS:
        path = code.replace(".", "/") if _DOTTED.fullmatch(code) else code
        if not _PATH.fullmatch(path):
            continue
        if "/" not in path:
            exists = not path.endswith(".py") or path in MODULES
        elif path.split("/")[0] in FOLDERS or path.endswith((".py", "/")):
            candidates = [parent / path for parent in (ROOT, PACKAGE, folder)]
            exists = any(file.exists() or file.with_suffix(".py").exists() for file in candidates)
        else:
            exists = True  # a media type, a JSON pointer and the like
        if not exists:
            yield code


def paths_of_trees(text: str) -> Iterator[str]:
    """Yields the paths of the folder trees in a page: one name a line, indented by two spaces a level."""
    for tree in _TREE.findall(text):
        folders: list[str] = []
        for line in tree.splitlines():
            name = line.split()[0]
            folders[(len(line) - len(line.lstrip())) // 2 :] = [name]
            if "." in name or name.endswith("/"):
                yield "".join(folders)


def test_every_named_path_exists(page: Path) -> None:
    assert list(missing_paths(prose(page), page.parent)) == []
    assert [path for path in paths_of_trees(page.read_text(encoding="utf-8")) if not (ROOT / path).exists()] == []


def test_every_path_named_in_the_code_exists() -> None:
    missing = {
        path.relative_to(ROOT).as_posix(): names
        for path in PACKAGE.rglob("*.py")
        if (names := list(missing_paths(path.read_text(encoding="utf-8"), path.parent)))
    }
    assert missing == {}


def test_page_names_nothing_local_to_one_machine(page: Path) -> None:
    assert LOCAL_TO_ONE_MACHINE.findall(page.read_text(encoding="utf-8")) == []


def test_every_named_setting_exists(page: Path) -> None:
    setting = re.compile(rf"({'|'.join(name for name in sections() if name)})(\.[a-z_]+)+")
    files = {".py", ".md", ".yaml"}
    names = {code for code in _CODE.findall(prose(page)) if setting.fullmatch(code) and Path(code).suffix not in files}
    assert names - keys().keys() - sections().keys() == set()


def test_every_named_make_target_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(encoding="utf-8"), re.MULTILINE)) <= set(targets)


def test_every_named_command_exists(page: Path) -> None:
    names = set(re.findall(r"(?:`|^)xzepr ([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.MULTILINE))
    assert names <= {family.name for family in FAMILIES}


def test_graphql_examples_are_valid(page: Path) -> None:
    schema = build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))
    examples = _GRAPHQL.findall(page.read_text(encoding="utf-8"))
    assert [error.message for example in examples for error in validate(schema, parse(example))] == []


def test_every_page_is_reachable_from_readme() -> None:
    reached, waiting = set[Path](), [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        links = (link.partition("#")[0] for link in _LINK.findall(prose(path)) if "://" not in link)
        waiting += [(path.parent / link).resolve() for link in links if link]
    assert {name for name, path in PAGES.items() if path not in reached} == set()


def test_readme_fits_one_screen() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= README_LINES


def test_table_of_kinds_matches_the_code() -> None:
    text = (DOCS / "reference" / "stream.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| `\w+\.\w+` \|", line)]
    assert rows == [
        f"| `{kind.value}` | {facts.meaning} | `{facts.permission.value}` | `{facts.graphql_type}` "
        f"| `{facts.cloudevent_type}` |"
        for kind, facts in KINDS.items()
    ]


def test_decisions_are_numbered_in_order() -> None:
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(\d+\. .+)\]\((\S+)\): .+\.$", index, re.MULTILINE)
    written = [(path.name, path.read_text(encoding="utf-8").splitlines()[0]) for path in DECISIONS]
    assert written == sorted((name, f"# {title}") for title, name in listed)
    assert [int(path.name[:4]) for path in DECISIONS] == list(range(1, len(DECISIONS) + 1))


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda path: path.stem)
def test_decision_has_the_standard_sections(decision: Path) -> None:
    headings = re.findall(r"^## (.+)$", decision.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences"]


def test_tutorial_commands_print_documented_output(tmp_path: Path) -> None:
    tutorial = blocks(DOCS / "tutorials" / "first_gate.md")
    session = [LOGIN, *tutorial, *blocks(DOCS / "how_to" / "report_from_a_pipeline.md")]
    (tmp_path / "docs").symlink_to(DOCS)
    with serving() as hub:
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "XZEPR_HUB": hub.url,
            "PASSWORD": hub.admin_password,
        }
        replacements = {"localhost:8042": hub.url.removeprefix("http://")}
        outputs = run(session, folder=tmp_path, environment=environment, replacements=replacements)
    differences = [
        (block.output, output) for block, output in zip(session, outputs, strict=True) if not block.printed(output)
    ]
    assert differences == []
    assert len(tutorial) >= 7


def test_tutorial_shows_the_hub_file_that_it_applies() -> None:
    page = (DOCS / "tutorials" / "first_gate.md").read_text(encoding="utf-8")
    assert f"```yaml\n{(DOCS / 'tutorials' / 'hub.yaml').read_text(encoding='utf-8')}```" in page


def test_blocks_can_be_pasted(page: Path) -> None:
    blocks = re.findall(
        r"^```(?:bash|console|sh)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert [line for block in blocks for line in block.splitlines() if line.startswith(("$ ", "> "))] == []
