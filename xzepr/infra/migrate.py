"""Brings a database to this server's schema, and refuses one that does not fit it; revisions are plain SQL, forward only."""

import contextlib
import io
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from alembic import op
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from psycopg.conninfo import conninfo_to_dict

import xzepr
from xzepr.core.errors import CannotStart

OLDEST_POSTGRES = 15
_LOCK = 0x787A657072  # "xzepr": one lock for all migrations of a database
_LOCK_POLL_SECONDS = 0.2
_FIRST_WORD_SECONDS = 3.0
_NEXT_WORD_SECONDS = 10.0
_CONNECT_SECONDS = 10

_revisions = sa.table("schema_revision", sa.column("revision"), sa.column("oldest_server"), sa.column("applied_by"))
_CREATE_REVISIONS = sa.text(
    "CREATE TABLE IF NOT EXISTS schema_revision (revision text PRIMARY KEY, oldest_server text NOT NULL,"
    " applied_by text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
)


def migrate(url: str, *, say: Callable[[str], None], folder: Path | None = None) -> list[str]:
    """Apply what is missing, each revision in one transaction, and return the revisions applied.

    Of several servers that start at once one migrates and the others wait. Raises CannotStart as `check` does, except
    that a schema which is only too old is no reason.
    """
    scripts = _scripts(folder)
    with _open(url) as connection, _locked(connection, say):
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
    _run(scripts, {"dialect_name": "postgresql"}, {"as_sql": True, "output_buffer": out, "starting_rev": start})
    return out.getvalue()


def check(url: str, *, folder: Path | None = None) -> None:
    """Return if this server and the database's schema fit each other; otherwise raise CannotStart, saying what to do."""
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
    context.connection.connection.driver_connection.execute(sql.encode())


def _scripts(folder: Path | None) -> ScriptDirectory:
    if folder is None:
        package = Path(xzepr.__file__).parent
        inside, beside = package / "migrations", package.parent / "migrations"
        folder = inside if inside.exists() else beside
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
    def steps(heads: str | tuple[str, ...], _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("head", heads)

    def note(ctx: MigrationContext, step: MigrationInfo, **_: object) -> None:
        revision = step.up_revision
        values = {"revision": revision.revision, "oldest_server": revision.module.oldest_server}
        ctx.execute(_CREATE_REVISIONS)
        ctx.execute(sa.insert(_revisions).values(**values, applied_by=xzepr.__version__))

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
def _open(url: str) -> Iterator[sa.Connection]:
    """One connection, made by psycopg so that every form of URL that libpq takes will do."""
    engine = sa.create_engine("postgresql+psycopg://", creator=lambda: _connect(url), poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection


def _connect(url: str) -> psycopg.Connection[Any]:
    conninfo = re.sub(r"^(postgres|postgresql)(\+\w+)?://", "postgresql://", url)
    try:
        parts = conninfo_to_dict(conninfo)
    except psycopg.Error:
        raise CannotStart("the database URL cannot be read: it should look like postgresql://user@host/name") from None
    place = f"{parts.get('host') or 'the local socket'}{':' + str(parts['port']) if 'port' in parts else ''}"
    limits = {"connect_timeout": _CONNECT_SECONDS, "application_name": "xzepr migrate"}
    try:
        connection = psycopg.connect(conninfo, **{name: value for name, value in limits.items() if name not in parts})
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        if password := parts.get("password"):
            reason = reason.replace(str(password), "***")
        raise CannotStart(f"the database at {place} cannot be reached: {reason}") from None
    found = connection.info.server_version // 10000
    if found < OLDEST_POSTGRES:
        connection.close()
        raise CannotStart(f"the database at {place} is PostgreSQL {found}: xzepr needs {OLDEST_POSTGRES} or newer")
    return connection


@contextlib.contextmanager
def _locked(connection: sa.Connection, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the migration lock. It is polled: a transaction that waits for a lock would block CREATE INDEX CONCURRENTLY."""
    started = time.monotonic()
    word = started + _FIRST_WORD_SECONDS
    while not _ask(connection, sa.func.pg_try_advisory_lock(_LOCK)):
        if time.monotonic() >= word:
            say(f"waiting for another server to migrate the database ({time.monotonic() - started:.0f} s so far)")
            word += _NEXT_WORD_SECONDS
        time.sleep(_LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.invalidated:
            _ask(connection, sa.func.pg_advisory_unlock(_LOCK))


def _ask(connection: sa.Connection, call: sa.Function[Any]) -> bool:
    with connection.begin():
        return bool(connection.scalar(sa.select(call)))


def _numbers(version: str) -> tuple[int, ...]:
    """A version as numbers that compare: 1.10.0 after 1.9.2; what follows them, as in 1.0.0rc1, does not count."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()
