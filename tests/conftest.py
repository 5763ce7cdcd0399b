"""Fixtures for all tests: a PostgreSQL server and, on request, a fresh database in it for each test."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import Databases, databases, migrated_template

# The duration of an example depends on the load of the machine. Tests with a time limit measure it themselves.
settings.register_profile("hub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hub")

pytest_plugins = [
    "tests.support.hub",
    "tests.support.kafka",
    "tests.support.long_history",
    "tests.support.server",
    "tests.support.command_line",
    "tests.support.browser",
    "tests.support.separate_tests",
    "tests.faults.runner.report",
]


def pytest_xdist_auto_num_workers() -> int:
    """Returns the number of workers for `-n auto`: 1.5 per processor, at most 12.

    Tests wait for half of their time. Each worker runs its own PostgreSQL.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors + (processors + 1) // 2, 12)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Databases]:
    """The PostgreSQL server of this test process."""
    with databases() as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: Databases) -> Iterator[str]:
    """The name of a migrated database that is cloned for each test."""
    with migrated_template(postgres_server) as name:
        yield name


@pytest.fixture
def database_url(postgres_server: Databases, template_database: str) -> Iterator[str]:
    """The URL of a migrated database for this test alone."""
    with postgres_server.database(template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: Databases) -> Iterator[str]:
    """The URL of an empty database for this test alone."""
    with postgres_server.database() as url:
        yield url
