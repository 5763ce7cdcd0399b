"""The environment of the measurements: a durable PostgreSQL, its databases, and servers as child processes."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from tests.support.accounts import key_pair
from tests.support.kafka import free_port
from tests.support.postgres import temporary_folder
from xzepr.infra import migrate
from xzepr.infra.embedded import EmbeddedPostgres

PASSWORD = "correct horse battery"
ROUNDS = 5


@asynccontextmanager
async def postgres() -> AsyncGenerator[EmbeddedPostgres]:
    """Runs an embedded PostgreSQL with the settings of `xzepr serve`: fsync is on."""
    with temporary_folder(on_disk=True) as folder:
        server = await EmbeddedPostgres.start(folder / "data", report=lambda _: None)
        try:
            yield server
        finally:
            await server.stop()


def new_database(server: EmbeddedPostgres, name: str) -> str:
    """Creates and migrates a database and returns its URL."""
    with psycopg.connect(server.url_of("postgres", "postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER xzepr").format(sql.Identifier(name)))
    url = server.url_of("xzepr", name)
    migrate.migrate(url, report=lambda _: None)
    return url


@contextmanager
def child(arguments: Sequence[str], port: int, path: str, variables: dict[str, str]) -> Generator[None]:
    """Runs a server as a child process. The block begins when it answers at `path`; SIGTERM ends it."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        env=os.environ | variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for_response(process, f"http://127.0.0.1:{port}{path}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_for_response(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the server did not answer in 30 s")


@contextmanager
def hub(url: str, data_dir: Path, **settings: str) -> Generator[int]:
    """Runs `xzepr serve` on a database and yields its port."""
    port = free_port()
    private, public = data_dir / "private.pem", data_dir / "public.pem"
    private.write_text(key_pair().private_pem)
    public.write_text(key_pair().public_pem)
    variables = {
        "XZEPR__DATABASE__URL": url,
        "XZEPR__AUTH__ADMIN_PASSWORD": PASSWORD,
        "XZEPR__JWT__PRIVATE_KEY_PATH": str(private),
        "XZEPR__JWT__PUBLIC_KEY_PATH": str(public),
        **settings,
    }
    with child(["xzepr", "serve", "--port", str(port), "--data-dir", str(data_dir)], port, "/health/live", variables):
        yield port
