"""An embedded PostgreSQL in the data folder, for a hub without an external database."""

from xzepr.infra.embedded.binaries import programs_folder
from xzepr.infra.embedded.server import EmbeddedPostgres, running_url

__all__ = ["EmbeddedPostgres", "programs_folder", "running_url"]
