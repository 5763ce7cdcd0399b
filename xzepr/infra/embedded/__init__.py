"""A real PostgreSQL in the data folder, for a hub that was given no database."""

from xzepr.infra.embedded.server import EmbeddedPostgres, running_url

__all__ = ["EmbeddedPostgres", "running_url"]
