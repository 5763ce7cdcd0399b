"""The PostgreSQL of the tests: an embedded one, or the server that XZEPR_TEST_DATABASE_URL names."""

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
}  # settings for a cluster whose data may be lost


@dataclass(slots=True)
class Databases:
    """Creates and drops databases on a server. `admin_url` may create them, the tests connect as in `user_url`."""

    admin_url: str
    user_url: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextlib.contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        """Clones a database from the template and yields its URL. Drops it at the end despite open connections."""
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
    """The server of a test run: that of XZEPR_TEST_DATABASE_URL, else an embedded one that is deleted at the end."""
    if url := os.environ.get("XZEPR_TEST_DATABASE_URL"):
        yield Databases(url, url)
        return
    with temporary_folder() as folder, embedded(folder / "data", settings=FAST) as server:
        yield Databases(server.url_of("postgres", "postgres"), server.url)


@contextlib.contextmanager
def embedded(
    data_dir: Path, *, report: Callable[[str], None] = print, settings: Mapping[str, str] | None = None
) -> Generator[EmbeddedPostgres]:
    """Runs an embedded PostgreSQL on its own event loop, so that a test can use another one."""
    loop = asyncio.new_event_loop()
    try:
        server = loop.run_until_complete(EmbeddedPostgres.start(data_dir, report=report, settings=settings))
        try:
            yield server
        finally:
            loop.run_until_complete(server.stop())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _memory_folder() -> str | None:
    """Returns a file system in memory, where cloning a database is five times as fast as on a disk.

    None if it is missing, has less than 4 GiB free or is mounted noexec: a server may have programs beside its data.
    """
    folder = "/dev/shm"
    if not os.access(folder, os.W_OK | os.X_OK) or os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return None
    return folder if shutil.disk_usage(folder).free > 4 * 2**30 else None


@contextlib.contextmanager
def temporary_folder(*, on_disk: bool = False) -> Generator[Path]:
    """Creates a folder with a short path, in memory if there is space, unless `on_disk`.

    Other accounts can traverse it, which PostgreSQL needs if the tests run as root.
    """
    folder = Path(tempfile.mkdtemp(prefix="xzepr-", dir=None if on_disk else _memory_folder()))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def migrated_template(server: Databases) -> Generator[str]:
    """Creates a migrated database to clone from, and yields its name."""
    with server.database() as url:
        migrate(url, report=print)
        yield urlsplit(url).path.removeprefix("/")


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
