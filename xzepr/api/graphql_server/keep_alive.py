"""Keeps a WebSocket alive with pings, and notices when its client is gone. It takes one timer and no task."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from xzepr.api.graphql_server import protocol
from xzepr.api.graphql_server.limits import SocketLimits
from xzepr.api.graphql_server.liveness import ClientLiveness
from xzepr.api.graphql_server.protocol import CloseSocket
from xzepr.api.graphql_server.socket_writer import SocketWriter, text_frame

_PING = protocol.server_message("ping")
_PING_FRAME = text_frame(_PING)


class KeepAlive:
    """Calls `close` with the reason if `connection_init` does not arrive in time, or if the client is gone."""

    __slots__ = ("_close", "_is_initialised", "_limits", "_liveness", "_ping", "_timer", "_writer")

    def __init__(
        self,
        limits: SocketLimits,
        liveness: ClientLiveness,
        writer: SocketWriter,
        close: Callable[[Exception], None],
    ) -> None:
        self._limits = limits
        self._liveness = liveness
        self._writer = writer
        self._close = close
        self._is_initialised = False
        self._ping: asyncio.Task[None] | None = None  # a ping that waits for the client to read
        self._timer = asyncio.get_running_loop().call_later(limits.init_timeout_seconds, self._expire)

    def initialise(self) -> bool:
        """Notes that `connection_init` has arrived, and starts to ping. Returns False if it had arrived before."""
        if self._is_initialised:
            return False
        self._is_initialised = True
        self._timer.cancel()
        self._schedule()
        return True

    def stop(self) -> "list[asyncio.Task[None]]":
        """Ends all work. Returns cancelled tasks, which the caller must await."""
        self._timer.cancel()
        if self._ping is None:
            return []
        self._ping.cancel()
        return [self._ping]

    def _expire(self) -> None:
        self._close(CloseSocket(protocol.INIT_TIMEOUT, "connection_init did not arrive in time"))

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._limits.ping_seconds, self._check)

    def _check(self) -> None:
        if self._liveness.is_gone():
            self._close(CloseSocket(protocol.GOING_AWAY, "the client did not respond to a ping"))
        elif self._liveness.has_pending_write:
            self._schedule()
        elif self._writer.write_now(_PING_FRAME):
            self._liveness.ping_sent()
            self._schedule()
        else:
            self._ping = asyncio.create_task(self._ping_slowly())

    async def _ping_slowly(self) -> None:
        """Sends a ping to a client that does not read at the moment; `is_gone` decides how long that may last."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.ping_seconds):
                    await self._writer.write(_PING)
                    self._liveness.ping_sent()
        except Exception as error:
            self._close(error)
        else:
            self._schedule()
