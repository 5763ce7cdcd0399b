"""The parameters of a PostgreSQL session that the hub's statements rely on.

They are set after connecting. Parameters of the startup packet can be overruled by libpq's environment variables, and
poolers refuse or drop its `options`. Defaults of the database or the role have no effect either.
"""

from collections.abc import Mapping

from psycopg.conninfo import make_conninfo

from xzepr.core.errors import CannotStart
from xzepr.settings import DatabaseSettings

# Every statement has an index to follow. Statistics that are old or missing, as in a hub that grows fast, must not make
# PostgreSQL read a whole table or sort it. PostgreSQL before 18 adds such costs to plans that JIT would compile them.
PLANNER: Mapping[str, str] = {"enable_seqscan": "off", "enable_bitmapscan": "off", "jit": "off"}
_MEANING: Mapping[str, str] = {
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "client_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
}
_MIGRATION: Mapping[str, str] = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}  # a migration may take as long as it needs
_ENCODING = "UTF8"


def with_encoding(conninfo: str) -> str:
    """Returns the connection parameters with UTF-8 as the client's encoding, whatever the environment sets."""
    return make_conninfo(conninfo, client_encoding=_ENCODING)


def session_sql(settings: DatabaseSettings, server_version: int) -> str:
    """Returns the statement that sets all parameters of a new connection. `server_version` is libpq's number."""
    limits = {
        "statement_timeout": settings.statement_timeout_seconds,
        "lock_timeout": settings.lock_timeout_seconds,
        "idle_in_transaction_session_timeout": settings.idle_in_transaction_timeout_seconds,
    }
    if server_version >= 17_00_00:  # in a pipeline, the limit of idle time does not apply until the next sync
        limits["transaction_timeout"] = max_transaction_seconds(settings)
    milliseconds = {name: str(max(1, int(seconds * 1000))) for name, seconds in limits.items()}
    return _set_all({**_MEANING, **PLANNER, **milliseconds})


def migration_sql() -> str:
    """Returns the statement that sets all parameters of a connection that migrates."""
    return _set_all({**_MEANING, **_MIGRATION})


def max_transaction_seconds(settings: DatabaseSettings) -> float:
    """Returns the maximum duration of a writing transaction: its wait for a lock, and one statement."""
    return settings.lock_timeout_seconds + settings.statement_timeout_seconds


def check_encoding(server_encoding: str | None) -> None:
    """Raises CannotStart unless the encoding of the database is UTF-8, which alone can hold any text."""
    if server_encoding != _ENCODING:
        raise CannotStart(
            f"the database has the encoding {server_encoding}, which cannot hold all texts: create it with"
            f" ENCODING '{_ENCODING}' TEMPLATE template0"
        )


def _set_all(parameters: Mapping[str, str]) -> str:
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in parameters.items())
    return f"SELECT {calls}"
