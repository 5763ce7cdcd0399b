"""GraphQL documents: limits on their size, which is counted in linear time, and their cache."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import perf_counter

import pytest
from graphql import build_schema

from xzepr.api.errors import DocumentNotParsed, DocumentNotValid, DocumentTooComplex
from xzepr.api.graphql_server.documents import Document, DocumentLimits, Documents
from xzepr.core.errors import Problem

SCHEMA = build_schema("type Query { a: Query b: Query c: Int }")
LIMITS = DocumentLimits(max_chars=100_000, max_tokens=10_000, max_depth=10, max_aliases=8, max_selections=100)


def new_documents(limits: DocumentLimits = LIMITS, cache_size: int = 10) -> Documents:
    return Documents(SCHEMA, limits, cache_size)


def bomb(levels: int, level: str) -> str:
    """Returns fragments that each use the next one as `level` shows, so that their sizes multiply."""
    fragments = " ".join(f"fragment F{n} on Query {{ {level.replace('NEXT', f'...F{n + 1}')} }}" for n in range(levels))
    return f"{{ ...F0 }} {fragments} fragment F{levels} on Query {{ c }}"


def leaves(fragments: int) -> str:
    """Returns fragments that all select the same field."""
    return " ".join(f"fragment F{n} on Query {{ c }}" for n in range(fragments))


def circles(fragments: int) -> str:
    """Returns fragments that each use all others, so that there are `fragments!` paths through them."""
    numbers = range(fragments)
    return " ".join(f"fragment F{n} on Query {{ {' '.join(f'...F{m}' for m in numbers if m != n)} }}" for n in numbers)


@pytest.mark.parametrize(
    "text",
    [
        "{" + "a{" * 9 + "c" + "}" * 9 + "}",
        "{ " + " ".join(f"x{n}: c" for n in range(8)) + " }",
        "{ " + " ".join(f"x{n}: a {{ ...F }}" for n in range(4)) + " } fragment F on Query { y: c }",
        "{ " + "c " * 100 + "}",
        "{ ... { ... on Query { ...F } } } fragment F on Query { c }",
    ],
)
def test_document_at_the_limits_is_valid(text: str) -> None:
    documents = new_documents()
    documents.validate(documents.parse(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{" + "a{" * 10 + "c" + "}" * 10 + "}", "deeper than 10"),
        ("{ " + "a{" * 5 + "...F" + "}" * 5 + " } fragment F on Query { a{a{a{a{a{c}}}}} }", "deeper than 10"),
        ("{ " + " ".join(f"x{n}: c" for n in range(9)) + " }", "more aliases than 8"),
        (
            "{ " + " ".join(f"x{n}: a {{ ...F }}" for n in range(5)) + " } fragment F on Query { y: c }",
            "aliases than 8",
        ),
        ("{ " + "c " * 101 + "}", "more selections than 100"),
        ("{ c } fragment Unused on Query { " + "c " * 101 + "}", "more selections than 100"),
        ("{ c " + " " * 100_000 + "}", "longer than 100000 characters"),
        ("{ " + "c " * 10_000 + "}", "more than 10000 tokens"),
        ("{ c }" + "#\n" * 10_001, "more than 10000 tokens or comments"),
        (bomb(400, "NEXT"), "deeper than 300"),
        ("{ ...F0 } " + circles(12), "form a cycle|selections than"),
    ],
)
def test_document_beyond_a_limit_is_rejected(text: str, message: str) -> None:
    with pytest.raises(DocumentTooComplex, match=message):
        new_documents().parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "{ " + "c " * 300 + "}",
        "{ " + "a { c } " * 150 + "}",
        "{ " + ("a { " + "c " * 30 + "} ") * 10 + "}",
        "{ " + "... { c } " * 300 + "}",
        "{ " + "...F " * 300 + "} fragment F on Query { c }",
        "{ "
        + " ".join(f"...F{n}" for n in range(300))
        + " } "
        + "".join(f"fragment F{n} on Query {{c}}" for n in range(300)),
        "{ c } fragment Unused on Query { " + "c " * 300 + "}",
    ],
)
def test_document_slow_to_validate_is_rejected(text: str) -> None:
    with pytest.raises(DocumentTooComplex, match="same fields too often"):
        new_documents(DocumentLimits()).parse(text)


def test_many_operations_do_not_count_as_repetition() -> None:
    documents = new_documents(DocumentLimits())
    text = " ".join(f"query q{n} {{ ...F }}" for n in range(500)) + " fragment F on Query { c a { c } }"
    documents.validate(documents.parse(text))


@pytest.mark.parametrize("level", ["NEXT NEXT", "a { NEXT } b { NEXT }", "x: a { NEXT } y: a { NEXT }"])
def test_doubled_fragments_are_counted_in_linear_time(level: str) -> None:
    documents = new_documents(replace(LIMITS, max_depth=1000))

    def seconds(levels: int) -> float:
        text = bomb(levels, level)
        return min(_seconds(lambda: documents.parse(text)) for _ in range(3))

    # 2^200 visits would never end. Ten times the text may take ten times as long; the margin is for a busy machine.
    assert seconds(200) < 40 * seconds(20) + 0.05


def _seconds(act: Callable[[], object]) -> float:
    begun = perf_counter()
    with suppress(DocumentTooComplex):
        act()
    return perf_counter() - begun


@pytest.mark.parametrize(
    "text",
    [
        "{ ...F } fragment F on Query { ...F }",
        "{ ...F } fragment F on Query { a { ...G } } fragment G on Query { b { ...F } }",
    ],
)
def test_circular_fragments_are_invalid(text: str) -> None:
    documents = new_documents()
    document = documents.parse(text)
    assert document.root_fields(document.operation(None)[0]) <= {"a"}
    with pytest.raises(DocumentNotValid):
        documents.validate(document)


def test_document_errors_have_locations() -> None:
    with pytest.raises(DocumentNotParsed) as malformed:
        new_documents().parse("{\n c !")
    assert malformed.value.errors[0]["locations"] == [{"line": 2, "column": 4}]
    documents = new_documents()
    with pytest.raises(DocumentNotValid) as invalid:
        documents.validate(documents.parse("{ x y }"))
    assert [error["locations"] for error in invalid.value.errors] == [
        [{"line": 1, "column": 3}],
        [{"line": 1, "column": 5}],
    ]


def test_only_valid_documents_are_cached() -> None:
    documents = new_documents()
    good, bad = documents.parse("{ c }"), documents.parse("{ x }")
    documents.validate(good)
    with pytest.raises(Problem):
        documents.validate(bad)
    assert documents.parse("{ c }") is good
    assert documents.parse("{ x }") is not bad


def test_least_recently_used_document_is_evicted_first() -> None:
    documents = new_documents(cache_size=2)
    kept: dict[str, Document] = {}
    for text in ("{ c }", "{ a { c } }"):
        kept[text] = documents.parse(text)
        documents.validate(kept[text])
    documents.parse("{ c }")
    documents.validate(documents.parse("{ b { c } }"))
    assert documents.parse("{ c }") is kept["{ c }"]
    assert documents.parse("{ a { c } }") is not kept["{ a { c } }"]


def test_long_document_takes_more_of_the_cache() -> None:
    documents = new_documents(cache_size=2)
    short = documents.parse("{ c }")
    documents.validate(short)
    documents.validate(documents.parse("{ c }" + " " * 5000))
    assert documents.parse("{ c }") is not short


def test_anonymous_document_is_not_cached() -> None:
    documents = new_documents()
    document = documents.parse("{ c }")
    documents.validate(document, anonymous=True)
    assert documents.parse("{ c }") is not document


def test_disabled_cache_keeps_no_documents() -> None:
    documents = new_documents(cache_size=0)
    document = documents.parse("{ c }")
    documents.validate(document)
    assert documents.parse("{ c }") is not document
