"""`xzepr work` beside `xzepr serve --no-relay`: what it does, what it says, and how it ends."""

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
from tests.support.server import ADMIN_PASSWORD, ServedHub, clean_environment
from tests.support.workers import WorkProcess

SECONDS = 60


@pytest.fixture
def folder() -> Generator[Path]:
    with temporary_folder() as one:
        yield one


@contextmanager
def working(data_dir: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Generator[WorkProcess]:
    """A worker, ended as an operator ends it, which must be a clean end."""
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


def answer(url: str) -> tuple[int, str]:
    response = httpx2.get(url, trust_env=False, timeout=SECONDS)
    return response.status_code, response.text


async def test_worker_waits_for_the_database_of_the_data_folder(folder: Path) -> None:
    with working(folder / "data", "--port", "0") as worker:
        await worker.wait_for_output("Waiting for `xzepr serve`")
        assert not (folder / "data").exists(), "it starts no database"
        hub = ServedHub.start(folder / "data", "--no-relay")
        try:
            await until(lambda: "left to other processes" in "".join(hub.lines), SECONDS)
            await worker.wait_for_output("health  ")
            assert f"works on the hub of the data folder {folder / 'data'}" in "".join(worker.lines)
            status, text = await asyncio.to_thread(answer, worker.health)
            assert (status, '"database":"healthy"' in text) == (200, True)
            waits = 'xzepr_relay_state{route="xzepr.events",state="waiting_for_brokers"} 1.0'
            await until(lambda: waits in answer(worker.health.replace("/health", "/metrics"))[1], SECONDS)
            leaves = 'xzepr_relay_state{route="xzepr.events",state="standby"} 1.0'
            await until(lambda: leaves in answer(f"{hub.url}/metrics")[1], SECONDS)
            client = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD)

            async def both_are_there() -> bool:
                shown = (await client("{ streamStatus { processes { role } } }")).data["streamStatus"]["processes"]
                return sorted(process["role"] for process in shown) == ["serve", "work"]

            await until(both_are_there, SECONDS)
        finally:
            hub.stop()


async def test_route_of_server_without_relay_waits_for_worker(folder: Path) -> None:
    kafka = {"XZEPR__KAFKA__BROKERS": '["127.0.0.1:1"]', "XZEPR__KAFKA__TIMEOUT_SECONDS": "1"}
    hub = ServedHub.start(folder / "data", "--no-relay", environ=kafka)
    try:
        client = await Client(hub.url).logged_in("admin", ADMIN_PASSWORD)
        await client.receiver("build")
        lag = 'xzepr_relay_lag_messages{route="xzepr.events"} 1.0'
        await until(lambda: lag in answer(f"{hub.url}/metrics")[1], SECONDS)

        async def led() -> list[tuple[str, int, bool]]:
            routes = (await client("{ streamStatus { routes { state lag led } } }")).data["streamStatus"]["routes"]
            return [(route["state"], route["lag"], route["led"]) for route in routes]

        assert await led() == [("STANDBY", 1, False)]
        with working(folder / "data", environ=kafka):

            async def so() -> bool:
                return await led() == [("WAITING_FOR_BROKERS", 1, True)]

            await until(so, SECONDS)
    finally:
        hub.stop()


@pytest.mark.slow
async def test_worker_finds_the_database_after_server_crash(folder: Path) -> None:
    deep = folder / ("d" * 90)  # the socket is then in a temporary folder, another one at each start
    deep.mkdir()
    deep.chmod(0o755)
    first = ServedHub.start(deep / "data", "--no-relay")
    with working(deep / "data", "--port", "0") as worker:
        await worker.wait_for_output("health  ")
        first.kill()
        second = ServedHub.start(deep / "data", "--no-relay")
        try:
            await worker.wait_for_output("health  ", times=2)
            await until(lambda: answer(worker.health)[0] == 200, SECONDS)
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
        assert "health" not in "".join(worker.lines), "it listens nowhere unless it is told to"
    assert not (folder / "data").exists()


def refused(folder: Path, environ: Mapping[str, str]) -> str:
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
    said = refused(folder, {"XZEPR__KAFKA__ENABLED": "false"})
    assert "kafka.enabled is off (XZEPR__KAFKA__ENABLED)" in said
    assert "--no-relay" in said


def test_database_without_schema_is_a_start_error(folder: Path, empty_database_url: str) -> None:
    assert "`xzepr migrate`" in refused(folder, {"DATABASE_URL": empty_database_url})
