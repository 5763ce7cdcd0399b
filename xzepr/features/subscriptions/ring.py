"""The ring: the newest messages of the stream, in memory, as many as fit."""

from collections import deque
from collections.abc import Sequence

from xzepr.features.stream.model import Message

_BYTES = 64 * 1024 * 1024


class Ring:
    """The newest messages, by their positions, which have no gaps."""

    def __init__(self, size: int) -> None:
        """At most so many messages; fewer when they are large."""
        self._size = size
        self._messages: deque[Message] = deque()
        self._bytes = 0

    @property
    def first(self) -> int | None:
        """The position of the oldest message in it; None while it is empty."""
        return self._messages[0].position if self._messages else None

    def at(self, position: int) -> Message | None:
        """The message at a position; None where it holds none."""
        index = position - self._messages[0].position if self._messages else -1
        return self._messages[index] if 0 <= index < len(self._messages) else None

    def keep(self, messages: Sequence[Message]) -> None:
        """Takes messages that follow on the newest one; the oldest leave."""
        self._messages.extend(messages)
        self._bytes += sum(message.size for message in messages)
        while len(self._messages) > self._size or self._bytes > _BYTES:
            self._bytes -= self._messages.popleft().size

    def forget_before(self, position: int) -> None:
        """Lets go of older messages: nobody is to go on from there."""
        while self._messages and self._messages[0].position < position:
            self._bytes -= self._messages.popleft().size

    def clear(self) -> None:
        """Forgets everything: the stream is another."""
        self._messages.clear()
        self._bytes = 0
