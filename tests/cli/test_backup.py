"""`xzepr backup` and `xzepr restore`, on an embedded and on an external database."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from tests.support.clients import Client
from tests.support.command_line import CommandLineUser
from tests.support.postgres import temporary_folder
from tests.support.requests import new_event
from tests.support.server import ServedHub, copy_data_folder

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { event { id } } }"


async def record(hub: ServedHub) -> str:
    """Records an event and returns its id."""
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    response = await client(CREATE, input=new_event(await client.receiver("build")))
    return response.data["createEvent"]["event"]["id"]


async def read(hub: ServedHub, id: str) -> str:
    """Returns the id of the event, read from the hub."""
    client = await Client(hub.url).logged_in("admin", hub.admin_password)
    return (await client("query ($id: ID!) { event(id: $id) { id } }", id=id)).data["event"]["id"]


def relations(url: str) -> int:
    """Returns the number of tables and indexes of the hub."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace").fetchone()
    assert row is not None
    return row[0]


def test_restored_hub_has_the_events_and_users(anonymous: CommandLineUser) -> None:
    with temporary_folder() as folder:
        hub = ServedHub.start(copy_data_folder(folder / "data"))
        try:
            id = asyncio.run(record(hub))
            saved = anonymous("backup", "hub.dump", "--data-dir", str(hub.data_dir))
            assert (saved.code, saved.err) == (0, "")
            assert "hub.dump: " in saved.out
        finally:
            hub.stop()
        restored = anonymous("restore", "hub.dump", "--data-dir", str(folder / "other"))
        assert (restored.code, restored.err) == (0, "")
        second = ServedHub.start(folder / "other")
        try:
            assert asyncio.run(read(second, id)) == id
        finally:
            second.stop()


def test_external_database_is_saved_and_restored(
    anonymous: CommandLineUser, database_url: str, empty_database_url: str
) -> None:
    saved = anonymous("backup", "hub.dump", environ={"DATABASE_URL": database_url})
    assert (saved.code, saved.err) == (0, "")
    assert (anonymous.folder / "hub.dump").stat().st_mode & 0o077 == 0
    restored = anonymous("restore", "hub.dump", environ={"DATABASE_URL": empty_database_url})
    assert (restored.code, restored.err) == (0, "")
    assert relations(empty_database_url) == relations(database_url) > 20


def test_backup_never_replaces_a_file(anonymous: CommandLineUser, database_url: str) -> None:
    (anonymous.folder / "hub.dump").write_text("precious")
    refused = anonymous("backup", "hub.dump", environ={"DATABASE_URL": database_url})
    assert (refused.code, refused.err) == (1, "xzepr: hub.dump exists: a backup never replaces a file\n")
    assert (anonymous.folder / "hub.dump").read_text() == "precious"


def test_restore_needs_an_empty_database(anonymous: CommandLineUser, database_url: str) -> None:
    (anonymous.folder / "hub.dump").write_bytes(b"PGDMP")
    refused = anonymous("restore", "hub.dump", environ={"DATABASE_URL": database_url})
    assert refused.code == 1
    assert "an empty database only" in refused.err


@pytest.mark.parametrize("content", [b"", b"not a backup", b"PGDMP\x01\x10\x00"], ids=["empty", "text", "truncated"])
def test_damaged_backup_leaves_the_database_empty(
    anonymous: CommandLineUser, empty_database_url: str, content: bytes
) -> None:
    (anonymous.folder / "hub.dump").write_bytes(content)
    refused = anonymous("restore", "hub.dump", environ={"DATABASE_URL": empty_database_url})
    assert refused.code == 1
    assert refused.err.startswith("xzepr: pg_restore failed: ")
    assert relations(empty_database_url) == 0


def test_url_in_the_form_of_sqlalchemy_is_accepted(anonymous: CommandLineUser, database_url: str) -> None:
    url = database_url.replace("postgresql://", "postgresql+psycopg://")
    assert url != database_url
    saved = anonymous("backup", "hub.dump", environ={"DATABASE_URL": url})
    assert (saved.code, saved.err) == (0, "")


def test_backup_of_no_hub_is_refused(anonymous: CommandLineUser, tmp_path: Path) -> None:
    refused = anonymous("backup", "hub.dump", "--data-dir", str(tmp_path / "none"))
    assert refused.code == 1
    assert "there is no hub in the data folder" in refused.err
    assert not (tmp_path / "none").exists()
