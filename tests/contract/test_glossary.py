"""The glossary: one sorted table, whose code names are the classes of the features."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "xzepr"

# Modules of features whose classes are not terms: SQL, pure rules, and the internals of JSON Schema.
WITHOUT_TERMS = {"expansion", "references", "rules", "schemas"}

_ROW = re.compile(
    r"^\| (?P<term>[^`|]+) \| (?P<code>(?:`\w+`(?:, )?)*) ?\| (?P<modules>(?:`[\w/.]+`(?:, )?)*) ?"
    r"\| (?P<meaning>[^|]+) \|$"
)


def rows() -> list[re.Match[str]]:
    """Returns the rows of the table."""
    text = (ROOT / "docs" / "reference" / "glossary.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    matches = [_ROW.match(line) for line in lines]
    assert [line for line, match in zip(lines, matches, strict=True) if match is None] == []
    return [match for match in matches if match is not None]


def code_names() -> set[str]:
    """Returns the classes that the glossary names."""
    return {name for row in rows() for name in re.findall(r"\w+", row["code"])}


def classes(path: Path) -> Iterator[str]:
    """Yields the public classes of a module."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def test_every_class_of_a_feature_is_in_the_glossary() -> None:
    modules = [
        path
        for path in (PACKAGE / "features").rglob("*.py")
        if not path.stem.endswith("store") and path.stem not in WITHOUT_TERMS
    ]
    assert {name for path in modules for name in classes(path)} - {"Unchanged"} - code_names() == set()


def test_every_code_name_of_the_glossary_exists() -> None:
    assert code_names() - {name for path in PACKAGE.rglob("*.py") for name in classes(path)} == set()


def test_glossary_is_sorted_by_term() -> None:
    terms = [row["term"].casefold() for row in rows()]
    assert terms == sorted(set(terms))


def test_glossary_names_the_modules_of_its_classes() -> None:
    for row in rows():
        modules = re.findall(r"[\w/.]+", row["modules"])
        found = {name for module in modules for name in classes(PACKAGE / module)}
        assert set(re.findall(r"\w+", row["code"])) <= found, row["term"]
        assert all(set(classes(PACKAGE / module)) & code_names() for module in modules), row["term"]
