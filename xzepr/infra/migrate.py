"""Brings a database to this server's schema, and refuses one that does not fit; plain SQL, forward only."""

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

OLDEST_POSTGRES = 15
_LOCK = 0x787A657072  # "xzepr": one lock for all migrations of a database
_LOCK_POLL_SECONDS = 0.2
_FIRST_WORD_SECONDS = 3.0
_NEXT_WORD_SECONDS = 10.0
_CONNECT_SECONDS = 10

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
    """Apply what is missing, each revision in one transaction, and return the revisions applied.

    Of several servers that start at once one migrates and the others wait. Raises CannotStart as `check` does, except
    that a schema which is only too old is no reason.
    """
    scripts = _scripts(folder)
    with _open(url) as connection:
        _lock(connection, report)
        missing = _missing(connection, scripts)
        if missing:
            _run(scripts, {"connection": connection})
        return missing


def pending(url: str, *, folder: Path | None = None) -> list[str]:
    """The revisions that `migrate` would apply, oldest first."""
    with _open(url) as connection:
        return _missing(connection, _scripts(folder))


def script(url: str | None = None, *, folder: Path | None = None) -> str:
    """The SQL that brings the database to this server's schema, for psql; without a URL, an empty database."""
    scripts = _scripts(folder)
    missing = _ours(scripts) if url is None else pending(url, folder=folder)
    if not missing:
        return ""
    out = io.StringIO()
    applied = len(_ours(scripts)) - len(missing)
    start = _ours(scripts)[applied - 1] if applied else None
    _run(
        scripts,
        {"dialect_name": "postgresql"},
        {"as_sql": True, "literal_binds": True, "output_buffer": out, "starting_rev": start},
    )
    return out.getvalue()


def check(url: str, *, folder: Path | None = None) -> None:
    """Return if this server and the database's schema fit each other; else raise CannotStart, saying what to do."""
    if missing := pending(url, folder=folder):
        raise CannotStart(f"the database lacks the migration {', '.join(missing)}: run `xzepr migrate`")


def run_sql_beside(revision_file: str) -> None:
    """For a revision's `upgrade`: run the `.sql` of the same name whole, with no character of it interpreted."""
    sql = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(sql)
        return
    # The driver itself: without parameters psycopg sends the text as it is, and several statements at once.
    connection = cast("psycopg.Connection[Any]", op.get_bind().connection.driver_connection)
    connection.execute(sql.encode())


def _scripts(folder: Path | None) -> ScriptDirectory:
    folder = folder or revisions.folder()
    return ScriptDirectory(folder, version_locations=[folder])


def _ours(scripts: ScriptDirectory) -> list[str]:
    return [found.revision for found in scripts.walk_revisions()][::-1]


def _missing(connection: sa.Connection, scripts: ScriptDirectory) -> list[str]:
    """This server's revisions that the database lacks. Raises CannotStart where a newer server's schema excludes us."""
    applied = _applied(connection)
    ours = _ours(scripts)
    oldest = max(applied.values(), key=_numbers, default="0")
    if _numbers(oldest) > _numbers(xzepr.__version__):
        raise CannotStart(
            f"this database needs xzepr {oldest} or newer, and this is {xzepr.__version__}: upgrade this server"
        )
    missing = [revision for revision in ours if revision not in applied]
    if missing and (strange := applied.keys() - set(ours)):
        raise CannotStart(
            f"the database has migrations that this server does not know ({', '.join(sorted(strange))}) and lacks"
            f" {', '.join(missing)}: it belongs to another xzepr; name another database, or use that server"
        )
    return missing


def _applied(connection: sa.Connection) -> Mapping[str, str]:
    """Each revision the database has, and the oldest server that works with it."""
    with connection.begin():
        if connection.scalar(sa.text("SELECT to_regclass('schema_revision')")) is None:
            return {}
        rows = connection.execute(sa.select(_revisions.c.revision, _revisions.c.oldest_server))
        return {row.revision: row.oldest_server for row in rows}


def _run(scripts: ScriptDirectory, target: dict[str, Any], options: Mapping[str, Any] | None = None) -> None:
    """Apply what alembic finds missing, and note with each revision the oldest server that works with it."""

    def steps(heads: tuple[str, ...], _context: MigrationContext) -> list[MigrationStep]:
        newest_first = list(scripts.iterate_revisions("heads", heads, implicit_base=True))
        return [MigrationStep.upgrade_from_script(scripts.revision_map, found) for found in reversed(newest_first)]

    def note(ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
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
            "on_version_apply": (note,),
            **(options or {}),
        },
    )
    with Operations.context(context):
        context.run_migrations()


@contextlib.contextmanager
def _open(url: str) -> Generator[sa.Connection]:
    """One connection, made by psycopg so that every form of URL that libpq takes will do."""
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: _connect(url), poolclass=sa.NullPool)
    try:
        with engine.connect() as connection:
            yield connection
    except DBAPIError as error:
        raise CannotStart(f"the database refused: {_one_line(error.orig)}") from None
    except psycopg.Error as error:
        raise CannotStart(f"a migration failed, and nothing of it was kept: {_one_line(error)}") from None


def _connect(url: str) -> psycopg.Connection[Any]:
    parts = _parts(conninfo_of(url))
    place = f"{parts.get('host') or 'the local socket'}{':' + str(parts['port']) if 'port' in parts else ''}"
    defaults = {"connect_timeout": _CONNECT_SECONDS, "application_name": "xzepr migrate"}
    try:
        connection = psycopg.connect(make_conninfo("", **{**defaults, **parts}))
    except psycopg.Error as error:
        reason = _one_line(error)
        if password := parts.get("password"):
            reason = reason.replace(str(password), "***")
        raise CannotStart(f"the database at {place} cannot be reached: {reason}") from None
    found = connection.info.server_version // 10000
    if found < OLDEST_POSTGRES:
        connection.close()
        raise CannotStart(f"the database at {place} is PostgreSQL {found}: xzepr needs {OLDEST_POSTGRES} or newer")
    return connection


def _parts(conninfo: str) -> dict[str, Any]:
    """The URL by its parts. What cannot be read is not repeated: with a `/` in it, a password looks like a port."""
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.Error:
        parts = None
    if parts is None or not re.fullmatch(r"[\d,]*", str(parts.get("port", ""))):
        raise CannotStart("the database URL cannot be read: it should look like postgresql://user@host:5432/name")
    return parts


def _lock(connection: sa.Connection, say: Callable[[str], None]) -> None:
    """Hold the migration lock until the connection closes. It is polled, because a transaction that waits for it
    would deadlock with another server's CREATE INDEX CONCURRENTLY.
    """
    started = time.monotonic()
    word = started + _FIRST_WORD_SECONDS
    while not _try_lock(connection):
        if time.monotonic() >= word:
            say(f"waiting for another server to migrate the database ({time.monotonic() - started:.0f} s so far)")
            word += _NEXT_WORD_SECONDS
        time.sleep(_LOCK_POLL_SECONDS)


def _try_lock(connection: sa.Connection) -> bool:
    with connection.begin():
        return bool(connection.scalar(sa.select(sa.func.pg_try_advisory_lock(_LOCK))))


def _one_line(error: BaseException | None) -> str:
    return " ".join(str(error).split())


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare: 1.10.0 after 1.9.2; what follows them, as in 1.0.0rc1, does not count."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
