"""Nothing in the package is unused: functions and classes, found by their names."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "xzepr"

# Found by their module, called by alembic's migrations, or called by libraries whose methods they override.
USED_ELSEWHERE = {
    "backup",
    "apply",
    "demo",
    "logout",
    "whoami",
    "run_sql_beside",
    "capture_signals",
    "enter_directive",
    "enter_variable",
    "on_body",
    "on_header",
    "on_headers_complete",
    "on_message_complete",
}
# Other decorators register a function with a library, which then calls it.
DECORATORS = {"asynccontextmanager", "cache", "cached_property", "classmethod", "contextmanager", "property"}


def nodes() -> Iterator[ast.AST]:
    """Yields every node of every module."""
    for path in PACKAGE.rglob("*.py"):
        yield from ast.walk(ast.parse(path.read_bytes()))


def is_used_by_name(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Returns whether a function or class is used by its name or not at all."""
    decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
    return not node.name.startswith("__") and (isinstance(node, ast.ClassDef) or decorators <= DECORATORS)


def test_every_function_is_used() -> None:
    defined, used = set[str](), set[str]()
    for node in nodes():
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() if is_used_by_name(node):
                defined.add(node.name)
            case ast.Attribute(attr=name) | ast.Name(id=name):
                used.add(name)
            case _:
                pass
    assert defined - used == USED_ELSEWHERE
