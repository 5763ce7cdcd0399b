"""The database is restored from a backup, or Kafka loses its data, under load. All clients notice, then resume."""

import asyncio
import re
import shutil
import time

import pytest

from tests.faults.runner.commands import run_xzepr, wait_for_state_in_metrics, wait_until_following, wait_until_stopped
from tests.faults.runner.deployment import Deployment, deployment, need_broker
from tests.faults.runner.fault_run import WORKLOAD_SECONDS, injection_count, under_fault
from tests.faults.runner.postgres_faults import graphql_response
from tests.faults.runner.restore import RestoreRun, create_backup, published_position, read_history, restore_backup
from tests.faults.runner.rewritten_history import History, Restore
from tests.faults.runner.subscriber_checks import check_subscriber
from tests.faults.runner.subscribers import Subscriber
from tests.support.kafka import Broker

pytestmark = pytest.mark.faults

PAGE = "query ($after: String) { stream(after: $after, first: 1) { cursor } }"


async def test_older_backup_is_restored(request: pytest.FixtureRequest) -> None:
    async with deployment() as system:
        run, times = RestoreRun("restore of an older backup", system), injection_count(2)
        try:
            async with asyncio.timeout(2 * WORKLOAD_SECONDS + times * 90 + 240), run.under_load():
                await asyncio.sleep(3)
                for _ in range(times):
                    await _restore(run, system)
                    run.injections += 1
                    await asyncio.sleep(2)
                await asyncio.sleep(25)
        finally:
            await run.end()
        await run.check(request.node)


async def _restore(run: RestoreRun, system: Deployment) -> None:
    if system.has_kafka:
        await _wait_until_relay_is_prompt(system)
    backup = await create_backup(system)
    await asyncio.sleep(4)
    await _wait_until_received_beyond(run.subscribers, backup.position)
    if system.has_kafka:
        await _wait_until_published_beyond(system, backup.position)
    at, cluster = await restore_backup(system.postgres, backup)
    previous = await run.replace_subscribers(backup.cursor)
    discarded = await read_history(system.folder / f"of-{cluster.name}", cluster)
    await _check_divergence(previous, backup.position, discarded)
    cursor = next(subscriber.cursor for subscriber in previous if subscriber.reached > backup.position)
    assert (await graphql_response(system.ports[0], system.secret, PAGE, after=cursor)).codes == ["STREAM_DIVERGED"]
    resumed_after = await _resume(system, backup.published_position) if system.has_kafka else backup.position
    lost = frozenset(
        (message.position, message.id) for message in discarded.messages if message.position > backup.position
    )
    run.restores.append(Restore(backup.position, at, resumed_after, lost))


async def _wait_until_relay_is_prompt(system: Deployment) -> None:
    """Waits until the published position follows the head within 1.5 s.

    A backup then lacks the published position of only the newest messages.
    """
    async with asyncio.timeout(60):
        while True:
            began = time.monotonic()
            await _wait_until_published_beyond(system, await system.head() - 1)
            if time.monotonic() - began < 1.5:
                return


async def _wait_until_received_beyond(subscribers: list[Subscriber], position: int) -> None:
    """Waits until every subscriber has received a message after the position."""
    end = time.monotonic() + 60
    while late := [subscriber.record for subscriber in subscribers if subscriber.reached <= position]:
        assert time.monotonic() < end, [(record.name, record.fatal_error, record.retry_reasons) for record in late]
        await asyncio.sleep(0.1)


async def _wait_until_published_beyond(system: Deployment, position: int) -> None:
    """Waits until the database knows that a message after the position is in Kafka."""
    async with asyncio.timeout(60):
        while await published_position(system) <= position:
            await asyncio.sleep(0.1)


async def _check_divergence(subscribers: list[Subscriber], position: int, discarded: History) -> None:
    """Checks that each subscriber received discarded messages, gets STREAM_DIVERGED and nothing of the new history."""
    assert all(subscriber.reached > position for subscriber in subscribers), "a subscriber got no discarded message"
    async with asyncio.timeout(60):
        while not all(subscriber.record.fatal_error for subscriber in subscribers):
            await asyncio.sleep(0.1)
    for subscriber in subscribers:
        record = subscriber.record
        assert "STREAM_DIVERGED" in record.fatal_error, record.fatal_error
        findings = list(check_subscriber(record, discarded.messages, discarded.events, subscriber.reached))
        assert not findings, findings[:20]


async def _resume(system: Deployment, published_position: int) -> int:
    """Resumes the stopped relay as its status advises.

    Returns the position after which it publishes again: the published position of the backup.
    """
    detail = await wait_until_stopped(system)
    assert "the database was restored or replaced" in detail
    await wait_for_state_in_metrics(system, "stopped")
    advice = re.search(r"`xzepr stream resume --at (\d+)`", detail)
    assert advice, detail
    assert int(advice[1]) == published_position, detail
    await run_xzepr(system, "stream", "resume", "--at", advice[1])
    await wait_until_following(system)
    return int(advice[1])


@pytest.mark.parametrize("hubs", ["running hubs", "stopped hubs"])
async def test_kafka_loses_all_its_data(request: pytest.FixtureRequest, hubs: str) -> None:
    async with deployment() as system:
        broker = need_broker(system)
        running = hubs == "running hubs"

        async def wipe(system: Deployment) -> None:
            if not running:
                await asyncio.gather(*(hub.stop() for hub in system.hubs))
            await _wipe(system, broker)
            if not running:
                await asyncio.gather(*(hub.start() for hub in system.hubs))
            detail = await wait_until_stopped(system)
            assert "these brokers have no record of it" in detail, detail
            await wait_for_state_in_metrics(system, "stopped")
            await run_xzepr(system, "stream", "resume", "--republish-from", "1")
            await wait_until_following(system)

        await under_fault(f"Kafka data lost, {hubs}", system, request.node, wipe, times=2)


async def _wipe(system: Deployment, broker: Broker) -> None:
    """Kills the broker and starts it again without its data."""
    await asyncio.to_thread(broker.kill)
    await asyncio.to_thread(shutil.rmtree, broker.folder / "data")
    await asyncio.to_thread(broker.prepare)
    await system.start_broker()
