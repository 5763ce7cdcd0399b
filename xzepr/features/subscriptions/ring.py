"""The ring: the newest messages of the stream, in memory."""

from collections import deque
from collections.abc import Sequence

from xzepr.features.stream.model import Message

_MAX_BYTES = 64 * 1024 * 1024


class Ring:
    """The newest messages, indexed by position. Positions have no gaps."""

    def __init__(self, size: int) -> None:
        """`size`: largest number of messages; large messages reduce it."""
        self._size = size
        self._messages: deque[Message] = deque()
        self._bytes = 0

    @property
    def first(self) -> int | None:
        """The position of the oldest message in the ring; None while it is empty."""
        return self._messages[0].position if self._messages else None

    def at(self, position: int) -> Message | None:
        """Returns the message at a position; None if the ring does not hold it."""
        messages = self._messages
        if not messages:
            return None
        newest = messages[-1]
        if position == newest.position:  # the usual case
            return newest
        index = position - messages[0].position
        return messages[index] if 0 <= index < len(messages) else None

    def append(self, messages: Sequence[Message]) -> None:
        """Adds the messages that follow the newest one and drops the oldest that no longer fit."""
        self._messages.extend(messages)
        self._bytes += sum(message.size for message in messages)
        while len(self._messages) > self._size or self._bytes > _MAX_BYTES:
            self._bytes -= self._messages.popleft().size

    def drop_before(self, position: int) -> None:
        """Drops messages before a position, which retention has removed."""
        while self._messages and self._messages[0].position < position:
            self._bytes -= self._messages.popleft().size

    def clear(self) -> None:
        """Drops everything, because the stream has a new generation."""
        self._messages.clear()
        self._bytes = 0
