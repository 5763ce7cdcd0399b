"""Whether the client of an open connection is there: who does not read is slow, who does not answer is gone."""

from collections.abc import Awaitable
from time import monotonic

_MAY_HIDE_A_PING = 64 * 1024
"""Bytes that fit into any client's buffers: a ping behind as many may be unread where a client is behind."""


class Pulse:
    """What was written to one client, what it took and when it was heard.

    Nobody is gone while what is written waits for them to read, nor while so much was written that our ping may stand
    behind it unread; but neither lasts longer than `stalled_seconds`.
    """

    def __init__(self, stalled_seconds: float) -> None:
        self._stalled_seconds = stalled_seconds
        self._heard_at = self._moved_at = monotonic()
        self._waiting = 0
        self._blocked = False
        self._answered = True
        self._unread = 0
        self._since_ping = 0

    async def write(self, writing: Awaitable[None], size: int) -> None:
        """Awaits a write of `size` bytes, which waits while the client's buffers are full."""
        if not self._blocked:
            self._moved_at = monotonic()
        # A write that is given up leaves the client as blocked as it was, and since when.
        self._blocked = True
        self._waiting += 1
        try:
            await writing
        finally:
            self._waiting -= 1
        self._blocked = False
        self._moved_at = monotonic()
        self._unread += size
        self._since_ping += size

    def heard(self) -> None:
        """The client said something: it has read what was written before our last ping."""
        self._heard_at = monotonic()
        self._answered = True
        self._unread = self._since_ping

    def pinged(self) -> None:
        """A ping of ours was written, and should be answered."""
        self._answered = False
        self._since_ping = 0

    @property
    def waiting(self) -> bool:
        """Whether something waits for the client to read."""
        return self._waiting > 0

    @property
    def gone(self) -> bool:
        """Whether the client has not answered, though it could, or has not read for too long."""
        if self._blocked:
            return monotonic() - self._moved_at >= self._stalled_seconds
        if self._answered:
            return False
        return self._unread < _MAY_HIDE_A_PING or monotonic() - self._heard_at >= self._stalled_seconds
