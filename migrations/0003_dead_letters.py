"""Dead letters: messages of the stream that the brokers refuse for what they are."""

from xzepr.infra.migrate import run_sql_beside

revision = "0003"
down_revision = "0002"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Run the SQL as it stands."""
    run_sql_beside(__file__)
