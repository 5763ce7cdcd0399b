"""Events that this process keeps in memory. They never change, so a kept event needs no statement."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Event, Message
from xzepr.features.subscriptions.feed import Feed

_MAX_BYTES = 32 * 1024 * 1024
_EVENT_BYTES = 900  # of an event with short texts and an empty payload, and of its places in the cache


class EventCache:
    """Keeps the events that were used last, by position and by id, within a limited size.

    It keeps only events up to the head of the feed. A database that was restored to before one of them therefore lacks
    the head, too: the feed notices that, and empties the cache.
    """

    def __init__(self, feed: Feed, *, max_bytes: int = _MAX_BYTES) -> None:
        self._feed = feed
        self._max_bytes = max_bytes
        self._by_position: OrderedDict[int, Event] = OrderedDict()  # in the order of use
        self._by_id: dict[str, Event] = {}
        self._size = 0

    @property
    def generation(self) -> int:
        """The generation of the feed. Events that were read in an earlier one may not be put."""
        return self._feed.generation

    def by_id(self, id: str) -> Event | None:
        """Returns the event with an id; None if it is not kept."""
        event = self._by_id.get(id)
        if event is not None:
            self._by_position.move_to_end(event.position)
        return event

    def at(self, positions: Iterable[int]) -> dict[int, Event]:
        """Returns those events at these positions that are kept, by position."""
        get, use = self._by_position.get, self._by_position.move_to_end
        events: dict[int, Event] = {}
        for position in positions:
            if (event := get(position)) is not None:
                use(position)
                events[position] = event
        return events

    def put(self, events: Iterable[Event], generation: int) -> None:
        """Keeps events that were read from the database in a generation; none if it is not the current one."""
        if generation == self._feed.generation:
            head = self._feed.position
            self._add([event for event in events if event.position <= head])

    def accept(self, messages: Sequence[Message]) -> None:
        """Keeps the new events of messages that the feed has just accepted."""
        self._add([message.event for message in messages if message.kind is Kind.EVENT_RECORDED and message.event])

    def clear(self) -> None:
        """Removes all events, because the database was restored."""
        self._by_position.clear()
        self._by_id.clear()
        self._size = 0

    def _add(self, events: Iterable[Event]) -> None:
        by_position = self._by_position
        for event in events:
            if event.position not in by_position:
                by_position[event.position] = self._by_id[event.id] = event
                self._size += _size_of(event)
        while self._size > self._max_bytes:
            _, event = by_position.popitem(last=False)
            del self._by_id[event.id]
            self._size -= _size_of(event)


def _size_of(event: Event) -> int:
    """Returns the size of an event in memory, in bytes, approximately."""
    return (
        _EVENT_BYTES
        + len(event.payload)
        + event.name.__sizeof__()
        + event.version.__sizeof__()
        + event.release.__sizeof__()
        + event.platform_id.__sizeof__()
        + event.package.__sizeof__()
        + event.description.__sizeof__()
    )
