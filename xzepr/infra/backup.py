"""Backups of the database, made and restored by PostgreSQL's own programs from the wheel of the embedded server."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from xzepr.core.errors import CannotStart
from xzepr.infra.db import conninfo_of
from xzepr.infra.embedded import programs_folder

_TABLES = """
SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg_toast%'
"""


def dump(url: str, file: Path) -> int:
    """Writes the database to a new file in pg_dump's custom format, and returns its size in bytes.

    The content is that of one moment; the hub may be running. Raises CannotStart if the file exists or pg_dump
    fails.
    """
    if file.exists():
        raise CannotStart(f"{file} exists: a backup never replaces a file")
    partial = file.with_name(f"{file.name}.partial")
    try:
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        _run("pg_dump", url, "--format=custom", f"--file={partial}")
        partial.rename(file)
    except OSError as error:
        raise CannotStart(f"{file} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return file.stat().st_size


def restore(url: str, file: Path) -> None:
    """Reads a file of `dump` into an empty database, all or nothing.

    Raises CannotStart if the file cannot be read or the database has tables.
    """
    if not os.access(file, os.R_OK):
        raise CannotStart(f"{file} cannot be read")
    try:
        with psycopg.connect(conninfo_of(url), autocommit=True) as connection:
            row = connection.execute(_TABLES).fetchone()
    except psycopg.Error as error:
        raise CannotStart(f"the database cannot be reached: {str(error).strip()}") from None
    if row and row[0]:
        raise CannotStart(f"the database has {row[0]} tables: a backup is restored into an empty database only")
    _run("pg_restore", url, "--single-transaction", "--exit-on-error", str(file))


def _run(program: str, url: str, *arguments: str) -> None:
    """Runs a program on the database. The password is passed in the environment, where `ps` does not show it."""
    parameters = conninfo_to_dict(conninfo_of(url))
    password = parameters.pop("password", None)
    environment = os.environ | ({"PGPASSWORD": str(password)} if password else {})
    options: Sequence[str] = ("--no-owner", "--no-privileges", f"--dbname={make_conninfo('', **parameters)}")
    command = [str(programs_folder() / program), *options, *arguments]
    ended = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
    if ended.returncode != 0:
        raise CannotStart(f"{program} failed: {ended.stderr.strip()}")
