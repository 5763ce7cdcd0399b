"""The cache of events: what it keeps, how much of it, and when it is emptied."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from xzepr.core.actor import ActorKind
from xzepr.features.events.cache import EventCache
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Message
from xzepr.features.subscriptions.feed import Feed

AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Follower:
    """A feed that has read up to a position."""

    position: int = 100
    generation: int = 0


def event(position: int, **fields: Any) -> Event:
    values: dict[str, Any] = {
        "position": position,
        "id": f"E{position}",
        "unit_id": bytes(32),
        "name": f"name {position}",
        "version": "1.0",
        "release": "1",
        "platform_id": "linux",
        "package": "rpm",
        "description": "it ended",
        "payload": b"{}",
        "success": True,
        "receiver_id": "R",
        "receiver_revision": 1,
        "owner_id": "O",
        "created_at": AT,
        "recorded_at": AT + timedelta(seconds=position),
    }
    return Event(**{**values, **fields})


def message(kind: Kind, position: int, event: Event | None) -> Message:
    return Message(position, f"M{position}", kind, AT, ActorKind.USER, "a", "a", None, None, event, None)


def cache_of(follower: Follower, **options: int) -> EventCache:
    return EventCache(cast("Feed", follower), **options)


def kept(cache: EventCache, positions: Sequence[int]) -> list[int]:
    """Returns the positions of the events that are kept. Checks that they are kept by id, too."""
    events = cache.at(positions)
    assert [cache.by_id(f"E{position}") for position in positions] == [events.get(position) for position in positions]
    return sorted(events)


def test_events_are_kept_by_id_and_position():
    cache, first = cache_of(Follower()), event(1)
    cache.put([first, event(2)], 0)
    cache.put([event(1)], 0)
    assert kept(cache, [1, 2, 3]) == [1, 2]
    assert cache.by_id("E1") is cache.at([1])[1] is first, "the first object stays"


def test_new_events_of_messages_are_kept():
    cache = cache_of(Follower())
    cause = event(3)
    cache.accept(
        [
            message(Kind.EVENT_RECORDED, 1, event(1)),
            message(Kind.RECEIVER_CREATED, 2, None),
            message(Kind.GATE_COMPLETED, 4, cause),
        ]
    )
    assert kept(cache, [1, 2, 3, 4]) == [1]


def test_events_used_longest_ago_are_evicted():
    cache = cache_of(Follower(), max_bytes=10_000)
    cache.put([event(n, payload=bytes(1500)) for n in (1, 2, 3)], 0)
    assert kept(cache, [2, 3, 1]) == [1, 2, 3]
    assert cache.by_id("E2") is not None
    cache.put([event(4, payload=bytes(1500))], 0)
    assert kept(cache, [1, 2, 4]) == [1, 2, 4], "3 was used before 1 and 2"
    assert kept(cache, [3]) == []
    cache.put([event(5, payload=bytes(20_000))], 0)
    assert kept(cache, [1, 2, 3, 4, 5]) == []


def test_size_counts_payload_and_texts():
    for change in ({"payload": b"x" * 5000}, {"description": "x" * 5000}, {"name": "🚀" * 1250}):
        cache = cache_of(Follower(), max_bytes=5000)
        cache.put([event(1)], 0)
        assert kept(cache, [1]) == [1]
        cache.put([event(2, **change)], 0)
        assert kept(cache, [1, 2]) == []


def test_evicted_events_leave_their_space():
    cache = cache_of(Follower(position=10_000), max_bytes=20_000)
    for n in range(1, 2000):
        cache.put([event(n, payload=bytes(n % 700))], 0)
    newest = kept(cache, range(1, 2000))
    assert len(newest) >= 10
    assert newest == list(range(2000 - len(newest), 2000))


def test_events_after_the_head_are_not_kept():
    follower = Follower(position=5)
    cache = cache_of(follower)
    cache.put([event(5), event(6)], 0)
    assert kept(cache, [5, 6]) == [5]
    follower.position = 0  # it has not started
    cache.put([event(1)], 0)
    assert kept(cache, [1]) == []


def test_read_of_an_earlier_generation_is_not_kept():
    follower = Follower()
    cache = cache_of(follower)
    cache.put([event(1)], cache.generation)
    generation = cache.generation
    follower.generation += 1
    cache.clear()
    cache.put([replace(event(1), name="lost")], generation)
    assert kept(cache, [1]) == []
    cache.put([event(1)], cache.generation)
    assert kept(cache, [1]) == [1]


def test_cleared_cache_has_its_whole_size():
    cache = cache_of(Follower(), max_bytes=3000)
    for _ in range(3):
        cache.put([event(1, payload=bytes(1000))], 0)
        assert kept(cache, [1]) == [1]
        cache.clear()
        assert kept(cache, [1]) == []
