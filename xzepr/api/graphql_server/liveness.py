"""Client liveness: tells clients that read slowly from clients that are gone."""

from collections.abc import Awaitable, Callable
from time import monotonic
from typing import cast

from starlette.types import Scope

from xzepr.api.client_connection import UNSENT

# The buffers of any client hold this much, so a ping behind that many bytes may still be unread.
_PING_HIDING_BYTES = 64 * 1024


def unsent_bytes_of(scope: Scope) -> Callable[[], int]:
    """Returns a function that counts the unread bytes of the client; always 0 if the server does not report them."""
    return cast("Callable[[], int]", scope.get("extensions", {}).get(UNSENT, int))


class ClientLiveness:
    """Decides from reads and writes whether the client of one connection is gone.

    | its buffers | the client | is gone |
    |---|---|---|
    | full: a write waits | reads some of the waiting data, however little | never |
    | full | reads nothing | after `stalled_seconds` of that |
    | have space | has sent something since the hub's last ping | never |
    | have space | has not, and less than 64 KiB were written since the ping before it was last heard | at once |
    | have space | has not, and the ping may be unread behind more than that | `stalled_seconds` after it was heard |

    After a cancelled write, the buffers count as full until another write completes.
    """

    __slots__ = (
        "_bytes_at_ping",
        "_has_replied",
        "_is_blocked",
        "_pending_writes",
        "_progress_at",
        "_read_bytes",
        "_received_at",
        "_stalled_seconds",
        "_unsent",
        "_unsent_bytes",
        "_written_bytes",
    )

    def __init__(self, stalled_seconds: float, unsent: Callable[[], int] = int) -> None:
        self._stalled_seconds = stalled_seconds
        self._unsent = unsent
        self._unsent_bytes = 0
        """Bytes that waited for the client at its last progress."""
        self._received_at = self._progress_at = monotonic()
        self._pending_writes = 0
        self._is_blocked = False
        self._has_replied = True
        self._written_bytes = self._bytes_at_ping = 0
        self._read_bytes = 0
        """Bytes that were written before the ping before the client was last heard."""

    async def track_write(self, write: Awaitable[None], size: int) -> None:
        """Awaits a write of `size` bytes. It waits while the client's buffers are full."""
        if not self._is_blocked:
            self._note_progress()
        self._is_blocked = True
        self._pending_writes += 1
        try:
            await write
        finally:
            self._pending_writes -= 1
        self._is_blocked = False
        self._note_progress()
        self._written_bytes += size

    def write_now(self, write: Callable[[bytes], bool], data: bytes) -> bool:
        """Writes without waiting. Returns False if the client's buffers are full, or if `write` returns False."""
        if self._is_blocked or not write(data):
            return False
        self._written_bytes += len(data)
        return True

    def received(self) -> None:
        """Notes that the client sent something. It has read everything that was written before the last ping."""
        self._received_at = monotonic()
        self._has_replied = True
        self._read_bytes = self._bytes_at_ping

    def ping_sent(self) -> None:
        """Notes that a ping was written, to which the client should reply."""
        self._has_replied = False
        self._bytes_at_ping = self._written_bytes

    @property
    def has_pending_write(self) -> bool:
        """Whether a write waits for the client to read."""
        return self._pending_writes > 0

    def is_gone(self) -> bool:
        """Returns whether the client is gone, by the table above. Each call also notes the client's progress."""
        if self._is_blocked:
            if self._unsent() < self._unsent_bytes:
                self._note_progress()
            return monotonic() - self._progress_at >= self._stalled_seconds
        if self._has_replied:
            return False
        return (
            self._written_bytes - self._read_bytes < _PING_HIDING_BYTES
            or monotonic() - self._received_at >= self._stalled_seconds
        )

    def _note_progress(self) -> None:
        self._progress_at, self._unsent_bytes = monotonic(), self._unsent()
