"""Whether the client of an open connection is there: who does not read is slow, who does not answer is gone."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

from starlette.types import Scope

UNSENT = "xzepr.unsent"
"""The extension of a scope that gives how many bytes wait in this process for the client to read."""
_MAY_HIDE_A_PING = 64 * 1024
"""Bytes that fit into any client's buffers: a ping behind as many may be unread where a client is behind."""


def unsent_in(scope: Scope) -> Callable[[], int]:
    """Gives the bytes that wait for this connection's client to read; 0 where a server does not say."""
    return cast("Callable[[], int]", scope.get("extensions", {}).get(UNSENT, int))


class Pulse:
    """What was written to one client, what it took and when it was heard.

    | its buffers | what it does | it is gone |
    |---|---|---|
    | full: a write waits | takes some of what waits, however little | never |
    | full | takes nothing | after `stalled_seconds` of that |
    | have room | has said something since our last ping | never |
    | have room | has not, and less than 64 KiB were written since the ping before it was last heard | at once |
    | have room | has not, and our ping may stand unread behind more than that | `stalled_seconds` after it was heard |

    A write that was given up leaves the buffers as full as they were, until another one goes through.
    """

    def __init__(self, stalled_seconds: float, unsent: Callable[[], int] = int) -> None:
        self._stalled_seconds = stalled_seconds
        self._unsent = unsent
        self._waits = 0
        """Bytes that waited for the client when they were last counted."""
        self._heard_at = self._moved_at = monotonic()
        self._waiting = 0
        self._blocked = False
        self._answered = True
        self._written = 0
        """Since the ping before the client was last heard."""
        self._since_ping = 0

    async def write(self, writing: Awaitable[None], size: int) -> None:
        """Awaits a write of `size` bytes, which waits while the client's buffers are full."""
        if not self._blocked:
            self._moved()
        self._blocked = True
        self._waiting += 1
        try:
            await writing
        finally:
            self._waiting -= 1
        self._blocked = False
        self._moved()
        self._written += size
        self._since_ping += size

    def heard(self) -> None:
        """The client said something: it has read what was written before our last ping."""
        self._heard_at = monotonic()
        self._answered = True
        self._written = self._since_ping

    def pinged(self) -> None:
        """A ping of ours was written, and should be answered."""
        self._answered = False
        self._since_ping = 0

    @property
    def waiting(self) -> bool:
        """Whether something waits for the client to read."""
        return self._waiting > 0

    def gone(self) -> bool:
        """Whether the client has not answered, though it could, or has taken nothing for too long; as of now, compared
        with when this was last asked."""
        if self._blocked:
            if self._unsent() < self._waits:
                self._moved()
            return monotonic() - self._moved_at >= self._stalled_seconds
        if self._answered:
            return False
        return self._written < _MAY_HIDE_A_PING or monotonic() - self._heard_at >= self._stalled_seconds

    def _moved(self) -> None:
        self._moved_at, self._waits = monotonic(), self._unsent()
