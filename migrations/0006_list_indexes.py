"""Revision 6: indexes for the filters of lists."""

from xzepr.infra.migrate import run_sql_beside

revision = "0006"
down_revision = "0005"
oldest_server = "0.1.0"


def upgrade() -> None:
    """Runs the SQL file of this revision, which builds indexes without blocking writers."""
    run_sql_beside(__file__, in_transaction=False)
