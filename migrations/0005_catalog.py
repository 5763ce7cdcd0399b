"""Revision 5: the catalog's token, which changes with each change of receivers and groups."""

from xzepr.infra.migrate import run_sql_beside

revision = "0005"
down_revision = "0004"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_beside(__file__)
