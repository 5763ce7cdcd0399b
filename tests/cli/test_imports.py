"""Imports of commands before they run: none that a command does not need, so that it starts quickly."""

import subprocess
import sys

import pytest

SERVER = {"aiokafka", "alembic", "graphql", "jose", "jsonschema_rs", "opentelemetry", "sqlalchemy", "starlette"}
CLIENT = {"httpx2", "rich", "websockets"}  # needed to send a request, to print on a terminal, to follow the stream
SETTINGS = {"argon2", "cryptography", "prometheus_client", "psycopg", "pydantic", "structlog", "yaml"}
LOADED = "import sys; {code}; print(*{{name.partition('.')[0] for name in sys.modules}})"


def loaded_by(code: str) -> set[str]:
    """Returns the top-level modules that are loaded after a new process has run the code."""
    output = subprocess.run(
        [sys.executable, "-c", LOADED.format(code=code)], capture_output=True, text=True, check=True
    )
    return set(output.stdout.split())


@pytest.mark.parametrize("arguments", [[], ["--help"], ["events"], ["gates"], ["stream"], ["login"], ["users"]])
def test_client_command_loads_no_library_of_the_server(arguments: list[str]) -> None:
    loaded = loaded_by(f"from xzepr.cli import assemble; assemble({arguments})")
    assert "typer" in loaded
    assert not loaded & (SERVER | CLIENT | SETTINGS)


@pytest.mark.parametrize("name", ["serve", "work", "config"])
def test_help_of_server_command_loads_no_server(name: str) -> None:
    loaded = loaded_by(f"from xzepr.cli import assemble; assemble(['{name}'])")
    assert "pydantic" in loaded
    assert not loaded & SERVER


def test_database_starts_before_the_server_is_imported() -> None:
    loaded = loaded_by("import xzepr.cli.serve, xzepr.server.single_process, xzepr.server.worker")
    assert "psycopg" in loaded
    assert not loaded & SERVER


def test_garbage_is_collected_once_the_server_is_imported() -> None:
    steps = (
        "import gc; from xzepr.server import startup",
        "startup.import_server(); disabled = not gc.isenabled()",
        "from xzepr.server.http_server import collect_garbage_from_now_on",
        "collect_garbage_from_now_on(); print(disabled, gc.isenabled(), gc.get_freeze_count() > 50_000)",
    )
    output = subprocess.run([sys.executable, "-c", "; ".join(steps)], capture_output=True, text=True, check=True)
    assert output.stdout.split() == ["True", "True", "True"]


def test_worker_loads_no_migrations_and_no_command_line() -> None:
    loaded = loaded_by("from xzepr.server import startup, worker; startup.import_server()")
    assert "strawberry" in loaded
    assert not loaded & {"alembic", "httpx2", "opentelemetry", "sqlalchemy", "typer"}


def test_supervisor_loads_no_server() -> None:
    loaded = loaded_by("import xzepr.cli.serve, xzepr.server.supervisor")
    assert "psycopg" in loaded
    assert not loaded & SERVER
