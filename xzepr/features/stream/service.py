"""The stream as features use it: announce changes in one transaction at a time, and read what was announced."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from xzepr.core.actor import Actor
from xzepr.core.ids import new_id
from xzepr.core.paging import Page, PageRequest
from xzepr.features.stream import rules, store
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Cursor, Event, Head, Message, StreamFilter
from xzepr.features.stream.reader import StreamReader
from xzepr.infra.db import Connection, Database, hang_up_after

_VERIFY_SECONDS = 3.0
"""Two rows are read; a connection that says nothing for so long has fallen silent."""


class WriteTransaction:
    """One writer's turn: what it changes through `connection` and announces with `append` is committed whole or not at
    all."""

    def __init__(self, connection: Connection, actor: Actor, tip: store.Tip) -> None:
        self.connection = connection
        self.actor = actor
        self.time: datetime = tip.time
        """What every message of this turn carries; never earlier than an earlier message's."""
        self._position = tip.position
        self.follows = tip.id
        """The id of the message before the first one; None when that is the stream's first."""
        self._messages: list[Message] = []

    @property
    def next_position(self) -> int:
        """The position that the next appended message gets."""
        return self._position + 1

    @property
    def messages(self) -> Sequence[Message]:
        """What was appended so far."""
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
        """Announces something; it is written when the turn ends. `actor` defaults to whose turn it is."""
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
class Stream:
    """The append-only log of messages of one hub."""

    db: Database
    hub_id: str
    on_commit: list[Callable[[WriteTransaction], None]] = field(
        default_factory=list[Callable[[WriteTransaction], None]]
    )
    """Told what this process has committed, so that its feed need not read that back."""

    @classmethod
    async def open(cls, db: Database) -> "Stream":
        """The stream of the hub whose database this is."""
        async with db.read() as connection:
            return cls(db, await store.hub_id(connection))

    @asynccontextmanager
    async def write(self, actor: Actor) -> AsyncGenerator[WriteTransaction]:
        """The writer's turn: waits for the lock (Overloaded after the lock time-out) and commits at the end."""
        async with self.db.write() as connection, self.writer_transaction(connection, actor) as tx:
            yield tx
        self.publish_locally(tx)

    async def end_stuck_writers(self) -> int:
        """Ends sessions of this role that have had the writer's turn for longer than any transaction takes, and says
        how many. Their servers learn what became of their COMMITs as after a lost connection."""
        async with self.db.read() as connection:
            return await store.end_stuck_writers(connection, self.db.transaction_seconds)

    def publish_locally(self, tx: WriteTransaction) -> None:
        """Tells followers in this process of what is committed; those in others hear of it by NOTIFY."""
        if tx.messages:
            for follower in self.on_commit:
                follower(tx)

    @asynccontextmanager
    async def writer_transaction(self, connection: Connection, actor: Actor) -> AsyncGenerator[WriteTransaction]:
        """The same inside a transaction that is open already, which its owner commits: for the recorder. In pipeline
        mode the lock and the question behind it travel together."""
        await store.lock(connection)
        tip = await (await store.tip(connection)).fetchone()
        assert tip is not None, "an aggregate has a row"
        tx = WriteTransaction(connection, actor, tip)
        yield tx
        if tx.messages:
            await store.insert(connection, tx.messages)

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
            with hang_up_after(reader.connection, _VERIFY_SECONDS):
                await reader.verify(cursor)

    async def make_partitions(self, size: int) -> None:
        """Makes partitions of `size` positions ahead, until the newest one is untouched."""
        async with self.db.write() as connection:
            await store.lock(connection)
            head = await store.head(connection)
            end = (await store.partition_ends(connection))[-1]
            while end - head.position <= size:
                await store.add_partition(connection, end, end + size)
                end += size

    async def page(
        self, actor: Actor, after: Cursor | None, wanted: StreamFilter, first: int
    ) -> tuple[Page[Message], Cursor]:
        """Messages after a cursor (None: from the oldest there is) that the actor may read and the filter lets through,
        oldest first, and the cursor to ask with next: it has also seen what the filter left out. Raises what `verify`
        raises."""
        actor.must_be_known()
        PageRequest(first)
        rules.check_filter(wanted)
        kinds = rules.readable(actor, wanted.kinds)
        async with self.reader() as reader:
            head = await reader.head()
            start = None if after is None else after.position
            found = await store.page(reader.connection, start, replace(wanted, kinds=kinds), first + 1)
            if after is not None:
                await reader.verify(after)  # behind the read, so that retention cannot come between
        found = [message for message in found if message.position <= head.position]
        items = found[:first]
        has_next = len(found) > first
        return Page(items, has_next), items[-1].cursor if has_next else head.cursor
