"""Whether the client of an open connection is there: who does not read is slow, who does not answer is gone."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

from starlette.types import Scope

from xzepr.api.middleware import UNSENT

_PING_HIDING_BYTES = 64 * 1024
"""Bytes that fit into any client's buffers: a ping behind as many may be unread where a client is behind."""


def unsent_bytes_of(scope: Scope) -> Callable[[], int]:
    """Gives the bytes that wait for this connection's client to read; 0 where a server does not say."""
    return cast("Callable[[], int]", scope.get("extensions", {}).get(UNSENT, int))


class ClientLiveness:
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
        self._unsent_bytes = 0
        """Bytes that waited for the client when they were last counted."""
        self._received_at = self._progress_at = monotonic()
        self._pending_writes = 0
        self._blocked = False
        self._has_replied = True
        self._written_bytes = 0
        """Since the ping before the client was last heard."""
        self._bytes_since_ping = 0

    async def track_write(self, write: Awaitable[None], size: int) -> None:
        """Awaits a write of `size` bytes, which waits while the client's buffers are full."""
        if not self._blocked:
            self._note_progress()
        self._blocked = True
        self._pending_writes += 1
        try:
            await write
        finally:
            self._pending_writes -= 1
        self._blocked = False
        self._note_progress()
        self._written_bytes += size
        self._bytes_since_ping += size

    def received(self) -> None:
        """The client said something: it has read what was written before our last ping."""
        self._received_at = monotonic()
        self._has_replied = True
        self._written_bytes = self._bytes_since_ping

    def ping_sent(self) -> None:
        """A ping of ours was written, and should be answered."""
        self._has_replied = False
        self._bytes_since_ping = 0

    @property
    def has_pending_write(self) -> bool:
        """Whether something waits for the client to read."""
        return self._pending_writes > 0

    def is_gone(self) -> bool:
        """Whether the client has not answered, though it could, or has taken nothing for too long; as of now, compared
        with when this was last asked."""
        if self._blocked:
            if self._unsent() < self._unsent_bytes:
                self._note_progress()
            return monotonic() - self._progress_at >= self._stalled_seconds
        if self._has_replied:
            return False
        return self._written_bytes < _PING_HIDING_BYTES or monotonic() - self._received_at >= self._stalled_seconds

    def _note_progress(self) -> None:
        self._progress_at, self._unsent_bytes = monotonic(), self._unsent()
