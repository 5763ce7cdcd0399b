"""Fixtures for every test: a real PostgreSQL, and a fresh database in it for each test that asks."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import Databases, databases, migrated_template

# How long an example takes says more about what else the machine does: tests that mean a time measure it themselves.
settings.register_profile("hub", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("hub")

pytest_plugins = [
    "tests.support.hub",
    "tests.support.kafka",
    "tests.support.server",
    "tests.support.command_line",
    "tests.support.browser",
    "tests.faults.runner.report",
]


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: more workers than processors, since half of the time tests wait; each has a PostgreSQL."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(processors + (processors + 1) // 2, 12)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Databases]:
    """The PostgreSQL of this test process."""
    with databases() as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres_server: Databases) -> Iterator[str]:
    """The name of a migrated database that tests get clones of."""
    with migrated_template(postgres_server) as name:
        yield name


@pytest.fixture
def database_url(postgres_server: Databases, template_database: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    with postgres_server.database(template_database) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: Databases) -> Iterator[str]:
    """The URL of a database of this test's own with nothing in it."""
    with postgres_server.database() as url:
        yield url
