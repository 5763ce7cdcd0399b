"""The language rules of CONTRIBUTING.md, as far as a machine can check them."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAX_TEST_NAME = 60
MAX_FIRST_SENTENCE = 20
MAX_PAGE_WORDS = 1500
MAX_MODULES = 24
GENERATED_PAGES = {"docs/reference/command_line.md", "docs/reference/settings.md"}

PYTHON = sorted(path for folder in ("xzepr", "tests", "migrations") for path in (ROOT / folder).rglob("*.py"))
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "tests/faults/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
OTHERS = [ROOT / "schema.graphql", ROOT / "Makefile", ROOT / ".importlinter", *sorted((ROOT / ".ci").iterdir())]

BANNED = re.compile(
    r"(?:^|(?<=[.!?:;]\s)|(?<=\"\"\"))(?:Who|Whoever)\s"
    r"|\b(?:told|somebody|nobody|meanwhile|anew|so many)\b"
    r"|\bof (?:its|their|our|your|his|her|my) own\b"
    r"|\b(?:go|goes|going|went|gone) on\b",
    re.IGNORECASE | re.MULTILINE,
)
NOT_WORDS = {'"nobody"'}  # a user account of Unix
# A first sentence that starts with one of these has no noun yet.
VAGUE_START = re.compile(
    r"(?:The same|It|They|All of them|Those|That|What|Whatever|Who|Whoever|Whose|Whom|One (?:of|that|who))\b"
)
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_SENTENCE_END = re.compile(r"(?<=[.!?:])\s|\n\n")


def name_of(path: Path) -> str:
    """Returns the path of a file from the repository."""
    return path.relative_to(ROOT).as_posix()


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the comments and strings of a Python file, or the text of another one without code, with their lines."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
                yield token.start[0], token.string
    else:
        plain = _CODE.sub(lambda match: "\n" * match[0].count("\n"), text)
        yield from enumerate(plain.split("\n"), 1)


def docstrings_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yields every docstring of a Python file with its line."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), text


def first_sentence(text: str) -> str:
    """Returns the first sentence of a docstring."""
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def test_text_has_no_banned_words() -> None:
    found = [
        f"{name_of(path)}:{line}: {match[0]!r} in {text.strip()[:100]!r}"
        for path in [*PYTHON, *PAGES, *OTHERS]
        if path != Path(__file__)
        for line, text in prose_of(path)
        if text not in NOT_WORDS
        for match in BANNED.finditer(text)
    ]
    assert not found, "\n".join(found)


def test_docstrings_start_with_a_short_sentence() -> None:
    long = [
        f"{name_of(path)}:{line}: {first_sentence(text)}"
        for path in PYTHON
        for line, text in docstrings_of(path)
        if len(first_sentence(text).split()) > MAX_FIRST_SENTENCE
    ]
    assert not long, "\n".join(long)


def test_docstrings_start_with_a_noun_or_verb() -> None:
    vague = [
        f"{name_of(path)}:{line}: {first_sentence(text)}"
        for path in PYTHON
        for line, text in docstrings_of(path)
        if VAGUE_START.match(text)
    ]
    assert not vague, "\n".join(vague)


def test_test_names_are_short() -> None:
    names = [
        (name_of(path), node.name)
        for path in PYTHON
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert len(names) > 1000
    assert not [name for name in names if len(name[1]) > MAX_TEST_NAME]


def test_pages_have_at_most_1500_words() -> None:
    words = {name_of(path): len(path.read_text(encoding="utf-8").split()) for path in PAGES}
    assert not {page: count for page, count in words.items() if count > MAX_PAGE_WORDS}.keys() - GENERATED_PAGES


def test_package_has_at_most_24_modules() -> None:
    packages = {path.parent for path in PYTHON}
    sizes = {name_of(package): len([path for path in PYTHON if path.parent == package]) for package in packages}
    assert not {package: size for package, size in sizes.items() if size > MAX_MODULES}


@pytest.mark.parametrize(
    "text",
    [
        "Who asks gets it.",
        "It ends. Whoever waits",
        "is told why",
        "Nobody knows",
        "a pool of its own",
        "it goes on",
        "so many of",
    ],
)
def test_banned_words_are_found(text: str) -> None:
    assert BANNED.search(text)


@pytest.mark.parametrize("text", ["those who wait", "its own pool", "on the go", "sold", "the one who"])
def test_similar_words_are_allowed(text: str) -> None:
    assert not BANNED.search(text)
