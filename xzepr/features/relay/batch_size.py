"""The relay's batch size: it doubles while batches are small and succeed, and halves after a failure."""

from collections.abc import Sequence

from xzepr.features.stream.model import Message

_INITIAL_SIZE = 100  # messages
_TARGET_BYTES = 8 * 1024 * 1024  # about the size of one transaction


class AdaptiveBatchSize:
    """The size of the next batch, derived from the outcome of earlier ones."""

    def __init__(self, max_size: int) -> None:
        """`max_size` is the largest batch, in messages."""
        self._max_size = max_size
        self._last_suspect = 0
        self.size = min(_INITIAL_SIZE, max_size)
        """Messages to read for the next transaction."""

    def succeeded(self, messages: Sequence[Message]) -> None:
        """Adapts the size to a published batch.

        Halves it after more than 8 MiB, and doubles it after a full batch of at most 4 MiB.
        """
        total_bytes = sum(message.size for message in messages)
        if total_bytes > _TARGET_BYTES:
            self.size = max(1, self.size // 2)
        elif messages[-1].position < self._last_suspect:
            return  # the rejected message is still ahead: a larger batch would only be rejected with it
        elif len(messages) >= self.size and total_bytes * 2 <= _TARGET_BYTES:
            self.size = min(self.size * 2, self._max_size)

    def is_full(self, messages: Sequence[Message]) -> bool:
        """Whether these messages fill one transaction."""
        return len(messages) >= self.size or sum(message.size for message in messages) >= _TARGET_BYTES

    def failed(self) -> None:
        """Halves the size after a batch failed or timed out: slow brokers might never accept as much in time."""
        self.size = max(1, self.size // 2)

    def rejected(self, messages: Sequence[Message]) -> None:
        """Halves a rejected batch: at least one of its messages will never be accepted."""
        self.size = max(1, len(messages) // 2)
        self._last_suspect = messages[-1].position

    def isolated(self) -> None:
        """Lets batches grow again, because the rejected message was found."""
        self._last_suspect = 0
