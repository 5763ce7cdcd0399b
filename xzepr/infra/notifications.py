"""Notifications of PostgreSQL on a connection that listens."""

import asyncio

import psycopg
from psycopg import Notify, pq

from xzepr.infra.db import Connection


class Notifications:
    """The notifications that a connection receives, except those with the payload `ignored`.

    psycopg's `notifies` takes 100 µs for each notification, and a process also gets those of its commits. Here an
    ignored one takes 5 µs and wakes no task.
    """

    def __init__(self, connection: Connection, *, ignored: str) -> None:
        """Call it before the statements during which notifications may come."""
        self._connection = connection
        self._ignored = ignored
        self._received = False
        self._waiter: asyncio.Future[None] | None = None
        self._is_watched = False  # whether its socket is registered with the loop
        connection.add_notify_handler(self._handle)  # for those that come during a statement

    async def wait(self) -> None:
        """Returns once a notification was received since the last call. No statement may run until then.

        Raises psycopg.OperationalError if the connection is lost.
        """
        loop, socket = asyncio.get_running_loop(), self._connection.fileno()
        self._take_received()  # which came with the result of the last statement
        if not self._received:
            self._waiter = loop.create_future()
            self._is_watched = True
            loop.add_reader(socket, self._read, loop, socket)
            try:
                await self._waiter
            finally:
                self._unwatch(loop, socket)
                self._waiter = None
        self._received = False

    def _unwatch(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        if self._is_watched:
            self._is_watched = False
            loop.remove_reader(socket)

    def _read(self, loop: asyncio.AbstractEventLoop, socket: int) -> None:
        libpq = self._connection.pgconn
        try:
            libpq.consume_input()
            self._take_received()
            if libpq.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
        except psycopg.OperationalError as error:
            self._unwatch(loop, socket)  # now, because libpq has closed the socket, and its number can be used again
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)

    def _take_received(self) -> None:
        while (notification := self._connection.pgconn.notifies()) is not None:
            self._accept(notification.extra.decode())

    def _handle(self, notification: Notify) -> None:
        self._accept(notification.payload)

    def _accept(self, payload: str) -> None:
        if payload == self._ignored:
            return
        self._received = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
