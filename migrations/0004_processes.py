"""Revision 4: the latest report of each process of the hub."""

from xzepr.infra.migrate import run_sql_beside

revision = "0004"
down_revision = "0003"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_beside(__file__)
