"""`xzepr work` beside `xzepr serve --no-relay`: its database, its output, its start errors and its end."""

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support.clients import Client
from tests.support.hub import until
from tests.support.postgres import temporary_folder
from tests.support.server import ADMIN_PASSWORD, ServedHub, clean_environment, copy_data_folder
from tests.support.workers import WorkProcess

SECONDS = 60


@pytest.fixture
def folder() -> Generator[Path]:
    with temporary_folder() as folder:
        yield folder


@contextmanager
def working(data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Generator[WorkProcess]:
    """Runs a worker and stops it with SIGTERM. The end must be clean."""
    worker = WorkProcess(data_dir, *arguments, environ=environ)
    try:
        yield worker
        if worker.process.poll() is None:
            worker.process.send_signal(signal.SIGTERM)
        assert worker.process.wait(SECONDS) == 0, "".join(worker.lines)
        assert not [line for line in worker.lines if "Traceback" in line]
    finally:
        worker.process.kill()
        worker.process.wait()


def get(url: str) -> tuple[int, str]:
    response = httpx2.get(url, trust_env=False, timeout=SECONDS)
    return response.status_code, response.text


async def test_worker_waits_for_the_database_of_the_data_folder(folder: Path) -> None:
    with working(folder / "data", "--port", "0") as worker:
        await worker.wait_for_output("Waiting for `xzepr serve`")
        assert not (folder / "data").exists(), "a worker must not start a database"
        hub = ServedHub.start(folder / "data", "--no-relay")
        try:
            await until(lambda: "left to other processes" in "".join(hub.lines), SECONDS)
            await worker.wait_for_output("health  ")
            assert f"works on the hub of the data folder {folder / 'data'}" in "".join(worker.lines)
            status, text = await asyncio.to_thread(get, worker.health)
            assert (status, '"database":"healthy"' in text) == (200, True)
            waiting = 'xzepr_relay_state{route="xzepr.events",state="waiting_for_brokers"} 1.0'
            await until(lambda: waiting in get(worker.health.replace("/health", "/metrics"))[1], SECONDS)
            standby = 'xzepr_relay_state{route="xzepr.events",state="standby"} 1.0'
            await until(lambda: standby in get(f"{hub.url}/metrics")[1], SECONDS)
            client = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD)

            async def both_are_reported() -> bool:
                processes = (await client("{ streamStatus { processes { role } } }")).data["streamStatus"]["processes"]
                return sorted(process["role"] for process in processes) == ["serve", "work"]

            await until(both_are_reported, SECONDS)
        finally:
            hub.stop()


@pytest.mark.slow
async def test_route_of_server_without_relay_waits_for_worker(folder: Path) -> None:
    kafka = {"XZEPR__KAFKA__BROKERS": '["127.0.0.1:1"]', "XZEPR__KAFKA__TIMEOUT_SECONDS": "1"}
    hub = ServedHub.start(copy_data_folder(folder / "data"), "--no-relay", environ=kafka)
    try:
        client = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD)
        await client.receiver("build")
        lag = 'xzepr_relay_lag_messages{route="xzepr.events"} 1.0'
        await until(lambda: lag in get(f"{hub.url}/metrics")[1], SECONDS)

        async def routes() -> list[tuple[str, int, bool]]:
            status = (await client("{ streamStatus { routes { state lag led } } }")).data["streamStatus"]
            return [(route["state"], route["lag"], route["led"]) for route in status["routes"]]

        assert await routes() == [("STANDBY", 1, False)]
        with working(folder / "data", environ=kafka):

            async def worker_leads() -> bool:
                return await routes() == [("WAITING_FOR_BROKERS", 1, True)]

            await until(worker_leads, SECONDS)
    finally:
        hub.stop()


@pytest.mark.slow
async def test_worker_finds_the_database_after_server_crash(folder: Path) -> None:
    deep = folder / ("d" * 90)  # too long for a socket, which is then in a new temporary folder at each start
    deep.mkdir()
    deep.chmod(0o755)
    first = ServedHub.start(deep / "data", "--no-relay")
    with working(deep / "data", "--port", "0") as worker:
        await worker.wait_for_output("health  ")
        first.kill()
        second = ServedHub.start(deep / "data", "--no-relay")
        try:
            await worker.wait_for_output("health  ", times=2)
            await until(lambda: get(worker.health)[0] == 200, SECONDS)
        finally:
            second.stop()


async def test_waiting_worker_stops_at_once(folder: Path) -> None:
    with working(folder / "data") as worker:
        await worker.wait_for_output("Waiting for `xzepr serve`")
        began = time.monotonic()
        worker.process.send_signal(signal.SIGINT)
        assert worker.process.wait(SECONDS) == 0
        assert time.monotonic() - began < 10


async def test_worker_on_a_named_database_needs_no_keys(folder: Path, database_url: str) -> None:
    with working(folder / "data", environ={"DATABASE_URL": database_url}) as worker:
        await worker.wait_for_output("works on the hub of database.url")
        await worker.wait_for_output("Kafka        off: set kafka.brokers")
        assert "health" not in "".join(worker.lines), "a worker must not listen without --port"
    assert not (folder / "data").exists()


def start_error(folder: Path, environ: Mapping[str, str]) -> str:
    worker = subprocess.run(
        [sys.executable, "-m", "xzepr", "work", "--data-dir", str(folder / "data")],
        cwd=folder,
        env={**clean_environment(), **environ},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert worker.returncode == 1, worker.stdout + worker.stderr
    assert "Traceback" not in worker.stderr
    return worker.stderr


def test_worker_without_any_work_is_a_start_error(folder: Path) -> None:
    message = start_error(folder, {"XZEPR__KAFKA__ENABLED": "false"})
    assert "kafka.enabled is off (XZEPR__KAFKA__ENABLED)" in message
    assert "--no-relay" in message


def test_database_without_schema_is_a_start_error(folder: Path, empty_database_url: str) -> None:
    assert "`xzepr migrate`" in start_error(folder, {"DATABASE_URL": empty_database_url})
