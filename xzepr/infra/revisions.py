"""Whether a database has exactly this server's revisions: asked at each start, without loading what migrates it.

Loading alembic and SQLAlchemy takes most of a second, more than all else that a start does; `migrate.py` is imported
only when there is something to apply or to explain.
"""

from pathlib import Path

import psycopg

import xzepr
from xzepr.infra.db import conninfo_of


def folder() -> Path:
    """Where the migrations are: in the wheel inside the package, in a checkout beside it."""
    package = Path(xzepr.__file__).parent
    inside = package / "migrations"
    return inside if inside.exists() else package.parent / "migrations"


def are_current(url: str) -> bool:
    """True when the database has this server's revisions and no other. False also where it cannot be asked:
    `migrate.check` says why."""
    ours = {path.stem.partition("_")[0] for path in folder().glob("[0-9]*.sql")}
    try:
        with psycopg.connect(conninfo_of(url), connect_timeout=10) as connection:
            return {row[0] for row in connection.execute("SELECT revision FROM schema_revision")} == ours
    except psycopg.Error:
        return False
