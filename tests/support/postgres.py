"""A PostgreSQL for the tests: an embedded one, or the server that XZEPR_TEST_DATABASE_URL names."""

import asyncio
import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.infra.migrate import migrate

FAST: Mapping[str, str] = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum": "off",
}
"""Settings for a cluster that nobody will miss."""


@dataclass(slots=True)
class Databases:
    """Makes and drops databases on one server. `admin_url` may create them, `user_url` is who the tests are."""

    admin_url: str
    user_url: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        """The URL of a new database cloned from the template; dropped at the end, whoever is still connected."""
        name = f"xzepr_test_{os.getpid()}_{next(self._numbers)}"
        url = _with_database(self.user_url, name)
        owner = conninfo_to_dict(url).get("user") or self._admin_name()
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy OWNER {}")
        self._run(create.format(sql.Identifier(name), sql.Identifier(template), sql.Identifier(str(owner))))
        try:
            yield url
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)

    def _admin_name(self) -> str:
        with psycopg.connect(self.admin_url) as connection:
            return connection.info.user


@contextlib.contextmanager
def databases() -> Generator[Databases]:
    """The server for a test run, stopped and forgotten at the end if it is ours."""
    if given := os.environ.get("XZEPR_TEST_DATABASE_URL"):
        yield Databases(given, given)
        return
    with temporary_folder() as folder, embedded(folder / "data", settings=FAST) as server:
        yield Databases(server.url_of("postgres", "postgres"), server.url)


@contextlib.contextmanager
def embedded(
    data_dir: Path, *, say: Callable[[str], None] = print, settings: Mapping[str, str] | None = None
) -> Generator[EmbeddedPostgres]:
    """An embedded PostgreSQL for a while. The loop is its own, so that tests may have theirs."""
    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(EmbeddedPostgres.start(data_dir, say=say, settings=settings))
        try:
            yield server
        finally:
            loop.run_until_complete(server.stop())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _memory() -> str | None:
    """A file system in memory, where a database is cloned five times as fast as on a disk; None where there is none
    with room to spare, or none to run programs from, which a server may have beside its data."""
    place = "/dev/shm"
    if not os.access(place, os.W_OK | os.X_OK) or os.statvfs(place).f_flag & os.ST_NOEXEC:
        return None
    return place if shutil.disk_usage(place).free > 4 * 2**30 else None


@contextlib.contextmanager
def temporary_folder(*, on_disk: bool = False) -> Generator[Path]:
    """A short folder that other accounts can pass through, as PostgreSQL needs when the tests run as root; in memory
    where there is room, unless what is on trial is a disk."""
    folder = Path(tempfile.mkdtemp(prefix="xzepr-", dir=None if on_disk else _memory()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def migrated_template(server: Databases) -> Generator[str]:
    """The name of a database with this server's schema, to clone from."""
    with server.database() as url:
        migrate(url, say=print)
        yield urlsplit(url).path.removeprefix("/")


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
