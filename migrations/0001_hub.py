"""The hub: receivers, groups, events, unit status, the stream, users and keys; the SQL is beside this file."""

from xzepr.infra.migrate import run_sql_beside

revision = "0001"
down_revision = None
oldest_server = "0.1.0"


def upgrade() -> None:
    """Run the SQL as it stands."""
    run_sql_beside(__file__)
