"""Revision 1: receivers, groups, events, unit status, the stream, users and API keys."""

from xzepr.infra.migrate import run_sql_beside

revision = "0001"
down_revision = None
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_beside(__file__)
