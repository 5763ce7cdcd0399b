"""Processes: what each process of the hub last said of itself."""

from xzepr.infra.migrate import run_sql_beside

revision = "0004"
down_revision = "0003"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Run the SQL as it stands."""
    run_sql_beside(__file__)
