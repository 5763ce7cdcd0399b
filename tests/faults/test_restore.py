"""The database goes back to a backup, or Kafka to nothing, under load: everybody learns it, and all goes on."""

import asyncio
import re
import shutil
import time

import pytest

from tests.faults.runner.commands import following, in_metrics, stopped, xzepr
from tests.faults.runner.postgres_faults import answer
from tests.faults.runner.restore import RestoredRun, back_up, history_of, published_position, put_back
from tests.faults.runner.rewritten_history import History, Restored
from tests.faults.runner.run import LOAD_SECONDS, times_of, under_fault
from tests.faults.runner.stage import Stage, need_broker, stage
from tests.faults.runner.subscriber_checks import followed
from tests.faults.runner.subscribers import Subscriber
from tests.support.kafka import Broker

pytestmark = pytest.mark.faults

PAGE = "query ($after: String) { stream(after: $after, first: 1) { cursor } }"


async def test_older_backup_is_restored(request: pytest.FixtureRequest) -> None:
    async with stage() as on:
        run, times = RestoredRun("restore of an older backup", on), times_of(2)
        try:
            async with asyncio.timeout(2 * LOAD_SECONDS + times * 90 + 240), run.loaded():
                await asyncio.sleep(3)
                for _ in range(times):
                    await _go_back(run, on)
                    run.injections += 1
                    await asyncio.sleep(2)
                await asyncio.sleep(25)
        finally:
            await run.end()
        await run.judge(request.node)


async def _go_back(run: RestoredRun, on: Stage) -> None:
    if on.has_kafka:
        await _relayed_promptly(on)
    backup = await back_up(on)
    await asyncio.sleep(4)
    await _seen_beyond(run.subscribers, backup.position)
    if on.has_kafka:
        await _relayed_beyond(on, backup.position)
    at, cluster = await put_back(on.postgres, backup)
    were = await run.new_audience(backup.cursor)
    lost = await history_of(on.folder / f"of-{cluster.name}", cluster)
    await _were_told(were, backup.position, lost)
    old = next(one.cursor for one in were if one.reached > backup.position)
    assert (await answer(on.ports[0], on.secret, PAGE, after=old)).codes == ["STREAM_DIVERGED"]
    again = await _resume(on, backup.noted) if on.has_kafka else backup.position
    gone = frozenset((one.position, one.id) for one in lost.messages if one.position > backup.position)
    run.restores.append(Restored(backup.position, at, again, gone))


async def _relayed_promptly(on: Stage) -> None:
    """Returns when what is recorded is noted as published at once: the relay has nothing to catch up with, and a
    backup has of what it does not know of no more than a moment's."""
    async with asyncio.timeout(60):
        while True:
            began = time.monotonic()
            await _relayed_beyond(on, await on.head() - 1)
            if time.monotonic() - began < 1.5:
                return


async def _seen_beyond(subscribers: list[Subscriber], position: int) -> None:
    """Returns when every subscriber has something that the backup does not."""
    end = time.monotonic() + 60
    while behind := [one.attendance for one in subscribers if one.reached <= position]:
        assert time.monotonic() < end, [(one.name, one.refusal, one.troubles) for one in behind]
        await asyncio.sleep(0.1)


async def _relayed_beyond(on: Stage, position: int) -> None:
    """Returns when the database knows that Kafka has something after the position."""
    async with asyncio.timeout(60):
        while await published_position(on) <= position:
            await asyncio.sleep(0.1)


async def _were_told(were: list[Subscriber], position: int, lost: History) -> None:
    """Each has seen something that is lost, is told so, and got all of the old history up to there and nothing of the
    other."""
    assert all(one.reached > position for one in were), "all had seen what was lost"
    async with asyncio.timeout(60):
        while not all(one.attendance.refusal for one in were):
            await asyncio.sleep(0.1)
    for one in were:
        assert "STREAM_DIVERGED" in one.attendance.refusal, one.attendance.refusal
        findings = list(followed(one.attendance, lost.messages, lost.events, one.reached))
        assert not findings, findings[:20]


async def _resume(on: Stage, noted: int) -> int:
    """Does what the stopped relay says; the position after which it publishes again, which is the one that the backup
    knows to be published."""
    detail = await stopped(on)
    assert "the database was restored or replaced" in detail
    await in_metrics(on, "stopped")
    found = re.search(r"`xzepr stream resume --at (\d+)`", detail)
    assert found, detail
    assert int(found[1]) == noted, detail
    await xzepr(on, "stream", "resume", "--at", found[1])
    await following(on)
    return int(found[1])


@pytest.mark.parametrize("meanwhile", ["the hubs run", "the hubs are stopped"])
async def test_kafka_loses_all_its_data(request: pytest.FixtureRequest, meanwhile: str) -> None:
    async with stage() as on:
        broker = need_broker(on)
        running = meanwhile == "the hubs run"

        async def wipe(on: Stage) -> None:
            if not running:
                await asyncio.gather(*(hub.stop() for hub in on.hubs))
            await _wipe(on, broker)
            if not running:
                await asyncio.gather(*(hub.start() for hub in on.hubs))
            detail = await stopped(on)
            assert "these brokers do not know of it" in detail, detail
            await in_metrics(on, "stopped")
            await xzepr(on, "stream", "resume", "--republish-from", "1")
            await following(on)

        await under_fault(f"Kafka wiped while {meanwhile}", on, request.node, wipe, times=2)


async def _wipe(on: Stage, broker: Broker) -> None:
    """The broker comes back without anything that it had."""
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(shutil.rmtree, broker.folder / "data")
    await asyncio.to_thread(broker.prepare)
    await on.start_broker()
