"""Migrations: applies the missing SQL files to a database, and rejects an incompatible database. Forward only."""

import contextlib
import io
import re
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

import psycopg
import sqlalchemy as sa
from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationInfo, MigrationStep
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from sqlalchemy.exc import DBAPIError

import xzepr
from xzepr.core.errors import CannotStart
from xzepr.infra import revisions
from xzepr.infra.db import conninfo_of
from xzepr.infra.session import check_encoding, migration_sql, with_encoding

OLDEST_POSTGRES = 15
_LOCK_ID = 0x787A657072  # "xzepr": the advisory lock for all migrations of a database
_LOCK_POLL_SECONDS = 0.2
_FIRST_REPORT_SECONDS = 3.0  # until a wait for the lock is reported
_REPORT_SECONDS = 10.0  # between further reports
_CONNECT_TIMEOUT_SECONDS = 10

_revisions = sa.table(
    "schema_revision",
    sa.column("revision", sa.Text),
    sa.column("oldest_server", sa.Text),
    sa.column("applied_by", sa.Text),
)
_CREATE_REVISIONS = sa.text(
    "CREATE TABLE IF NOT EXISTS schema_revision (revision text PRIMARY KEY, oldest_server text NOT NULL,"
    " applied_by text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
)


def migrate(url: str, *, report: Callable[[str], None], folder: Path | None = None) -> list[str]:
    """Applies the missing revisions, each in its own transaction, and returns them.

    If several servers start at the same time, one migrates and the others wait, which `report` gets as a message.
    Raises CannotStart if the schema belongs to another or a newer server.
    """
    scripts = _scripts(folder)
    with connected(url) as connection:
        _lock(connection, report)
        missing = _missing(connection, scripts)
        if missing:
            _run(scripts, {"connection": connection})
        return missing


def pending(url: str, *, folder: Path | None = None) -> list[str]:
    """Returns the revisions that `migrate` would apply, oldest first. Raises CannotStart like `migrate`."""
    with connected(url) as connection:
        return _missing(connection, _scripts(folder))


def script(url: str | None = None, *, folder: Path | None = None) -> str:
    """Returns the SQL that migrates the database, or an empty database if there is no URL, for psql."""
    scripts = _scripts(folder)
    revision_ids = _revision_ids(scripts)
    missing = revision_ids if url is None else pending(url, folder=folder)
    if not missing:
        return ""
    out = io.StringIO()
    applied = len(revision_ids) - len(missing)
    start = revision_ids[applied - 1] if applied else None
    _run(
        scripts,
        {"dialect_name": "postgresql"},
        {"as_sql": True, "literal_binds": True, "output_buffer": out, "starting_rev": start},
    )
    return out.getvalue()


def check(url: str, *, folder: Path | None = None) -> None:
    """Raises CannotStart, with what to do, unless the database's schema is compatible with this server."""
    if missing := pending(url, folder=folder):
        raise CannotStart(f"the database lacks the migration {', '.join(missing)}: run `xzepr migrate`")


def run_sql_beside(revision_file: str, *, in_transaction: bool = True) -> None:
    """Runs the `.sql` file with the name of a revision's file, unchanged. Each revision's `upgrade` calls it.

    Outside a transaction, as `CREATE INDEX CONCURRENTLY` needs, the file must be able to run again after a part of it.
    """
    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    if in_transaction:
        _execute(sql)
        return
    context = op.get_context()
    with context.autocommit_block():
        # In one call, even separate statements would be one transaction.
        for statement in [sql] if context.as_sql else sql.split(";\n"):
            _execute(statement)


def _execute(sql: str) -> None:
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(sql)
        return
    # Called directly and without parameters, psycopg sends the text unchanged, even if it has several statements.
    connection = cast("psycopg.Connection[Any]", op.get_bind().connection.driver_connection)
    connection.execute(sql.encode())


def _scripts(folder: Path | None) -> ScriptDirectory:
    folder = folder or revisions.folder()
    return ScriptDirectory(folder, version_locations=[folder])


def _revision_ids(scripts: ScriptDirectory) -> list[str]:
    return [script.revision for script in scripts.walk_revisions()][::-1]


def _missing(connection: sa.Connection, scripts: ScriptDirectory) -> list[str]:
    """Returns this server's revisions that the database lacks. Raises CannotStart if they are incompatible."""
    applied = _applied(connection)
    revision_ids = _revision_ids(scripts)
    oldest = max(applied.values(), key=_version_numbers, default="0")
    if _version_numbers(oldest) > _version_numbers(xzepr.__version__):
        raise CannotStart(
            f"this database needs xzepr {oldest} or newer, and this is {xzepr.__version__}: upgrade this server"
        )
    missing = [revision for revision in revision_ids if revision not in applied]
    if missing and (unknown := applied.keys() - set(revision_ids)):
        raise CannotStart(
            f"the database has migrations that this server does not know ({', '.join(sorted(unknown))}) and lacks"
            f" {', '.join(missing)}: another version of xzepr migrated it; use that version or another database"
        )
    return missing


def _applied(connection: sa.Connection) -> Mapping[str, str]:
    """Returns the oldest compatible server version by applied revision."""
    with connection.begin():
        if connection.scalar(sa.text("SELECT to_regclass('schema_revision')")) is None:
            return {}
        rows = connection.execute(sa.select(_revisions.c.revision, _revisions.c.oldest_server))
        return {row.revision: row.oldest_server for row in rows}


def _run(scripts: ScriptDirectory, target: dict[str, Any], options: Mapping[str, Any] | None = None) -> None:
    """Applies the missing revisions, and records the oldest compatible server version of each."""

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> list[MigrationStep]:
        newest_first = list(scripts.iterate_revisions("heads", heads, implicit_base=True))
        return [MigrationStep.upgrade_from_script(scripts.revision_map, script) for script in reversed(newest_first)]

    def record(ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
        (revision,) = step.up_revision_ids
        oldest_server: str = scripts.get_revision(revision).module.oldest_server
        values = {"revision": revision, "oldest_server": oldest_server, "applied_by": xzepr.__version__}
        ctx.execute(_CREATE_REVISIONS)
        ctx.execute(sa.insert(_revisions).values(values))

    context = MigrationContext.configure(
        **target,
        opts={
            "fn": steps,
            "version_table": "schema_version",
            "transaction_per_migration": True,
            "on_version_apply": (record,),
            **(options or {}),
        },
    )
    with Operations.context(context):
        context.run_migrations()


@contextlib.contextmanager
def connected(url: str) -> Generator[sa.Connection]:
    """Opens a connection with psycopg, so that all forms of libpq URLs work."""
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: _connect(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise CannotStart(f"the database rejected a statement: {_one_line(error.orig)}") from None
    except psycopg.Error as error:
        raise CannotStart(f"a migration failed and was rolled back: {_one_line(error)}") from None


def _connect(url: str) -> psycopg.Connection[Any]:
    parts = _parts(conninfo_of(url))
    address = f"{parts.get('host') or 'the local socket'}{':' + str(parts['port']) if 'port' in parts else ''}"
    defaults = {"connect_timeout": _CONNECT_TIMEOUT_SECONDS, "application_name": "xzepr migrate"}
    try:
        connection = psycopg.connect(with_encoding(make_conninfo("", **{**defaults, **parts})))
    except psycopg.Error as error:
        reason = _one_line(error)
        if password := parts.get("password"):
            reason = reason.replace(str(password), "***")
        raise CannotStart(f"the database at {address} cannot be reached: {reason}") from None
    version = connection.info.server_version // 10000
    if version < OLDEST_POSTGRES:
        connection.close()
        raise CannotStart(f"the database at {address} is PostgreSQL {version}: xzepr needs {OLDEST_POSTGRES} or newer")
    try:
        check_encoding(connection.info.parameter_status("server_encoding"))
        connection.execute(migration_sql().encode())
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection


def _parts(conninfo: str) -> dict[str, Any]:
    """Returns the parts of a URL. Errors do not quote it, because a password with a `/` looks like a port."""
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.Error:
        parts = None
    if parts is None or not re.fullmatch(r"[\d,]*", str(parts.get("port", ""))):
        raise CannotStart("the database URL cannot be read: it should look like postgresql://user@host:5432/name")
    return parts


def _lock(connection: sa.Connection, report: Callable[[str], None]) -> None:
    """Takes the migration lock, which is held until the connection closes.

    It polls, because a transaction that waits for the lock would deadlock with another server's CREATE INDEX
    CONCURRENTLY.
    """
    started = time.monotonic()
    next_report = started + _FIRST_REPORT_SECONDS
    while not _try_lock(connection):
        if time.monotonic() >= next_report:
            report(f"waiting for another server to migrate the database ({time.monotonic() - started:.0f} s so far)")
            next_report += _REPORT_SECONDS
        time.sleep(_LOCK_POLL_SECONDS)


def _try_lock(connection: sa.Connection) -> bool:
    with connection.begin():
        return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK_ID))))


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def _version_numbers(version: str) -> tuple[int, ...]:
    """Returns a version as numbers, so that 1.10.0 sorts after 1.9.2. A suffix, as in 1.0.0rc1, is ignored."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
