"""The memory of the embedded PostgreSQL follows that of the machine or container."""

import os
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import embedded, temporary_folder
from xzepr.infra.embedded.memory import shared_buffers


def _limited(folder: Path, name: str, text: str) -> str:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return shared_buffers(folder)


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_buffers_are_an_eighth_of_the_container(tmp_path: Path, name: str) -> None:
    assert _limited(tmp_path, name, f"{2 * 2**30}\n") == "256MB"


def test_buffers_have_bounds(tmp_path: Path) -> None:
    assert _limited(tmp_path, "memory.max", f"{2**20}\n") == "128MB"
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    expected = f"{min(max(machine // 8 // 2**20, 128), 2048)}MB"
    for no_limit in ("max\n", f"{2**63 - 4096}\n"):
        assert _limited(tmp_path, "memory.max", no_limit) == expected
    (tmp_path / "memory.max").unlink()
    assert shared_buffers(tmp_path) == expected


def test_embedded_database_uses_its_share() -> None:
    with temporary_folder() as folder, embedded(folder / "data") as server, psycopg.connect(server.url) as connection:
        row = connection.execute("SELECT pg_size_bytes(current_setting('shared_buffers'))").fetchone()
    assert row == (int(shared_buffers().removesuffix("MB")) * 2**20,)
