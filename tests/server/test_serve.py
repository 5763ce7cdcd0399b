"""`xzepr serve` for an operator: its output, its start errors, its end, and restarts of its database."""

import asyncio
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.accounts import key_pair
from tests.support.clients import Client
from tests.support.hub import until
from tests.support.postgres import FAST, temporary_folder
from tests.support.requests import new_event
from tests.support.server import ADMIN_PASSWORD, ServedHub, clean_environment, copy_data_folder
from tests.support.workers import is_running
from xzepr.infra.embedded import EmbeddedPostgres
from xzepr.infra.migrate import migrate

SECONDS = 60
CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }"


@pytest.fixture
def folder() -> Generator[Path]:
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def keys(folder: Path) -> dict[str, str]:
    """The variables of a key pair, as `xzepr keys init` prints them."""
    pair = key_pair()
    (folder / "private.pem").write_text(pair.private_pem)
    (folder / "public.pem").write_text(pair.public_pem)
    (folder / "private.pem").chmod(0o600)
    return {
        "XZEPR__JWT__PRIVATE_KEY_PATH": str(folder / "private.pem"),
        "XZEPR__JWT__PUBLIC_KEY_PATH": str(folder / "public.pem"),
    }


def serve(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Starts `xzepr serve` with only these settings, with separate standard output and standard error."""
    return subprocess.Popen(
        [sys.executable, "-m", "xzepr", "serve", "--data-dir", str(folder / "data"), *arguments],
        cwd=folder,
        env={**clean_environment(), **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_error(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> str:
    """Runs a start that must fail. Returns its one-line message; a traceback is a failure."""
    process = serve(folder, *arguments, environ=environ)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, out + err
    assert "Traceback" not in out + err
    lines = [line for line in err.splitlines() if line.startswith("xzepr: ")]
    assert len(lines) == 1, err
    return lines[0]


@contextmanager
def served(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Generator[ServedHub]:
    """Runs a hub, and stops it as Ctrl-C does."""
    data_dir = folder / "data"
    if not data_dir.exists() and "DATABASE_URL" not in (environ or {}):
        copy_data_folder(data_dir)
    hub = ServedHub.start(data_dir, *arguments, environ=environ)
    try:
        yield hub
    finally:
        hub.stop()


def read_until_ready(process: "subprocess.Popen[str]") -> str:
    """Returns the output up to the last line of the start."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.lstrip().startswith("Kafka"):
            break
    return "".join(lines)


def end(process: "subprocess.Popen[str]", number: signal.Signals) -> str:
    """Stops a hub with a signal and returns its remaining output. The end must be clean."""
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, out + err
    assert "Traceback" not in out + err
    return out + err


def database_pid(folder: Path) -> int:
    """Returns the process id of a hub's embedded PostgreSQL."""
    return int((folder / "data" / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def test_second_start_reuses_data_folder(folder: Path) -> None:
    process = serve(folder, "--port", "0")
    output = read_until_ready(process)
    url = re.search(r"answers at (http://127\.0\.0\.1:\d+)\n", output)
    assert url, output
    assert f"{url[1]}/graphql/playground" in output
    assert f"data folder  {folder / 'data'}\n" in output
    password_file = folder / "data" / "admin-password"
    assert str(password_file) in output
    password = password_file.read_text().strip()
    assert stat.S_IMODE(password_file.stat().st_mode) == 0o600
    assert password not in output
    database = database_pid(folder)
    assert asyncio.run(Client(url[1]).logged_in("admin", password)).token
    output += end(process, signal.SIGINT)
    assert not is_running(database)
    assert password not in output

    before = password_file.stat().st_mtime_ns
    process = serve(folder, "--port", "0")
    second_output = read_until_ready(process)
    url = re.search(r"answers at (http://\S+)", second_output)
    assert url, second_output
    assert "password" not in second_output
    assert password_file.stat().st_mtime_ns == before
    database = database_pid(folder)
    assert asyncio.run(Client(url[1]).logged_in("admin", password)).token
    end(process, signal.SIGTERM)
    assert not is_running(database)


def test_interrupted_start_leaves_no_database_running(folder: Path) -> None:
    process = serve(folder, "--port", "0")
    pid_file = folder / "data" / "postgres" / "postmaster.pid"
    asyncio.run(until(lambda: pid_file.exists() and bool(pid_file.read_text().strip()), SECONDS))
    database = database_pid(folder)
    end(process, signal.SIGINT)
    assert not is_running(database)


def test_taken_port_fails_before_the_database_starts(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        message = start_error(folder, "--port", str(port))
    assert f"127.0.0.1:{port}" in message
    assert "--port" in message
    assert not (folder / "data").exists()


def test_foreign_host_address_is_a_start_error(folder: Path) -> None:
    assert "192.0.2.1" in start_error(folder, "--port", "0", "--host", "192.0.2.1")
    message = start_error(folder, "--port", "0", "--host", "no-such-host.invalid")
    assert "no-such-host.invalid has no address" in message
    assert "stop what listens there" not in message


def test_data_folder_in_use_is_a_start_error(folder: Path) -> None:
    with served(folder) as hub:
        message = start_error(folder, "--port", "0")
        assert f"in use by another xzepr server (pid {hub.process.pid})" in message
        assert httpx2.get(f"{hub.url}/health", trust_env=False).json()["status"] == "healthy"


def test_external_database_needs_schema_before_keys(
    folder: Path, empty_database_url: str, keys: dict[str, str]
) -> None:
    environ = {"DATABASE_URL": empty_database_url}
    assert "`xzepr migrate`" in start_error(folder, "--port", "0", environ={**environ, **keys})
    migrate(empty_database_url, report=print)
    assert "`xzepr keys init`" in start_error(folder, "--port", "0", environ=environ)
    assert not (folder / "data").exists()


def test_unreachable_database_is_a_start_error(folder: Path, keys: dict[str, str]) -> None:
    environ = {"DATABASE_URL": "postgresql://xzepr:hunter2@127.0.0.1:1/xzepr", **keys}
    message = start_error(folder, "--port", "0", environ=environ)
    assert "127.0.0.1" in message
    assert "hunter2" not in message


def test_health_supports_get_plus_head(folder: Path) -> None:
    with served(folder, environ={"XZEPR__TELEMETRY__TRACING_ENABLED": "1"}) as hub, _client(hub) as http:
        for path in ("/health", "/health/live", "/health/ready", "/metrics", "/", "/graphql/playground"):
            get, head = http.get(path), http.head(path)
            assert (get.status_code, head.status_code, head.content) == (200, 200, b""), path
        assert http.get("/health", headers={"Host": "evil.example"}).status_code == 421
        assert http.get("/nothing").status_code == 404
        assert http.post("/health").status_code == 405
        assert "server" not in http.get("/health").headers


@contextmanager
def _client(hub: ServedHub) -> Generator[httpx2.Client]:
    with httpx2.Client(base_url=hub.url, trust_env=False, timeout=SECONDS) as http:
        yield http


def test_next_start_takes_over_from_a_killed_hub(folder: Path) -> None:
    first = ServedHub.start(copy_data_folder(folder / "data"))
    database = database_pid(folder)

    async def record() -> str:
        client = await Client(first.url).logged_in("admin", ADMIN_PASSWORD)
        response = await client(CREATE, input=new_event(await client.receiver("build")))
        return response.data["createEvent"]["event"]["id"]

    id = asyncio.run(record())
    first.kill()
    with served(folder) as second:
        assert database_pid(folder) != database
        assert not is_running(database)

        async def read() -> str:
            client = await Client(second.url).logged_in("admin", ADMIN_PASSWORD)
            return (await client("query ($id: ID!) { event(id: $id) { id } }", id=id)).data["event"]["id"]

        assert asyncio.run(read()) == id


async def test_subscriber_sees_event_recorded_by_another_server(database_url: str, keys: dict[str, str]) -> None:
    with temporary_folder() as folder, temporary_folder() as other_folder:
        environ = {"DATABASE_URL": database_url, **keys}
        with served(folder, environ=environ) as hub, served(other_folder, environ=environ) as other_hub:
            writer = await Client(hub.url).logged_in("admin", hub.admin_password)
            subscriber = Client(other_hub.url, writer.token)  # both hubs have the same key pair
            receiver = await writer.receiver("build")
            async with subscriber.socket(kinds=["EVENT_RECORDED"]) as frames:
                await frames.next()
                created = (await writer(CREATE, input=new_event(receiver))).data["createEvent"]
                frame = await frames.message()
            assert (frame["event"]["id"], frame["cursor"]) == (created["event"]["id"], created["cursor"])
            assert not (folder / "data" / "postgres").exists()


async def test_server_recovers_when_the_database_returns(keys: dict[str, str]) -> None:
    with temporary_folder() as database, temporary_folder() as folder:
        server = await EmbeddedPostgres.start(database / "data", report=print, settings=FAST)
        await asyncio.to_thread(migrate, server.url, report=print)
        with served(folder, environ={"DATABASE_URL": server.url, **keys}) as hub:
            client = await Client(hub.url).logged_in("admin", hub.admin_password)
            receiver = await client.receiver("build")
            async with client.socket(kinds=["EVENT_RECORDED"]) as frames:
                await frames.next()
                await server.stop()
                async with httpx2.AsyncClient(base_url=hub.url, trust_env=False, timeout=SECONDS) as http:
                    assert (await http.get("/health/ready")).status_code == 503
                    assert (await http.get("/health/live")).status_code == 200
                failed = await client(CREATE, input=new_event(receiver))
                assert failed.codes[0] in ("UNAVAILABLE", "OVERLOADED"), failed.raw
                assert failed.errors[0]["extensions"]["retryAfter"]
                server = await EmbeddedPostgres.start(database / "data", report=print, settings=FAST)
                try:
                    created = await create_with_retries(client, receiver)
                    assert (await frames.message())["event"]["id"] == created["event"]["id"]
                    listed = (await client("{ events { nodes { id } } }")).data["events"]["nodes"]
                    assert listed == [{"id": created["event"]["id"]}]
                finally:
                    hub.stop()
                    await server.stop()


async def create_with_retries(client: Client, receiver: str) -> dict[str, Any]:
    """Sends an event until the database answers again. Returns the recorded event."""
    async with asyncio.timeout(SECONDS):
        while (response := await client(CREATE, input=new_event(receiver))).errors:
            assert response.codes[0] in ("UNAVAILABLE", "OVERLOADED"), response.raw
            await asyncio.sleep(response.errors[0]["extensions"]["retryAfter"] / 10)
    return response.data["createEvent"]
