"""Revision 2: tickets for event streams."""

from xzepr.infra.migrate import run_sql_beside

revision = "0002"
down_revision = "0001"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_beside(__file__)
