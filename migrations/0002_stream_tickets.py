"""Stream tickets; the SQL is beside this file."""

from xzepr.infra.migrate import run_sql_beside

revision = "0002"
down_revision = "0001"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Run the SQL as it stands."""
    run_sql_beside(__file__)
