"""The environment of the measurements: a durable PostgreSQL, its databases, and servers as child processes."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.accounts import key_pair
from tests.support.kafka import free_port
from tests.support.postgres import embedded, temporary_folder
from xzepr.infra import migrate
from xzepr.infra.embedded import EmbeddedPostgres

PASSWORD = "correct horse battery"
READY_SECONDS = 60
_POLL_SECONDS = 0.01
# Programs of the bench may use many connections at once. All other settings are those of `xzepr serve`: fsync is on.
_POSTGRES_SETTINGS = {"max_connections": "200"}


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers."""

    port: int
    process: int


@dataclass(frozen=True, slots=True)
class Environment:
    """A PostgreSQL, and a folder for everything that a run writes."""

    postgres: EmbeddedPostgres
    folder: Path

    @property
    def postgres_process(self) -> int:
        """The id of PostgreSQL's main process."""
        return int((self.folder / "data/postgres/postmaster.pid").read_text().split("\n", 1)[0])

    def database(self, name: str, template: str | None = None) -> str:
        """Creates a database, migrated or as a copy of another one. Returns its URL."""
        create = sql.SQL("CREATE DATABASE {} OWNER xzepr TEMPLATE {} STRATEGY file_copy")
        with psycopg.connect(self.postgres.url_of("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(create.format(sql.Identifier(name), sql.Identifier(template or "template0")))
        url = self.postgres.url_of("xzepr", name)
        if template is None:
            migrate.migrate(url, report=lambda _: None)
        return url

    def drop(self, name: str) -> None:
        """Drops a database and ends its connections."""
        with psycopg.connect(self.postgres.url_of("postgres", "postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def child(self, arguments: Sequence[str], port: int, path: str, variables: dict[str, str]) -> Generator[Served]:
        """Runs a Python module as a server. The block begins when it answers at `path`; SIGTERM ends it."""
        log = self.folder / f"{arguments[0]}-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], env=os.environ | variables, stdout=output, stderr=output
            )
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}{path}", log)
            yield Served(port, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    @contextmanager
    def hub(self, url: str, *options: str, **settings: str) -> Generator[Served]:
        """Runs `xzepr serve` on a database."""
        port = free_port()
        data_dir = self.folder / "hub"
        arguments = ["xzepr", "serve", "--port", str(port), "--data-dir", str(data_dir), *options]
        variables = hub_variables(data_dir) | {"XZEPR__DATABASE__URL": url} | settings
        with self.child(arguments, port, "/health/ready", variables) as served:
            yield served


def hub_variables(data_dir: Path) -> dict[str, str]:
    """Writes a key pair to a hub's folder. Returns the settings that name it and the administrator's password."""
    data_dir.mkdir(exist_ok=True)
    private, public = data_dir / "private.pem", data_dir / "public.pem"
    private.write_text(key_pair().private_pem)
    public.write_text(key_pair().public_pem)
    return {
        "XZEPR__AUTH__ADMIN_PASSWORD": PASSWORD,
        "XZEPR__JWT__PRIVATE_KEY_PATH": str(private),
        "XZEPR__JWT__PUBLIC_KEY_PATH": str(public),
    }


@contextmanager
def environment() -> Generator[Environment]:
    """Runs a PostgreSQL in a temporary folder."""
    with (
        temporary_folder(on_disk=True) as folder,
        embedded(folder / "data", report=lambda _: None, settings=_POSTGRES_SETTINGS) as server,
    ):
        yield Environment(server, folder)


def wait_until_ready(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}: {log.read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except OSError:
            pass
        else:
            return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the server did not answer in {READY_SECONDS} s: {log.read_text()[-2000:]}")
