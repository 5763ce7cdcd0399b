"""Faults of a PostgreSQL: connections exhausted, clock changed, writer lock held."""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import TupleRow

from tests.faults.runner.database import DatabaseServer
from tests.faults.runner.plain_http import Connection, Response

_LOCK_HOLDER = """
SELECT a.pid, a.xact_start::text, a.query_start::text, a.wait_event
FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s AND l.objid = %s
"""
_WRITER_LOCK = 0x787A_6570_7201


async def writer_lock_holder(postgres: DatabaseServer) -> tuple[object, ...] | None:
    """Returns the session that holds the writer lock, if it waits for its client; else None."""
    rows = await postgres.execute(_LOCK_HOLDER, (_WRITER_LOCK >> 32, _WRITER_LOCK & 0xFFFF_FFFF))
    return rows[0] if rows and rows[0][3] == "ClientRead" else None


async def backends(postgres: DatabaseServer) -> int:
    """Returns the number of the hubs' connections."""
    [(count,)] = await postgres.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'xzepr' AND application_name LIKE 'xzepr %%'"
    )
    return int(str(count))


@asynccontextmanager
async def all_connections_taken(postgres: DatabaseServer) -> AsyncGenerator[None]:
    """Closes the hubs' connections and takes all free ones, except the superuser's, while the block runs."""
    held: list[psycopg.AsyncConnection[TupleRow]] = []
    taking = asyncio.create_task(_keep_taking(postgres, held))
    try:
        async with asyncio.timeout(20):
            while await backends(postgres):
                await postgres.execute(
                    """
                    SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
                    WHERE usename = 'xzepr' AND application_name LIKE 'xzepr %%'
                    """
                )
                await asyncio.sleep(0.2)
        yield
        assert not await backends(postgres), "a hub got a connection"
    finally:
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        for connection in held:
            await connection.close()


async def _keep_taking(postgres: DatabaseServer, held: "list[psycopg.AsyncConnection[TupleRow]]") -> None:
    while True:
        await _take_the_rest(postgres, held)
        await asyncio.sleep(0.01)


async def _take_the_rest(postgres: DatabaseServer, held: "list[psycopg.AsyncConnection[TupleRow]]") -> None:
    while True:
        try:
            held.append(await psycopg.AsyncConnection.connect(postgres.url, autocommit=True))
        except psycopg.OperationalError as error:
            if "too many" in str(error) or "remaining connection slots" in str(error):
                return
            raise


async def graphql_response(port: int, secret: str, query: str, **variables: object) -> Response:
    """Executes a document at a hub and returns the response, which may have errors."""
    connection = Connection(port)
    try:
        body = json.dumps({"query": query, "variables": variables}).encode()
        return await connection.post(body, f"Authorization: Bearer {secret}\r\n", 30)
    finally:
        connection.close()


class Clock:
    """The clock of a PostgreSQL that was started with its `environ`."""

    def __init__(self, folder: Path) -> None:
        """PostgreSQL's account must be able to read `folder`. Skips the test if libfaketime is missing."""
        library = _library()
        if library is None:
            pytest.skip("no libfaketime on this machine (Debian: apt install faketime)")
        self._file = folder / "clock"
        self.environ = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self.set_offset(0)

    def set_offset(self, hours: int) -> None:
        """Sets the clock to the real time plus `hours`, at once."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{hours:+d}h\n")
        new.chmod(0o644)
        os.replace(new, self._file)


def _library() -> Path | None:
    if named := os.environ.get("XZEPR_TEST_FAKETIME"):
        return Path(named)
    for folder in Path("/usr/lib").glob("*/faketime"):
        if (library := folder / "libfaketime.so.1").exists():
            return library
    return None


class OldServer(DatabaseServer):
    """A PostgreSQL of Debian that is older than the embedded one. Skips the test if it is not installed."""

    def __init__(self, folder: Path, major: int) -> None:
        binaries = Path(f"/usr/lib/postgresql/{major}/bin")
        if not (binaries / "initdb").exists():
            pytest.skip(f"no PostgreSQL {major} in {binaries}")
        super().__init__(folder)
        self.binaries = binaries
        shutil.rmtree(self.cluster)
        self.cluster.mkdir(mode=0o700)
        self._account.own(self.cluster)
        options = ["-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth-local=trust", "--auth-host=reject"]
        command = self._account.command(binaries / "initdb", "-D", str(self.cluster), *options)
        subprocess.run(command, cwd="/", check=True, capture_output=True)


@asynccontextmanager
async def old_server(folder: Path, major: int) -> AsyncGenerator[DatabaseServer]:
    """A running server with the hub's database. It is shut down at the end."""
    server = await asyncio.to_thread(OldServer, folder, major)
    try:
        await server.start()
        await server.prepare()
        await server.migrate()
        yield server
    finally:
        await server.crash()
