"""Migrations on a real PostgreSQL run once, atomically and only on a compatible schema."""

import asyncio
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

import xzepr
from xzepr.core.errors import CannotStart
from xzepr.infra.embedded.account import choose_account
from xzepr.infra.embedded.binaries import find_binaries
from xzepr.infra.migrate import check, migrate, pending, script

_SHIM = """
from xzepr.infra.migrate import run_sql_beside
revision = "{revision}"
down_revision = {before!r}
oldest_server = "{oldest}"
def upgrade() -> None:
    run_sql_beside(__file__{arguments})
"""

_SERVER = """
import pathlib, sys
from xzepr.infra.migrate import migrate
migrate(sys.argv[1], report=print, folder=pathlib.Path(sys.argv[2]))
"""


def _write(
    folder: Path, revision: str, sql: str, *, before: str | None = None, oldest: str = "0.1.0", arguments: str = ""
) -> None:
    text = _SHIM.format(revision=revision, before=before, oldest=oldest, arguments=arguments)
    (folder / f"{revision}_it.py").write_text(text)
    (folder / f"{revision}_it.sql").write_text(sql)


@pytest.fixture
def two_revisions(tmp_path: Path) -> Path:
    """A folder with two revisions. Their SQL holds every character that a driver or tool might interpret."""
    _write(
        tmp_path, "0001", "CREATE TABLE one (a text DEFAULT '50% of :all %s %(x)s');\nINSERT INTO one DEFAULT VALUES;\n"
    )
    _write(tmp_path, "0002", "CREATE TABLE two (b int);\nINSERT INTO two VALUES (2);\n", before="0001")
    return tmp_path


def _query(url: str, statement: str) -> object:
    """Returns the first column of the first row; None if there is no row."""
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    return None if row is None else row[0]


def test_migrated_database_passes_check(database_url: str) -> None:
    check(database_url)
    assert pending(database_url) == []
    assert migrate(database_url, report=print) == []


def test_revision_records_oldest_compatible_server(database_url: str) -> None:
    assert _query(database_url, "SELECT oldest_server FROM schema_revision WHERE revision = '0001'") == "0.1.0"
    assert _query(database_url, "SELECT applied_by FROM schema_revision WHERE revision = '0001'") == xzepr.__version__


def test_empty_database_is_rejected_with_migrate_hint(empty_database_url: str) -> None:
    with pytest.raises(CannotStart, match=r"lacks the migration 0001.*run `xzepr migrate`"):
        check(empty_database_url)
    assert _query(empty_database_url, "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == 0


def test_migration_sql_runs_verbatim(empty_database_url: str, two_revisions: Path) -> None:
    assert migrate(empty_database_url, report=print, folder=two_revisions) == ["0001", "0002"]
    assert _query(empty_database_url, "SELECT a FROM one") == "50% of :all %s %(x)s"


def test_migration_needs_no_superuser(empty_database_url: str) -> None:
    if _query(empty_database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        pytest.skip("the user of XZEPR_TEST_DATABASE_URL is a superuser")
    assert migrate(empty_database_url, report=print)


async def test_concurrent_servers_migrate_once(empty_database_url: str) -> None:
    applied = await asyncio.gather(*(asyncio.to_thread(migrate, empty_database_url, report=print) for _ in range(4)))
    assert sorted(applied, reverse=True) == [all_revisions(), [], [], []]


def all_revisions() -> list[str]:
    """Returns the names of all revisions of this server."""
    folder = Path(xzepr.__file__).parents[1] / "migrations"
    return sorted(path.name.split("_")[0] for path in folder.glob("0*.sql"))


async def test_concurrent_index_does_not_block_writers(empty_database_url: str, two_revisions: Path) -> None:
    sql = (
        "DROP INDEX IF EXISTS i;\nCREATE INDEX CONCURRENTLY i ON two (b);\nCREATE TABLE IF NOT EXISTS three (c int);\n"
    )
    migrate(empty_database_url, report=print, folder=two_revisions)
    _write(two_revisions, "0003", sql, before="0002", arguments=", in_transaction=False")
    with psycopg.connect(empty_database_url) as open_transaction:
        open_transaction.execute("INSERT INTO two VALUES (3)")
        migration = asyncio.create_task(
            asyncio.to_thread(migrate, empty_database_url, report=print, folder=two_revisions)
        )
        waits = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'CREATE INDEX%' AND wait_event_type = 'Lock'"
        await asyncio.to_thread(_wait_for_row, empty_database_url, waits.replace("%", "%%"))
        with psycopg.connect(empty_database_url, options="-c lock_timeout=5000") as writer:
            writer.execute("INSERT INTO two VALUES (4)")
        open_transaction.commit()
    assert await migration == ["0003"]
    assert _query(empty_database_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'i'::regclass") is True
    assert _query(empty_database_url, "SELECT to_regclass('three')::text") == "three"
    check(empty_database_url, folder=two_revisions)


def test_revision_without_transaction_can_be_repeated(empty_database_url: str, two_revisions: Path) -> None:
    sql = "CREATE TABLE IF NOT EXISTS three (c int);\nSELECT 1 / 0;\n"
    _write(two_revisions, "0003", sql, before="0002", arguments=", in_transaction=False")
    with pytest.raises(CannotStart, match="division by zero"):
        migrate(empty_database_url, report=print, folder=two_revisions)
    assert pending(empty_database_url, folder=two_revisions) == ["0003"]
    _write(two_revisions, "0003", sql.replace("0", "1"), before="0002", arguments=", in_transaction=False")
    assert migrate(empty_database_url, report=print, folder=two_revisions) == ["0003"]


def test_failed_revision_is_rolled_back_alone(empty_database_url: str, two_revisions: Path) -> None:
    _write(two_revisions, "0003", "CREATE TABLE three (c int); SELECT 1 / 0;", before="0002")
    with pytest.raises(CannotStart, match="division by zero"):
        migrate(empty_database_url, report=print, folder=two_revisions)
    assert _query(empty_database_url, "SELECT to_regclass('three')") is None
    assert pending(empty_database_url, folder=two_revisions) == ["0003"]


def test_migration_resumes_after_killed_server(empty_database_url: str, two_revisions: Path) -> None:
    _write(two_revisions, "0003", "CREATE TABLE three (c int); SELECT pg_sleep(600);", before="0002")
    server = subprocess.Popen([sys.executable, "-c", _SERVER, empty_database_url, str(two_revisions)])
    sleeping = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
    try:
        backend = _wait_for_row(empty_database_url, sleeping)
    finally:
        server.kill()
        server.wait()
    assert _query(empty_database_url, "SELECT to_regclass('three')") is None
    # The backend notices its dead client only at its next write. Here it would continue to sleep.
    assert _query(empty_database_url, f"SELECT pg_terminate_backend({backend}, 10000)") is True
    _write(two_revisions, "0003", "CREATE TABLE three (c int)", before="0002")
    assert migrate(empty_database_url, report=print, folder=two_revisions) == ["0003"]
    check(empty_database_url, folder=two_revisions)


def _wait_for_row(url: str, statement: str) -> object:
    """Waits up to 30 seconds for a row. Returns its first column."""
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(3000):
            if (row := connection.execute(statement.encode()).fetchone()) is not None:
                return row[0]
            connection.execute("SELECT pg_sleep(0.01)")
    raise AssertionError(f"no row: {statement}")


async def test_waiting_for_another_migration_is_reported(empty_database_url: str) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def report(line: str) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    with psycopg.connect(empty_database_url, autocommit=True) as holder:
        holder.execute("SELECT pg_advisory_lock(%s)", [0x787A657072])
        waiting = asyncio.create_task(asyncio.to_thread(migrate, empty_database_url, report=report))
        assert "waiting for another server" in await asyncio.wait_for(lines.get(), 10)
        assert pending(empty_database_url)
    assert await waiting


def test_outdated_schema_is_rejected(empty_database_url: str, two_revisions: Path) -> None:
    migrate(empty_database_url, report=print, folder=two_revisions)
    _write(two_revisions, "0003", "CREATE TABLE three (c int)", before="0002")
    with pytest.raises(CannotStart, match="lacks the migration 0003: run `xzepr migrate`"):
        check(empty_database_url, folder=two_revisions)


def test_compatible_newer_schema_is_accepted(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO schema_revision VALUES ('9999', '0.0.9', '9.9.9')")
        connection.execute("UPDATE schema_version SET version_num = '9999'")
    check(database_url)
    assert migrate(database_url, report=print) == []


def test_incompatible_newer_schema_is_rejected(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO schema_revision VALUES ('9999', '0.10.0', '0.10.0')")
        connection.execute("UPDATE schema_version SET version_num = '9999'")
    with pytest.raises(CannotStart, match=r"needs xzepr 0\.10\.0 or newer.*upgrade this server"):
        check(database_url)
    with pytest.raises(CannotStart, match=r"needs xzepr 0\.10\.0 or newer"):
        migrate(database_url, report=print)


def test_migrations_of_another_program_are_rejected(empty_database_url: str, two_revisions: Path) -> None:
    migrate(empty_database_url, report=print, folder=two_revisions)
    with psycopg.connect(empty_database_url) as connection:
        connection.execute("UPDATE schema_revision SET revision = 'abcd' WHERE revision = '0002'")
    with pytest.raises(CannotStart, match=r"does not know .abcd. and lacks 0002"):
        migrate(empty_database_url, report=print, folder=two_revisions)


def test_printed_sql_matches_migrate(empty_database_url: str, two_revisions: Path) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(script(folder=two_revisions).encode())
    check(empty_database_url, folder=two_revisions)
    _write(two_revisions, "0003", "CREATE TABLE three (c int); SELECT '%';", before="0002")
    pending_sql = script(empty_database_url, folder=two_revisions)
    assert "three" in pending_sql
    assert "CREATE TABLE two" not in pending_sql
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute(pending_sql.encode())
    check(empty_database_url, folder=two_revisions)
    assert script(empty_database_url, folder=two_revisions) == ""
    assert _query(empty_database_url, "SELECT version_num FROM schema_version") == "0003"


def test_printed_hub_migrations_can_be_run(empty_database_url: str, tmp_path: Path) -> None:
    psql = find_binaries(choose_account(tmp_path, tmp_path), tmp_path) / "psql"
    command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", empty_database_url]
    subprocess.run(command, input=script(empty_database_url).encode(), check=True)
    check(empty_database_url)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_common_url_schemes_are_accepted(database_url: str, scheme: str) -> None:
    check(database_url.replace("postgresql", scheme, 1))


def test_unreachable_database_error_hides_password() -> None:
    with pytest.raises(CannotStart) as error:
        check("postgresql://hub:s3cretword@127.0.0.1:1/hub")
    assert "127.0.0.1:1" in str(error.value)
    assert "refused" in str(error.value)
    assert "s3cretword" not in str(error.value)


@pytest.mark.parametrize("url", ["postgresql://hub:s3cret/word@host/hub", "mysql://hub:s3cret@host/hub", "nonsense"])
def test_malformed_url_error_hides_password(url: str) -> None:
    with pytest.raises(CannotStart, match="database URL cannot be read") as error:
        check(url)
    assert "s3cret" not in str(error.value)
