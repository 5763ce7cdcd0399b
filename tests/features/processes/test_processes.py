"""What a hub's processes know of one another, and how far behind everything is, in messages and in seconds."""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
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
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.feed import Feed
from xzepr.features.subscriptions.scheduler import FairScheduler
from xzepr.features.subscriptions.service import follow
from xzepr.infra.db import Database
from xzepr.processes import running
from xzepr.settings import Settings

ROUTE = "somewhere.else"
IDLE = RelayStatus(ROUTE, RelayState.STANDBY, "another process relays", now(), None)


async def shown(db: Database, condition: Callable[[Sequence[ProcessStatus]], bool] = bool) -> list[ProcessStatus]:
    """The processes, once that is so of them."""

    async def so() -> bool:
        return condition(await processes.statuses(db, SYSTEM))

    await until(so)
    return await processes.statuses(db, SYSTEM)


async def described(
    db: Database,
    one: ThisProcess,
    *,
    feed: int | None = 0,
    slowest: int | None = None,
    relay: RelayStatus | None = IDLE,
) -> ThisProcess:
    """The process, after it has described itself."""
    await one.describe(db, processes.SERVE, feed=feed, slowest=slowest, relay=relay, queue=0)
    return one


async def age(database_url: str, seconds: int) -> None:
    """Makes all messages older: each by so many seconds more than the one after it."""
    await execute(
        database_url,
        "UPDATE messages SET time = time - ((SELECT max(position) FROM messages) + 1 - position) * %s "
        "* interval '1 second'",
        (seconds,),
    )


async def test_processes_list_each_other_until_they_end(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_PARTING_SECONDS", 20.0)
    async with running_hub(database_url) as one:
        await shown(one.db)  # it begins before the other: that is their order
        async with running_hub(database_url) as other:
            await new_receiver(one)
            both = await shown(other.db, lambda found: [p.feed and p.feed.position for p in found] == [1, 1])
            assert [found.id for found in both] == [one.process.id, other.process.id]
            for found in both:
                assert (found.pid, found.role, found.version) == (os.getpid(), "serve", __version__)
                assert found.feed == processes.Progress(1, 0, 0.0)
                assert found.slowest_subscriber is None
                assert found.relay is not None
                assert found.silent_seconds < 5
                assert abs((found.seen_at - now()).total_seconds()) < 5
        assert [found.id for found in await processes.statuses(one.db, SYSTEM)] == [one.process.id]


async def test_process_reports_the_role_of_its_command(database_url: str) -> None:
    async with running_hub(database_url) as hub:
        again = replace(hub, process=ThisProcess())
        async with running(again, role=processes.WORK):
            roles = {found.id: found.role for found in await shown(hub.db, lambda found: len(found) == 2)}
    assert roles == {hub.process.id: "serve", again.process.id: "work"}


async def test_silent_process_is_hidden_then_removed(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LEADER_SILENT_SECONDS": 10.0, "_KEPT_SECONDS": 60.0}.items():
        assert getattr(processes, name) == value
        monkeypatch.setattr(processes, name, 100 * value)  # a second more or less makes no difference
    async with open_stream(database_url) as stream:
        silent: dict[int, ThisProcess] = {}
        for seconds in (0, 800, 1100, 6100):  # each begins after the one before has been seen: that is their order
            silent[seconds] = await described(stream.db, ThisProcess())
            await execute(
                database_url,
                "UPDATE processes SET seen_at = seen_at - %s * interval '1 second' WHERE id = %s",
                (seconds, silent[seconds].id),
            )
        found = await processes.statuses(stream.db, SYSTEM)
        assert [one.id for one in found] == [silent[0].id, silent[800].id]
        assert 700 < found[1].silent_seconds - found[0].silent_seconds <= 800
        await processes.forget_silent(stream.db)
        rows = await execute(database_url, "SELECT id FROM processes")
        assert {str(id) for (id,) in rows} == {silent[seconds].id for seconds in (0, 800, 1100)}


async def test_lost_process_row_is_recreated_with_its_start(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with hub_on(Settings(), database_url) as hub:
        monkeypatch.setattr(hub.process, "_began", time.monotonic() - 3600)
        async with running(hub):
            [before] = await shown(hub.db)
            await execute(database_url, "TRUNCATE processes")
            [after] = await shown(hub.db)
    assert after.id == before.id
    assert after.seen_at > before.seen_at
    for one in (before, after):
        assert (one.seen_at - one.started_at).total_seconds() == pytest.approx(3600, abs=60)


async def test_blocked_process_report_delays_nothing_else(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_ANSWER_SECONDS", 60.0)
    patient = {"lock_timeout_seconds": 60, "statement_timeout_seconds": 60}
    async with running_hub(database_url, database=patient) as hub:
        receiver = await new_receiver(hub)
        [before] = await shown(hub.db)
        async with await psycopg.AsyncConnection.connect(database_url) as other:
            await other.execute("LOCK TABLE processes")
            waiting: list[tuple[object, ...]] = []

            async def waits() -> bool:
                waiting[:] = await _descriptions_that_wait(database_url)
                return bool(waiting)

            await until(waits)
            await hub.recorder.record(SYSTEM, new_event(receiver))
            await hub.feed.wait_beyond(1)
            assert await _descriptions_that_wait(database_url) == waiting, "neither waited for it to end"
            await other.rollback()
        [after] = await shown(hub.db, lambda found: any(one.seen_at > before.seen_at for one in found))
        assert after.id == before.id


async def _descriptions_that_wait(database_url: str) -> list[tuple[object, ...]]:
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
        one = await described(stream.db, ThisProcess(), feed=3, slowest=1)
        assert one.lags.feed is not None
        assert one.lags.slowest_subscriber is not None
        assert (one.lags.feed.position, one.lags.feed.lag) == (3, 2)
        assert one.lags.feed.lag_seconds == pytest.approx(200, abs=5)
        assert (one.lags.slowest_subscriber.position, one.lags.slowest_subscriber.lag) == (1, 4)
        assert one.lags.slowest_subscriber.lag_seconds == pytest.approx(400, abs=5)
        [status] = await processes.statuses(stream.db, SYSTEM)
        assert (status.feed, status.slowest_subscriber) == (one.lags.feed, one.lags.slowest_subscriber)
        await described(stream.db, one, feed=5)
        assert one.lags.feed == processes.Progress(5, 0, 0.0)
        assert one.lags.slowest_subscriber is None


async def test_lag_seconds_survive_retention(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await execute(database_url, "DELETE FROM messages WHERE position <= 3")
        one = await described(stream.db, ThisProcess(), feed=1)
        assert one.lags.feed is not None
        assert one.lags.feed.lag_seconds == pytest.approx(200, abs=5)


async def test_clock_set_back_gives_no_negative_lag(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 2)
        await age(database_url, -3600)
        one = await described(stream.db, ThisProcess(), feed=1)
    assert one.lags.feed == processes.Progress(1, 1, 0.0)


async def _route(database_url: str, published: int) -> None:
    await execute(
        database_url,
        "INSERT INTO relay_routes (route, state, published_position) VALUES (%s, 'stopped', %s)",
        (ROUTE, published),
    )


async def test_leaderless_route_lags_by_its_stored_position(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _route(database_url, 2)
        [status] = await routes.statuses(stream.db, SYSTEM)
        assert (status.led, status.leader, status.published, status.lag) == (False, None, 2, 3)
        assert status.lag_seconds == pytest.approx(300, abs=5)
        one = await described(stream.db, ThisProcess())
        assert one.lags.relay is not None
        assert (one.lags.relay.lag, round(one.lags.relay.lag_seconds, -1)) == (3, 300), "every process knows it"
        await execute(database_url, "UPDATE relay_routes SET published_position = 5")
        [status] = await routes.statuses(stream.db, SYSTEM)
        assert (status.lag, status.lag_seconds) == (0, 0.0)


async def test_route_lag_is_that_of_its_live_leader(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _route(database_url, 2)
        leading = replace(IDLE, state=RelayState.FOLLOWING, position=5, leads=True)
        leader = await described(stream.db, ThisProcess(), relay=leading)
        await described(stream.db, ThisProcess())
        await append(stream, 3)
        [lag] = await _lags(stream)
        assert lag == (ROUTE, leader.id, 5, 0, 0.0), "what came since is not counted before the leader speaks again"
        await execute(
            database_url, "UPDATE processes SET seen_at = seen_at - interval '11 s' WHERE id = %s", (leader.id,)
        )
        [(_, who, position, count, seconds)] = await _lags(stream)
        assert (who, position, count) == (None, 2, 6)
        assert seconds == pytest.approx(300, abs=5)


async def test_never_led_route_lags_by_the_whole_stream(
    database_url: str,
) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        one = await described(stream.db, ThisProcess())
        assert one.lags.relay is not None
        assert (one.lags.relay.position, one.lags.relay.lag) == (0, 5)
        assert one.lags.relay.lag_seconds == pytest.approx(500, abs=5)
        [awaited] = await routes.statuses(stream.db, SYSTEM)
        [process] = await processes.statuses(stream.db, SYSTEM)
        assert (awaited.route, awaited.since, awaited.lag) == (ROUTE, process.started_at, 5)
        assert awaited.lag_seconds == pytest.approx(500, abs=5)
        assert (awaited.state, awaited.led, awaited.published) == (RelayState.STANDBY, False, 0)
        assert "no process has led it yet" in awaited.detail
        await _route(database_url, 2)
        await described(stream.db, one)
        assert (one.lags.relay.position, one.lags.relay.lag) == (2, 3)
        [led] = await routes.statuses(stream.db, SYSTEM)
        assert "no process" not in led.detail, "a process led it"


async def test_new_route_lags_by_the_remaining_messages(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await execute(database_url, "DELETE FROM messages WHERE position < 3")
        one = await described(stream.db, ThisProcess())
        assert one.lags.relay is not None
        assert (one.lags.relay.position, one.lags.relay.lag) == (0, 2), "the third is the mark of what is gone"
        assert one.lags.relay.lag_seconds == pytest.approx(200, abs=5)
        await _route(database_url, 0)
        assert [(lag, round(seconds, -1)) for _, _, _, lag, seconds in await _lags(stream)] == [(2, 200)]


NO_BROKERS = replace(IDLE, state=RelayState.WAITING_FOR_BROKERS, detail="kafka.brokers is not set")


@pytest.mark.parametrize("relay", [NO_BROKERS, None], ids=["that would relay", "that leaves it to others"])
async def test_process_without_brokers_adds_no_route(database_url: str, relay: RelayStatus | None) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        one = await described(stream.db, ThisProcess(), relay=relay)
        assert one.lags.relay is None
        assert await routes.statuses(stream.db, SYSTEM) == []
        [status] = await processes.statuses(stream.db, SYSTEM)
        assert (status.relay is None) == (relay is None)


async def test_never_led_route_ends_with_its_last_process(
    database_url: str,
) -> None:
    async with open_stream(database_url) as stream:
        first, second = ThisProcess(), ThisProcess()
        for one in (first, second):
            await described(stream.db, one)
        await first.leave(stream.db)
        assert [one.route for one in await routes.statuses(stream.db, SYSTEM)] == [ROUTE]
        await execute(database_url, "UPDATE processes SET seen_at = seen_at - interval '11 s'")
        assert await routes.statuses(stream.db, SYSTEM) == []


async def test_leader_position_before_a_restore_hides_no_lag(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        await age(database_url, 100)
        await _route(database_url, 2)
        leading = replace(IDLE, state=RelayState.FOLLOWING, position=9, leads=True)
        leader = await described(stream.db, ThisProcess(), relay=leading)
        [(_, who, position, count, seconds)] = await _lags(stream)
        assert (who, position, count) == (leader.id, 2, 3)
        assert seconds == pytest.approx(300, abs=5)
        await execute(database_url, "UPDATE relay_routes SET published_position = 9")
        [(_, _, position, count, _)] = await _lags(stream)
        assert (position, count) == (0, 5), "what the route remembers is of that stream as well"


async def test_every_process_reports_the_same_dead_letters(database_url: str) -> None:
    away = {"brokers": ["127.0.0.1:1"], "topic": ROUTE, "timeout_seconds": 1}
    leaves_it = away | {"enabled": False}
    async with running_hub(database_url, kafka=away) as one, running_hub(database_url, kafka=leaves_it) as other:

        async def told(count: int) -> bool:
            line = f'xzepr_relay_dead_letters{{route="{ROUTE}"}} {count}.0'
            return all(line in hub.metrics.render().decode() for hub in (one, other))

        await until(lambda: told(0))
        await execute(
            database_url,
            "INSERT INTO dead_letters (route, position, message_id, reason) SELECT %s, n, n, 'too large' "
            "FROM generate_series(1, 5) AS n",
            (ROUTE,),
        )
        await until(lambda: told(5))
        await execute(database_url, "UPDATE dead_letters SET dropped_at = now(), dropped_by = 'ada' WHERE position > 2")
        await until(lambda: told(2))


async def _lags(stream: Stream) -> list[tuple[str, str | None, int, int, float]]:
    async with stream.db.read() as connection:
        rows = await relay_store.lags(connection, LEADER_SILENT_SECONDS)
    return [(row.route, row.leader, row.position, row.lag, row.lag_seconds) for row in rows]


async def test_route_lag_grows_while_brokers_are_down(database_url: str) -> None:
    away = {"brokers": ["127.0.0.1:1"], "topic": ROUTE, "timeout_seconds": 1}
    async with running_hub(database_url, kafka=away) as hub:
        await new_receiver(hub)
        await new_receiver(hub, "test")
        seconds: list[float] = []

        async def grown() -> bool:
            found = await routes.statuses(hub.db, SYSTEM)
            seconds.extend(one.lag_seconds for one in found if one.lag == 2 and one.leader == hub.process.id)
            return len(seconds) > 1 and seconds[-1] - seconds[0] >= 2

        await until(grown)
        assert seconds == sorted(seconds)
        text = hub.metrics.render().decode()
        assert f'xzepr_relay_lag_messages{{route="{ROUTE}"}} 2.0' in text
        assert f'xzepr_relay_lag_seconds{{route="{ROUTE}"}} 0.0' not in text
        assert "xzepr_feed_lag_seconds 0.0" in text


@pytest.mark.kafka
async def test_route_status_names_its_leader(kafka: str, database_url: str) -> None:
    settings = kafka_settings(kafka).model_dump(mode="python")
    async with running_hub(database_url, kafka=settings) as one, running_hub(database_url, kafka=settings) as other:
        for number in range(20):
            await new_receiver(one, f"r{number}")

        async def carried() -> bool:
            found = await routes.statuses(one.db, SYSTEM)
            return bool(found) and found[0].published == 20 and found[0].leader is not None

        await until(carried)
        [route] = await routes.statuses(other.db, SYSTEM)
        assert (route.led, route.lag, route.lag_seconds) == (True, 0, 0.0)
        found = await shown(one.db, lambda found: {p.relay and p.relay.leads for p in found} == {True, False})
        [leader] = [process.id for process in found if process.relay and process.relay.leads]
        assert leader == route.leader


async def test_slowest_subscriber_is_the_one_not_reading(database_url: str) -> None:
    async with open_stream(database_url) as stream:
        feed = Feed(stream.db, stream, FairScheduler(), ring_size=10, poll_seconds=0.05)
        following = asyncio.create_task(feed.run())
        await feed.started()
        start = feed.head.cursor
        assert feed.subscribers.slowest is None
        quick, slow = _subscriber(stream, feed, start), _subscriber(stream, feed, start)
        for one in (quick, slow):
            await anext(one)
        await append(stream, 1200)
        assert await _read(quick, 1200) == list(range(1, 1201))
        await anext(quick)  # a checkpoint: it waits for more
        assert feed.subscribers.slowest == 0
        assert await _read(slow, 600) == list(range(1, 601))
        assert feed.subscribers.slowest is not None
        assert 500 <= feed.subscribers.slowest <= 600
        await slow.aclose()
        assert feed.subscribers.slowest == 1200
        await quick.aclose()
        assert feed.subscribers.slowest is None
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def _subscriber(stream: Stream, feed: Feed, start: Cursor) -> AsyncGenerator[Message | Checkpoint, None]:
    return follow(stream, feed, SYSTEM, start, StreamFilter(), checkpoint_seconds=0.1)


async def _read(subscriber: AsyncGenerator[Message | Checkpoint, None], count: int) -> list[int]:
    positions: list[int] = []
    while len(positions) < count:
        said = await anext(subscriber)
        if isinstance(said, Message):
            positions.append(said.position)
    return positions


async def test_only_stream_administrators_see_processes(database_url: str) -> None:
    nobody = replace(SYSTEM, permissions=frozenset())
    async with open_stream(database_url) as stream:
        with pytest.raises(Forbidden):
            await processes.statuses(stream.db, nobody)
        with pytest.raises(Forbidden):
            await routes.statuses(stream.db, nobody)
