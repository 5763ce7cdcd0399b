"""Revision 3: dead letters, the messages that brokers reject."""

from xzepr.infra.migrate import run_sql_beside

revision = "0003"
down_revision = "0002"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision."""
    run_sql_beside(__file__)
