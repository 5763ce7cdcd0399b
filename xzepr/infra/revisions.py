"""Checks quickly at each start whether a database has exactly this server's revisions.

It needs no alembic and SQLAlchemy, whose import takes most of a second, longer than the rest of a start. `migrate.py`
is imported only if a migration is missing or an error must be explained.
"""

from pathlib import Path

import psycopg

import xzepr
from xzepr.infra.db import conninfo_of
from xzepr.infra.session import check_encoding, with_encoding


def folder() -> Path:
    """Returns the folder of the migrations: inside the package in a wheel, beside it in a checkout."""
    package = Path(xzepr.__file__).parent
    inside = package / "migrations"
    return inside if inside.exists() else package.parent / "migrations"


def are_current(url: str) -> bool:
    """Returns whether the database has this server's revisions and no others.

    It also returns False if the database cannot be queried; `migrate.check` then reports the cause. Raises
    CannotStart if the database cannot hold all texts.
    """
    revisions = {path.stem.partition("_")[0] for path in folder().glob("[0-9]*.sql")}
    try:
        with psycopg.connect(with_encoding(conninfo_of(url)), connect_timeout=10) as connection:
            check_encoding(connection.info.parameter_status("server_encoding"))
            return {row[0] for row in connection.execute("SELECT revision FROM schema_revision")} == revisions
    except psycopg.Error:
        return False
