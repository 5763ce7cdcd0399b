"""The stream as features use it: publishing changes, one write transaction at a time, and reading messages."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from xzepr.core.actor import Actor
from xzepr.core.ids import new_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.stream import page_store, rules, store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Event, Head, Message, StreamFilter
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.db import Connection, Database, hang_up_after
from xzepr.infra.pipeline import Pipeline

STATEMENTS = (store.LOCK,)  # of `begin_writing`

_VERIFY_TIMEOUT_SECONDS = 3.0  # for a statement that reads two rows; longer means a silent connection


class WriteTransaction:
    """A transaction that holds the writer lock.

    Changes made through `connection` and messages added with `append` are committed together or not at all.
    """

    def __init__(self, connection: Connection, actor: Actor, tip: store.Tip) -> None:
        self.connection = connection
        self.actor = actor
        self.time: datetime = tip.time
        """The time of all messages of this transaction; never before the time of an earlier message."""
        self._position = tip.position
        self.previous_id = tip.id
        """The id of the message before the first one; None if the stream was empty."""
        self._messages: list[Message] = []

    @property
    def next_position(self) -> int:
        """The position of the next message to be appended."""
        return self._position + 1

    @property
    def messages(self) -> Sequence[Message]:
        """The messages appended so far."""
        return self._messages

    def append(
        self,
        kind: Kind,
        *,
        actor: Actor | None = None,
        id: str | None = None,
        receiver_id: str | None = None,
        group_id: str | None = None,
        event: Event | None = None,
        data: bytes | None = None,
    ) -> Message:
        """Adds a message, which is written at the end of the transaction. `actor` defaults to the transaction's."""
        actor = actor or self.actor
        self._position += 1
        message = Message(
            position=self._position,
            id=id or new_id(),
            kind=kind,
            time=self.time,
            actor_kind=actor.kind,
            actor_id=actor.id,
            actor_name=actor.name,
            receiver_id=receiver_id,
            group_id=group_id,
            event=event,
            data=data,
        )
        self._messages.append(message)
        return message


@dataclass(frozen=True, slots=True)
class Committed:
    """The messages of a transaction of this process, in order."""

    previous_id: str | None
    """The id of the message before the first one; None if the stream was empty."""
    messages: Sequence[Message]


def begin_writing(pipeline: Pipeline) -> None:
    """Begins a transaction of the recorder, which waits for the writer lock. Later statements see what is committed."""
    pipeline.command("BEGIN")
    store.send_lock(pipeline)


@dataclass(frozen=True, slots=True)
class Stream:
    """The append-only log of messages of one hub."""

    db: Database
    hub_id: str
    on_commit: list[Callable[[Committed], None]] = field(default_factory=list[Callable[[Committed], None]])
    """Called on the event loop after each COMMIT of this process, so that its feed need not read the messages."""
    process_id: str = field(default_factory=new_id)
    """The payload of this process's notifications, which its feed ignores."""

    @classmethod
    async def open(cls, db: Database) -> "Stream":
        """Opens the stream of the hub whose database this is."""
        async with db.read() as connection:
            return cls(db, await store.hub_id(connection))

    @asynccontextmanager
    async def write(self, actor: Actor) -> AsyncGenerator[WriteTransaction]:
        """Opens a write transaction and commits it at the end. Raises Overloaded if the lock is not free in time."""
        async with self.db.write() as connection, self.writer_transaction(connection, actor) as tx:
            yield tx
        self.publish_locally(Committed(tx.previous_id, tx.messages))

    async def end_stuck_writers(self) -> int:
        """Terminates sessions that have held the writer lock for longer than any transaction takes; returns how many.

        Their servers find out the outcome of a COMMIT as after a lost connection.
        """
        async with self.db.read() as connection:
            return await store.end_stuck_writers(connection, self.db.max_transaction_seconds)

    def publish_locally(self, committed: Committed) -> None:
        """Passes committed messages to this process's listeners. Other processes are woken by NOTIFY."""
        if committed.messages:
            for notify in self.on_commit:
                notify(committed)

    @asynccontextmanager
    async def writer_transaction(self, connection: Connection, actor: Actor) -> AsyncGenerator[WriteTransaction]:
        """Opens a write transaction inside a database transaction that the caller commits."""
        await store.lock(connection)
        tip = await (await store.tip(connection)).fetchone()
        assert tip is not None, "an aggregate has a row"
        tx = WriteTransaction(connection, actor, tip)
        yield tx
        if tx.messages:
            await store.insert(connection, tx.messages, self.process_id)

    @asynccontextmanager
    async def reader(self) -> AsyncGenerator[StreamReader]:
        """Opens a reader over a connection of the pool."""
        async with self.db.read() as connection:
            yield StreamReader(connection)

    async def head(self) -> Head:
        """Returns the newest entry."""
        async with self.reader() as reader:
            return await reader.head()

    async def verify(self, cursor: Cursor) -> None:
        """Checks that the stream continues after a cursor; raises as `StreamReader.verify` does."""
        async with self.reader() as reader:
            with hang_up_after(reader.connection, _VERIFY_TIMEOUT_SECONDS):
                await reader.verify(cursor)

    async def make_partitions(self, size: int) -> None:
        """Creates partitions of `size` positions in advance, until the newest one is unused."""
        async with self.db.write() as connection:
            await store.lock(connection)
            head = await store.head(connection)
            end = (await store.partition_ends(connection))[-1]
            while end - head.position <= size:
                await store.add_partition(connection, end, end + size)
                end += size

    async def page(
        self, actor: Actor, after: Cursor | None, filter: StreamFilter, first: int
    ) -> tuple[Page[Message], Cursor]:
        """Returns a page of messages after a cursor (None: from the oldest), and the cursor of the next page.

        The page has the messages that the actor may read and the filter accepts, oldest first. The cursor is also past
        the messages that were left out. A page examines at most 20,000 messages, so it may have fewer than `first`, or
        none, although more follow. Raises as `verify` does.
        """
        actor.require_authenticated()
        PageRequest(first)
        rules.check_filter(filter)
        kinds = rules.readable(actor, filter.kinds)
        async with self.reader() as reader:
            head = await reader.head()
            start = None if after is None else after.position
            messages, stopped = await page_store.page(reader.connection, start, replace(filter, kinds=kinds), first + 1)
            if after is not None:
                await reader.verify(after)  # after the read, so that retention cannot come in between
        messages = [message for message in messages if message.position <= head.position]
        if len(messages) > first:
            return Page(messages[:first], has_next=True), messages[first - 1].cursor
        if stopped is not None and stopped.position < head.position:
            return Page(messages, has_next=True), stopped
        return Page(messages, has_next=False), head.cursor
