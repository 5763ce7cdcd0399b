"""The database goes back to a backup, or Kafka to nothing, under load: everybody learns it, and all goes on."""

import asyncio
import re
import shutil
import time

import pytest

from tests.support.faults.commands import following, in_metrics, stopped, xzepr
from tests.support.faults.restore import Restored, RestoredRun, back_up, put_back
from tests.support.faults.run import LOAD_SECONDS, times_of, under_fault
from tests.support.faults.stage import Stage, need_broker, stage
from tests.support.faults.subscribers import Subscriber
from tests.support.faults.trouble import answer
from tests.support.kafka import Broker

pytestmark = pytest.mark.faults

PAGE = "query ($after: String) { stream(after: $after, first: 1) { cursor } }"


async def test_an_older_backup_is_restored(request: pytest.FixtureRequest) -> None:
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
    backup = await back_up(on)
    await asyncio.sleep(4)
    await _seen_beyond(run.subscribers, backup.position)
    if on.has_kafka:
        await _relayed_beyond(on, backup.position)
    at = await put_back(on.postgres, backup)
    were = await run.new_audience(backup.cursor)
    await _were_told(were, backup.position)
    old = next(one.cursor for one in were if one.reached > backup.position)
    assert (await answer(on.ports[0], on.secret, PAGE, after=old)).codes == ["STREAM_DIVERGED"]
    again = await _resume(on) if on.has_kafka else backup.position
    run.restores.append(Restored(backup.position, at, again))


async def _seen_beyond(subscribers: list[Subscriber], position: int) -> None:
    """Returns when every subscriber has something that the backup does not."""
    end = time.monotonic() + 60
    while behind := [one.attendance for one in subscribers if one.reached <= position]:
        assert time.monotonic() < end, [(one.name, one.refusal, one.troubles) for one in behind]
        await asyncio.sleep(0.1)


async def _relayed_beyond(on: Stage, position: int) -> None:
    """Returns when Kafka has something that the backup does not."""
    noted = "SELECT max(published_position) FROM relay_routes"
    async with asyncio.timeout(60):
        while int(str((await on.postgres.execute(noted))[0][0] or 0)) <= position:
            await asyncio.sleep(0.2)


async def _were_told(were: list[Subscriber], position: int) -> None:
    """Each that had seen something that is lost is told so, and saw no message of the other history."""
    past = [one for one in were if one.reached > position]
    assert len(past) == len(were), "all had seen what was lost"
    async with asyncio.timeout(60):
        while not all(one.attendance.refusal for one in past):
            await asyncio.sleep(0.1)
    for one in past:
        assert "STREAM_DIVERGED" in one.attendance.refusal, one.attendance.refusal
        places = [seen.position for seen in one.attendance.seen]
        assert places == list(range(one.attendance.after + 1, one.attendance.after + 1 + len(places))), (
            one.attendance.name
        )


async def _resume(on: Stage) -> int:
    """Does what the stopped relay says; the position after which it publishes again."""
    detail = await stopped(on)
    assert "the database was restored or replaced" in detail
    await in_metrics(on, "stopped")
    found = re.search(r"`xzepr stream resume --at (\d+)`", detail)
    assert found, detail
    await xzepr(on, "stream", "resume", "--at", found[1])
    await following(on)
    return int(found[1])


@pytest.mark.parametrize("meanwhile", ["the hubs run", "the hubs are stopped"])
async def test_kafka_is_wiped(request: pytest.FixtureRequest, meanwhile: str) -> None:
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
