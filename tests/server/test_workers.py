"""`xzepr serve --workers`: one hub with several processes behind one port, for clients and operators."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.clients import Client
from tests.support.hub import until
from tests.support.postgres import temporary_folder
from tests.support.process_stalls import measured_stalls
from tests.support.requests import new_event
from tests.support.server import ADMIN_PASSWORD, ServedHub, clean_environment, reserved_port, serving
from tests.support.workers import is_running, only_worker, workers_of

CREATE = "mutation ($input: CreateEventInput!) { createEvent(input: $input) { cursor event { id } } }"
KEY = "mutation ($input: CreateApiKeyInput!) { createApiKey(input: $input) { secret apiKey { id } } }"
REVOKE = "mutation ($input: RevokeApiKeyInput!) { revokeApiKey(input: $input) { id } }"
ME = "{ me { username } }"
SECONDS = 30


@pytest.fixture(scope="module")
def shared() -> Iterator[ServedHub]:
    """A hub with two workers, for tests that do not change it."""
    with serving("--workers", "2") as hub:
        yield hub


async def admin_of(hub: ServedHub) -> Client:
    return await Client(hub.url).logged_in("admin", hub.admin_password)


async def metrics_of(hub: ServedHub) -> dict[tuple[str, ...], float]:
    """Returns the samples of a scrape, by name and sorted label values."""
    async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as http:
        text = (await http.get(f"{hub.url}/metrics")).text
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


async def test_workers_deliver_each_others_events_in_order(shared: ServedHub) -> None:
    client = await admin_of(shared)
    receiver = await client.receiver("ordered")
    first, second = workers_of(shared)
    async with AsyncExitStack() as open:
        async with only_worker(shared, first):
            socket = await open.enter_async_context(client.socket(kinds=["EVENT_RECORDED"]))
            await socket.next()
        async with only_worker(shared, second):
            events = await open.enter_async_context(client.events(kinds=["EVENT_RECORDED"]))
            await events.next()
        created: list[str] = []
        for worker in (first, second) * 3:
            async with only_worker(shared, worker):
                for _ in range(5):
                    response = await client(CREATE, input=new_event(receiver))
                    created.append(response.data["createEvent"]["cursor"])
        frames_of_first, frames_of_second = await socket.messages(len(created)), await events.messages(len(created))
    assert [frame["cursor"] for frame in frames_of_first] == created
    assert [frame["cursor"] for frame in frames_of_second] == created


async def test_api_key_works_at_both_workers_until_revoked(shared: ServedHub) -> None:
    client = await admin_of(shared)
    first, second = workers_of(shared)
    async with only_worker(shared, first):
        key = (await client(KEY, input={"name": "for both"})).data["createApiKey"]
    key_client = Client(shared.url, key["secret"])
    async with only_worker(shared, second):
        assert (await key_client(ME)).data["me"]["username"] == "admin"
    async with AsyncExitStack() as open:
        sockets: list[Any] = []
        for worker in (first, second):
            async with only_worker(shared, worker):
                url = shared.url.replace("http://", "ws://") + "/graphql"
                socket = await open.enter_async_context(
                    connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], proxy=None)
                )
                await socket.send(json.dumps({"type": "connection_init", "payload": {"token": key["secret"]}}))
                assert '"connection_ack"' in str(await socket.recv())
                sockets.append(socket)
        async with only_worker(shared, first):
            assert (await client(REVOKE, input={"id": key["apiKey"]["id"]})).data
        began = time.monotonic()
        async with measured_stalls() as stalls:
            for socket in sockets:
                async with asyncio.timeout(SECONDS):
                    await socket.wait_closed()
                assert socket.close_code == 4403
        assert time.monotonic() - began < 5 + stalls.seconds


async def test_retry_through_the_other_worker_is_recorded_once(shared: ServedHub) -> None:
    client = await admin_of(shared)
    receiver = await client.receiver("repeated")
    event = new_event(receiver) | {"idempotencyKey": "the same"}
    results: list[Any] = []
    for worker in workers_of(shared):
        async with only_worker(shared, worker):
            results.append((await client(CREATE, input=event)).data["createEvent"])
    assert results[0] == results[1]
    concurrent = await asyncio.gather(*(client(CREATE, input=event | {"idempotencyKey": "at once"}) for _ in range(8)))
    assert len({response.data["createEvent"]["event"]["id"] for response in concurrent}) == 1
    listed = await client("query ($id: ID!) { events(filter: { eventReceiverId: $id }) { nodes { id } } }", id=receiver)
    assert len(listed.data["events"]["nodes"]) == 2


async def test_metrics_of_either_worker_cover_both(shared: ServedHub) -> None:
    client = await admin_of(shared)
    receiver = await client.receiver("counted")
    await asyncio.sleep(1.5)  # the counts of other workers may be a second old
    before = (await metrics_of(shared)).get(("xzepr_events_total", "true"), 0)
    async with AsyncExitStack() as open:
        for worker in workers_of(shared):
            async with only_worker(shared, worker):
                await (await open.enter_async_context(client.socket())).next()
                await client(CREATE, input=new_event(receiver))
        await asyncio.sleep(1.5)  # gauges are cached for a second
        scrapes: list[dict[tuple[str, ...], float]] = []
        for worker in workers_of(shared):
            async with only_worker(shared, worker):
                scrapes.append(await metrics_of(shared))
    head = (await client("{ streamStatus { position } }")).data["streamStatus"]["position"]
    for scrape in scrapes:
        assert scrape["xzepr_events_total", "true"] == before + 2
        assert scrape["xzepr_subscribers", "websocket"] == 2
        assert scrape["xzepr_stream_head_position",] == head
        assert scrape["xzepr_relay_state", "waiting_for_brokers", "xzepr.events"] == 2
        assert scrape["xzepr_worker_starts_total",] == 2


def test_command_lines_contain_no_secret(shared: ServedHub) -> None:
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (shared.process.pid, *workers_of(shared))]
    assert len(lines) == 3
    for line in lines:
        assert b"postgresql:" not in line
        assert b"PRIVATE" not in line
        assert ADMIN_PASSWORD.encode() not in line


def test_ready_line_comes_once_after_all_workers(shared: ServedHub) -> None:
    text = "".join(shared.lines)
    assert text.count("answers at http://") == 1
    assert len(re.findall(r"worker\.answers", text[: text.index("answers at")])) == 2


def database_pid(folder: Path) -> int:
    """Returns the process id of a hub's embedded PostgreSQL."""
    return int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])


@pytest.mark.slow
async def test_killed_worker_is_restarted_while_the_other_serves() -> None:
    with serving("--workers", "2") as hub:
        client = await admin_of(hub)
        victim, survivor = workers_of(hub)
        os.kill(victim, signal.SIGKILL)
        await until(lambda: not is_running(victim), SECONDS)
        assert (await client(ME)).data["me"]["username"] == "admin"
        await until(lambda: len(workers_of(hub)) == 2 and "".join(hub.lines).count("worker.answers") == 3, SECONDS)
        assert survivor in workers_of(hub)
        (line,) = [line for line in hub.lines if "worker.ended" in line]
        assert "SIGKILL" in line
        assert str(victim) in line
        assert (await metrics_of(hub))["xzepr_worker_starts_total",] == 3


@pytest.mark.slow
async def test_all_processes_end_with_a_killed_supervisor() -> None:
    with temporary_folder() as folder, reserved_port() as port:
        hub = ServedHub.start(folder / "data", "--workers", "2", port=port)
        workers, database = workers_of(hub), database_pid(hub.data_dir)
        hub.kill()
        await until(lambda: not any(is_running(pid) for pid in (*workers, database)), SECONDS)
        second = ServedHub.start(folder / "data", "--workers", "2", port=port)
        assert second.stop() == 0


@contextmanager
def in_process_group(folder: Path) -> Generator["subprocess.Popen[str]"]:
    """Runs a hub with two workers in a separate process group, as a terminal does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "xzepr", "serve", "--data-dir", str(folder / "data"), "--port", "0", "--workers", "2"],
        cwd=folder,
        env={**clean_environment(), "XZEPR__AUTH__ADMIN_PASSWORD": ADMIN_PASSWORD},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    try:
        while "Kafka" not in (line := process.stdout.readline()):
            assert line, "the hub ended while starting"
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def children_of(process: "subprocess.Popen[str]") -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_ctrl_c_ends_all_processes_in_order() -> None:
    with temporary_folder() as folder, in_process_group(folder) as process:
        children = children_of(process)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, output
        assert len(children) == 3
        assert not any(is_running(pid) for pid in children)
        assert "Traceback" not in output
        assert "worker.ended" not in output
        # PostgreSQL was stopped after the workers: it logs its shutdown and no terminated client.
        log = (folder / "data" / "postgres.log").read_text()
        assert "database system is shut down" in log
        assert "terminating connection due to administrator command" not in log


@pytest.mark.slow
def test_second_signal_does_not_wait_for_a_stuck_worker() -> None:
    with temporary_folder() as folder, in_process_group(folder) as process:
        children = children_of(process)
        stuck = next(pid for pid in children if b"xzepr.server.worker" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(stuck, signal.SIGSTOP)
        os.kill(process.pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(3)
        began = time.monotonic()
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(SECONDS) == 0
        assert time.monotonic() - began < 8
        assert not any(is_running(pid) for pid in children)


@pytest.mark.slow
async def test_drain_answers_requests_at_both_workers() -> None:
    with serving("--workers", "2") as hub:
        client = await admin_of(hub)
        receiver = await client.receiver("drained")
        recorded: list[str] = []

        async def record() -> None:
            # One connection until the hub closes it. An error would mean that a request was accepted and dropped.
            async with httpx2.AsyncClient(trust_env=False, timeout=SECONDS) as http:
                while True:
                    body = {"query": CREATE, "variables": {"input": new_event(receiver)}}
                    response = await http.post(f"{hub.url}/graphql", json=body, headers=client.headers)
                    recorded.append(response.json()["data"]["createEvent"]["event"]["id"])
                    if response.headers.get("connection") == "close":
                        return

        tasks = [asyncio.create_task(record()) for _ in range(8)]
        await until(lambda: len(recorded) > 50, SECONDS)
        hub.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await asyncio.gather(*tasks)
        assert await asyncio.to_thread(hub.process.wait, SECONDS) == 0
        with temporary_folder():
            second = ServedHub.start(hub.data_dir)
            try:
                client = await admin_of(second)
                for id in recorded[-8:]:
                    response = await client("query ($id: ID!) { event(id: $id) { id } }", id=id)
                    assert response.data["event"]["id"] == id
            finally:
                second.stop()
