"""The processes that a hub lists, and the lag of feeds, subscribers and routes in messages and seconds."""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import psycopg
import pytest

from tests.support.hub import execute, hub_on, new_event, new_receiver, running_hub, until
from tests.support.relay import append, kafka_settings, open_stream
from xzepr import __version__
from xzepr.core.actor import SYSTEM
from xzepr.core.clock import now
from xzepr.core.errors import Forbidden
from xzepr.features.processes import service as processes
from xzepr.features.processes.service import ProcessStatus, ThisProcess
from xzepr.features.relay import service as routes
from xzepr.features.relay import store as relay_store
from xzepr.features.relay.model import LEADER_SILENT_SECONDS, RelayState, RelayStatus
from xzepr.features.stream.model import Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.feed import Feed
from xzepr.features.subscriptions.scheduler import FairScheduler
from xzepr.features.subscriptions.service import Subscription, follow
from xzepr.infra.db import Database
from xzepr.server.loops import relay_loops, serving_loops
from xzepr.settings import Settings

ROUTE = "somewhere.else"
IDLE = RelayStatus(ROUTE, RelayState.STANDBY, "another process relays", now(), None)


async def until_listed(
    db: Database, condition: Callable[[Sequence[ProcessStatus]], bool] = bool
) -> list[ProcessStatus]:
    """Waits until the condition holds for the listed processes and returns them."""

    async def is_met() -> bool:
        return condition(await processes.statuses(db, SYSTEM))

    await until(is_met)
    return await processes.statuses(db, SYSTEM)


async def report(
    db: Database,
    process: ThisProcess,
    *,
    feed: int | None = 0,
    slowest: int | None = None,
    relay: RelayStatus | None = IDLE,
) -> ThisProcess:
    """Writes the process's status and returns the process."""
    await process.report(
        db, processes.SERVE, feed_position=feed, slowest_position=slowest, relay=relay, recorder_queue=0
    )
    return process


async def age(database_url: str, seconds: int) -> None:
    """Makes all messages older, each by `seconds` more than the next one."""
    await execute(
        database_url,
        "UPDATE messages SET time = time - ((SELECT max(position) FROM messages) + 1 - position) * %s "
        "* interval '1 second'",
        (seconds,),
    )


async def test_processes_list_each_other_until_they_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REMOVE_TIMEOUT_SECONDS", 20.0)
    async with running_hub(database_url) as first:
        await until_listed(first.db)  # processes are listed in the order of their start
        async with running_hub(database_url) as second:
            await new_receiver(first)
            both = await until_listed(
                second.db, lambda statuses: [status.feed and status.feed.position for status in statuses] == [1, 1]
            )
            assert [status.id for status in both] == [first.process.id, second.process.id]
            for status in both:
                assert (status.pid, status.role, status.version) == (os.getpid(), "serve", __version__)
                assert status.feed == processes.Progress(1, 0, 0.0)
                assert status.slowest_subscriber is None
                assert status.relay is not None
                assert status.silent_seconds < 5
                assert abs((status.seen_at - now()).total_seconds()) < 5
        assert [status.id for status in await processes.statuses(first.db, SYSTEM)] == [first.process.id]


async def test_process_reports_the_role_of_its_command(database_url: str) -> None:
    async with running_hub(database_url) as hub:
        worker = replace(hub, process=ThisProcess())
        async with relay_loops(worker):
            roles = {
                status.id: status.role for status in await until_listed(hub.db, lambda statuses: len(statuses) == 2)
            }
    assert roles == {hub.process.id: "serve", worker.process.id: "work"}


async def test_silent_process_is_hidden_then_removed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEADER_SILENT_SECONDS": 10.0, "_REMOVE_AFTER_SECONDS": 60.0}.items():
        assert getattr(processes, name) == value
        monkeypatch.setattr(processes, name, 100 * value)  # a second more or less then makes no difference
    async with open_stream(database_url) as stream:
        silent: dict[int, ThisProcess] = {}
        for seconds in (0, 800, 1100, 6100):  # processes are listed in the order of their start
            silent[seconds] = await report(stream.db, ThisProcess())
            await execute(
                database_url,
                "UPDATE processes SET seen_at = seen_at - %s * interval '1 second' WHERE id = %s",
                (seconds, silent[seconds].id),
            )
        statuses = await processes.statuses(stream.db, SYSTEM)
        assert [status.id for status in statuses] == [silent[0].id, silent[800].id]
        assert 700 < statuses[1].silent_seconds - statuses[0].silent_seconds <= 800
        await processes.remove_silent(stream.db)
        rows = await execute(database_url, "SELECT id FROM processes")
        assert {str(id) for (id,) in rows} == {silent[seconds].id for seconds in (0, 800, 1100)}


async def test_lost_process_row_is_recreated_with_its_start(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_on(Settings(), database_url) as hub:
        monkeypatch.setattr(hub.process, "_started_at", time.monotonic() - 3600)
        async with serving_loops(hub):
            [before] = await until_listed(hub.db)
            await execute(database_url, "TRUNCATE processes")
            [after] = await until_listed(hub.db)
    assert after.id == before.id
    assert after.seen_at > before.seen_at
    for status in (before, after):
        assert (status.seen_at - status.started_at).total_seconds() == pytest.approx(3600, abs=60)


async def test_blocked_process_report_delays_nothing_else(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_REPORT_TIMEOUT_SECONDS", 60.0)
    patient = {"lock_timeout_seconds": 60, "statement_timeout_seconds": 60}
    async with running_hub(database_url, database=patient) as hub:
        receiver = await new_receiver(hub)
        [before] = await until_listed(hub.db)
        async with await psycopg.AsyncConnection.connect(database_url) as locking_connection:
            await locking_connection.execute("LOCK TABLE processes")
            waiting: list[tuple[object, ...]] = []

            async def report_waits() -> bool:
                waiting[:] = await _waiting_reports(database_url)
                return bool(waiting)

            await until(report_waits)
            await hub.recorder.record(SYSTEM, new_event(receiver))
            await hub.feed.wait_beyond(1)
            assert await _waiting_reports(database_url) == waiting, (
                "neither the event nor the feed waited for the report"
            )
            await locking_connection.rollback()
        [after] = await until_listed(
            hub.db, lambda statuses: any(status.seen_at > before.seen_at for status in statuses)
        )
        assert after.id == before.id


async def _waiting_reports(database_url: str) -> list[tuple[object, ...]]:
    return await execute(
        database_url,
        """
        SELECT pid, query_start FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO processes%'
        """,
    )


async def test_lag_is_measured_from_the_oldest_waiting_message(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        process = await report(stream.db, ThisProcess(), feed=3, slowest=1)
        assert process.lags.feed is not None
        assert process.lags.slowest_subscriber is not None
        assert (process.lags.feed.position, process.lags.feed.lag) == (3, 2)
        assert process.lags.feed.lag_seconds == pytest.approx(200, abs=5)
        assert (process.lags.slowest_subscriber.position, process.lags.slowest_subscriber.lag) == (1, 4)
        assert process.lags.slowest_subscriber.lag_seconds == pytest.approx(400, abs=5)
        [status] = await processes.statuses(stream.db, SYSTEM)
        assert (status.feed, status.slowest_subscriber) == (process.lags.feed, process.lags.slowest_subscriber)
        await report(stream.db, process, feed=5)
        assert process.lags.feed == processes.Progress(5, 0, 0.0)
        assert process.lags.slowest_subscriber is None


async def test_lag_seconds_survive_retention(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await execute(database_url, "DELETE FROM messages WHERE position <= 3")
        process = await report(stream.db, ThisProcess(), feed=1)
        assert process.lags.feed is not None
        assert process.lags.feed.lag_seconds == pytest.approx(200, abs=5)


async def test_clock_set_back_gives_no_negative_lag(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 2)
        await age(database_url, -3600)
        process = await report(stream.db, ThisProcess(), feed=1)
    assert process.lags.feed == processes.Progress(1, 1, 0.0)


async def _insert_route(database_url: str, published: int) -> None:
    await execute(
        database_url,
        "INSERT INTO relay_routes (route, state, published_position) VALUES (%s, 'stopped', %s)",
        (ROUTE, published),
    )


async def test_leaderless_route_lags_by_its_stored_position(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _insert_route(database_url, 2)
        [status] = await routes.statuses(stream.db, SYSTEM)
        assert (status.led, status.leader, status.published, status.lag) == (False, None, 2, 3)
        assert status.lag_seconds == pytest.approx(300, abs=5)
        process = await report(stream.db, ThisProcess())
        assert process.lags.relay is not None
        assert (process.lags.relay.lag, round(process.lags.relay.lag_seconds, -1)) == (3, 300), (
            "every process reports the lag"
        )
        await execute(database_url, "UPDATE relay_routes SET published_position = 5")
        [status] = await routes.statuses(stream.db, SYSTEM)
        assert (status.lag, status.lag_seconds) == (0, 0.0)


async def test_route_lag_is_that_of_its_live_leader(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _insert_route(database_url, 2)
        leading = replace(IDLE, state=RelayState.FOLLOWING, position=5, leads=True)
        leader = await report(stream.db, ThisProcess(), relay=leading)
        await report(stream.db, ThisProcess())
        await append(stream, 3)
        [lag] = await _lags(stream)
        assert lag == (ROUTE, leader.id, 5, 0, 0.0), "newer messages count only after the leader's next report"
        await execute(
            database_url, "UPDATE processes SET seen_at = seen_at - interval '11 s' WHERE id = %s", (leader.id,)
        )
        [(_, leader_id, position, count, seconds)] = await _lags(stream)
        assert (leader_id, position, count) == (None, 2, 6)
        assert seconds == pytest.approx(300, abs=5)


async def test_never_led_route_lags_by_the_whole_stream(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        process = await report(stream.db, ThisProcess())
        assert process.lags.relay is not None
        assert (process.lags.relay.position, process.lags.relay.lag) == (0, 5)
        assert process.lags.relay.lag_seconds == pytest.approx(500, abs=5)
        [route] = await routes.statuses(stream.db, SYSTEM)
        [listed] = await processes.statuses(stream.db, SYSTEM)
        assert (route.route, route.since, route.lag) == (ROUTE, listed.started_at, 5)
        assert route.lag_seconds == pytest.approx(500, abs=5)
        assert (route.state, route.led, route.published) == (RelayState.STANDBY, False, 0)
        assert "no process has led it yet" in route.detail
        await _insert_route(database_url, 2)
        await report(stream.db, process)
        assert (process.lags.relay.position, process.lags.relay.lag) == (2, 3)
        [route] = await routes.statuses(stream.db, SYSTEM)
        assert "no process" not in route.detail, "a process has led the route"


async def test_new_route_lags_by_the_remaining_messages(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await execute(database_url, "DELETE FROM messages WHERE position < 3")
        process = await report(stream.db, ThisProcess())
        assert process.lags.relay is not None
        assert (process.lags.relay.position, process.lags.relay.lag) == (0, 2), "position 3 marks the removed messages"
        assert process.lags.relay.lag_seconds == pytest.approx(200, abs=5)
        await _insert_route(database_url, 0)
        assert [(lag, round(seconds, -1)) for _, _, _, lag, seconds in await _lags(stream)] == [(2, 200)]


NO_BROKERS = replace(IDLE, state=RelayState.WAITING_FOR_BROKERS, detail="kafka.brokers is not set")


@pytest.mark.parametrize("relay", [NO_BROKERS, None], ids=["relay enabled", "relay disabled"])
async def test_process_without_brokers_adds_no_route(database_url: str, relay: RelayStatus | None) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        process = await report(stream.db, ThisProcess(), relay=relay)
        assert process.lags.relay is None
        assert await routes.statuses(stream.db, SYSTEM) == []
        [status] = await processes.statuses(stream.db, SYSTEM)
        assert (status.relay is None) == (relay is None)


async def test_never_led_route_ends_with_its_last_process(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        first, second = ThisProcess(), ThisProcess()
        for process in (first, second):
            await report(stream.db, process)
        await first.remove_report(stream.db)
        assert [route.route for route in await routes.statuses(stream.db, SYSTEM)] == [ROUTE]
        await execute(database_url, "UPDATE processes SET seen_at = seen_at - interval '11 s'")
        assert await routes.statuses(stream.db, SYSTEM) == []


async def test_leader_position_before_a_restore_hides_no_lag(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _insert_route(database_url, 2)
        leading = replace(IDLE, state=RelayState.FOLLOWING, position=9, leads=True)
        leader = await report(stream.db, ThisProcess(), relay=leading)
        [(_, leader_id, position, count, seconds)] = await _lags(stream)
        assert (leader_id, position, count) == (leader.id, 2, 3)
        assert seconds == pytest.approx(300, abs=5)
        await execute(database_url, "UPDATE relay_routes SET published_position = 9")
        [(_, _, position, count, _)] = await _lags(stream)
        assert (position, count) == (0, 5), "the stored position also dates from before the restore"


async def test_every_process_reports_the_same_dead_letters(database_url: str) -> None:
    unreachable = {"brokers": ["127.0.0.1:1"], "topic": ROUTE, "timeout_seconds": 1}
    disabled = unreachable | {"enabled": False}
    async with (
        running_hub(database_url, kafka=unreachable) as first,
        running_hub(database_url, kafka=disabled) as second,
    ):

        async def reported_count(count: int) -> bool:
            line = f'xzepr_relay_dead_letters{{route="{ROUTE}"}} {count}.0'
            return all(line in hub.metrics.render().decode() for hub in (first, second))

        await until(lambda: reported_count(0))
        await execute(
            database_url,
            "INSERT INTO dead_letters (route, position, message_id, reason) SELECT %s, n, n, 'too large' "
            "FROM generate_series(1, 5) AS n",
            (ROUTE,),
        )
        await until(lambda: reported_count(5))
        await execute(database_url, "UPDATE dead_letters SET dropped_at = now(), dropped_by = 'ada' WHERE position > 2")
        await until(lambda: reported_count(2))


async def _lags(stream: Stream) -> list[tuple[str, str | None, int, int, float]]:
    async with stream.db.read() as connection:
        rows = await relay_store.lags(connection, LEADER_SILENT_SECONDS)
    return [(row.route, row.leader, row.position, row.lag, row.lag_seconds) for row in rows]


async def test_route_lag_grows_while_brokers_are_down(database_url: str) -> None:
    unreachable = {"brokers": ["127.0.0.1:1"], "topic": ROUTE, "timeout_seconds": 1}
    async with running_hub(database_url, kafka=unreachable) as hub:
        await new_receiver(hub)
        await new_receiver(hub, "test")
        seconds: list[float] = []

        async def lag_has_grown() -> bool:
            statuses = await routes.statuses(hub.db, SYSTEM)
            seconds.extend(
                status.lag_seconds for status in statuses if status.lag == 2 and status.leader == hub.process.id
            )
            return len(seconds) > 1 and seconds[-1] - seconds[0] >= 2

        await until(lag_has_grown)
        assert seconds == sorted(seconds)
        text = hub.metrics.render().decode()
        assert f'xzepr_relay_lag_messages{{route="{ROUTE}"}} 2.0' in text
        assert f'xzepr_relay_lag_seconds{{route="{ROUTE}"}} 0.0' not in text
        assert "xzepr_feed_lag_seconds 0.0" in text


@pytest.mark.kafka
async def test_route_status_names_its_leader(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka).model_dump(mode="python")
    async with running_hub(database_url, kafka=settings) as first, running_hub(database_url, kafka=settings) as second:
        for number in range(20):
            await new_receiver(first, f"r{number}")

        async def all_published() -> bool:
            statuses = await routes.statuses(first.db, SYSTEM)
            return bool(statuses) and statuses[0].published == 20 and statuses[0].leader is not None

        await until(all_published)
        [route] = await routes.statuses(second.db, SYSTEM)
        assert (route.led, route.lag, route.lag_seconds) == (True, 0, 0.0)
        statuses = await until_listed(
            first.db, lambda statuses: {status.relay and status.relay.leads for status in statuses} == {True, False}
        )
        [leader] = [process.id for process in statuses if process.relay and process.relay.leads]
        assert leader == route.leader


async def test_slowest_subscriber_is_the_one_not_reading(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        feed = Feed(stream.db, stream, FairScheduler(), ring_size=10, poll_seconds=0.05)
        following = asyncio.create_task(feed.run())
        await feed.started()
        start = feed.head.cursor
        assert feed.subscribers.slowest is None
        fast, slow = _subscriber(stream, feed, start), _subscriber(stream, feed, start)
        for subscriber in (fast, slow):
            await anext(subscriber)
        await append(stream, 1200)
        assert await _read(fast, 1200) == list(range(1, 1201))
        await anext(fast)  # a checkpoint: the subscriber waits for more
        assert feed.subscribers.slowest == 0
        assert await _read(slow, 600) == list(range(1, 601))
        assert feed.subscribers.slowest is not None
        assert 500 <= feed.subscribers.slowest <= 600
        await slow.aclose()
        assert feed.subscribers.slowest == 1200
        await fast.aclose()
        assert feed.subscribers.slowest is None
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _subscriber(stream: Stream, feed: Feed, start: Cursor) -> Subscription:
    return follow(stream, feed, SYSTEM, start, StreamFilter(), checkpoint_seconds=0.1)


async def _read(subscriber: Subscription, count: int) -> list[int]:
    positions: list[int] = []
    while len(positions) < count:
        frame = await anext(subscriber)
        if isinstance(frame, Message):
            positions.append(frame.position)
    return positions


async def test_only_stream_administrators_see_processes(database_url: str) -> None:
    actor = replace(SYSTEM, permissions=frozenset())
    async with open_stream(database_url) as stream:
        with pytest.raises(Forbidden):
            await processes.statuses(stream.db, actor)
        with pytest.raises(Forbidden):
            await routes.statuses(stream.db, actor)
