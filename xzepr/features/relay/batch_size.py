"""How many messages the relay's next transaction takes: more while they are small, half of what did not go through."""

from collections.abc import Sequence

from xzepr.features.stream.model import Message

_INITIAL_SIZE = 100
_TARGET_BYTES = 8 * 1024 * 1024
"""About how much one transaction holds."""


class AdaptiveBatchSize:
    """The size of the next portion, from what became of earlier ones."""

    def __init__(self, max_size: int) -> None:
        """`most` is the largest portion."""
        self._max_size = max_size
        self._last_suspect = 0
        self.size = min(_INITIAL_SIZE, max_size)
        """Messages to read for the next transaction."""

    def succeeded(self, messages: Sequence[Message]) -> None:
        """They were read and are done: reads more at once while it is little, and less when payloads are large."""
        size = sum(message.size for message in messages)
        if size > _TARGET_BYTES:
            self.size = max(1, self.size // 2)
        elif messages[-1].position < self._last_suspect:
            return  # the culprit is still ahead: a larger portion would only meet it again
        elif len(messages) >= self.size and size * 2 <= _TARGET_BYTES:
            self.size = min(self.size * 2, self._max_size)

    def is_full(self, messages: Sequence[Message]) -> bool:
        """Whether one transaction holds no more than these."""
        return len(messages) >= self.size or sum(message.size for message in messages) >= _TARGET_BYTES

    def failed(self) -> None:
        """It did not arrive, or not in time: the next portion is half of this one. Brokers that are merely away get
        all that waits all the same, but slow ones might never take so much in time."""
        self.size = max(1, self.size // 2)

    def rejected(self, messages: Sequence[Message]) -> None:
        """One or more of them, which were sent together, will never be accepted: the next portion is half of them."""
        self.size = max(1, len(messages) // 2)
        self._last_suspect = messages[-1].position

    def isolated(self) -> None:
        """The culprit is known."""
        self._last_suspect = 0
