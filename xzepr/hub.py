"""The resources and services of one process, opened in order and closed in reverse order."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from xzepr import __version__
from xzepr.features.auth.service import Auth
from xzepr.features.auth.tokens import Tokens
from xzepr.features.events.cache import EventCache
from xzepr.features.events.recorder import Recorder
from xzepr.features.events.service import Events
from xzepr.features.groups.service import Groups
from xzepr.features.processes.service import ThisProcess
from xzepr.features.receivers.payload_validation import PayloadValidator
from xzepr.features.receivers.service import Receivers
from xzepr.features.relay.loop import Relay
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message
from xzepr.features.stream.retention import Retention
from xzepr.features.stream.service import Stream
from xzepr.features.subscriptions.feed import Feed
from xzepr.features.subscriptions.scheduler import FairScheduler
from xzepr.features.users.service import Users
from xzepr.infra.crypto import KeyPair, Passwords
from xzepr.infra.db import Database
from xzepr.infra.telemetry.metrics import Metrics
from xzepr.settings import Settings


@dataclass(frozen=True, slots=True)
class Core:
    """The resources that every process of a hub opens: the database, the stream and the services around it."""

    settings: Settings
    process: ThisProcess
    metrics: Metrics
    db: Database
    stream: Stream
    feed: Feed
    scheduler: FairScheduler
    """Shares the event loop between requests and subscribers."""
    relay: Relay
    retention: Retention
    events: Events


@dataclass(frozen=True, slots=True)
class Hub(Core):
    """All services of a process that serves clients. Interfaces receive a hub and nothing else."""

    users: Users
    auth: Auth
    receivers: Receivers
    groups: Groups
    recorder: Recorder

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: Settings,
        database_url: str,
        keys: KeyPair,
        *,
        metrics: Metrics | None = None,
        passwords: Passwords | None = None,
    ) -> AsyncGenerator["Hub"]:
        """Opens a hub on a migrated database. Its background loops do not run yet: see `server/loops.py`.

        Creates `metrics` and `passwords` if they are None. Closes `passwords` at the end, even if they were passed in.
        Raises Unavailable if the database cannot be reached.
        """
        async with AsyncExitStack() as stack:
            core = await stack.enter_async_context(open_core(settings, database_url, metrics))
            passwords = passwords or Passwords()
            stack.callback(passwords.close)
            yield cls._assemble(core, passwords, keys)

    @classmethod
    def _assemble(cls, core: Core, passwords: Passwords, keys: KeyPair) -> "Hub":
        settings, metrics, db, stream, feed = core.settings, core.metrics, core.db, core.stream, core.feed
        users = Users(db, passwords, min_password=settings.auth.password_min_length)
        tokens = Tokens(
            keys,
            issuer=settings.jwt.issuer,
            audience=settings.jwt.audience,
            lifetime=timedelta(seconds=settings.jwt.access_token_expiration),
        )
        receivers = Receivers(db, stream, settings.events)
        payload_validator = PayloadValidator(db)
        recorder = Recorder(
            db,
            stream,
            payload_validator,
            limits=settings.events,
            settings=settings.recorder,
            observe=metrics.batch_committed,
        )
        stream.on_commit.append(feed.accept_committed)
        stream.on_commit.append(lambda tx: _count_committed(metrics, tx.messages))
        feed.on_messages.append(core.events.cache.accept)
        feed.on_messages.append(payload_validator.forget_changed)
        feed.on_reset.append(payload_validator.clear)
        return cls(
            settings=settings,
            process=core.process,
            metrics=metrics,
            db=db,
            stream=stream,
            feed=feed,
            scheduler=core.scheduler,
            relay=core.relay,
            retention=core.retention,
            events=core.events,
            users=users,
            auth=Auth(
                db,
                users,
                tokens,
                login_failures_per_minute=settings.auth.login_failures_per_minute,
                observe_login=metrics.login_attempted,
            ),
            receivers=receivers,
            groups=Groups(
                db=db, stream=stream, receivers=receivers, limits=settings.groups, text_limits=settings.events
            ),
            recorder=recorder,
        )


@asynccontextmanager
async def open_core(settings: Settings, database_url: str, metrics: Metrics | None = None) -> AsyncGenerator[Core]:
    """Opens what a process without clients needs. Raises Unavailable if the database cannot be reached."""
    metrics = metrics or Metrics(__version__)
    db = Database(database_url, settings.database, name="hub")
    await db.open()
    try:
        stream = await Stream.open(db)
        scheduler = FairScheduler()
        feed = Feed(
            db, stream, scheduler, ring_size=settings.stream.ring_size, poll_seconds=settings.stream.poll_seconds
        )
        feed.on_messages.append(lambda messages: metrics.set_head(messages[-1].position))
        event_cache = EventCache(feed)
        feed.on_reset.append(event_cache.clear)
        poll = settings.stream.poll_seconds
        yield Core(
            settings=settings,
            process=ThisProcess(),
            metrics=metrics,
            db=db,
            stream=stream,
            feed=feed,
            scheduler=scheduler,
            relay=Relay(stream, settings.kafka, wait_beyond=feed.wait_beyond, poll_seconds=poll),
            retention=_retention(db, settings),
            events=Events(db, settings.events, event_cache),
        )
    finally:
        await db.close()


def _retention(db: Database, settings: Settings) -> Retention:
    hours = settings.stream.retention_hours
    keep = None if hours is None else timedelta(hours=hours)
    return Retention(db, keep, settings.kafka.topic if settings.kafka.brokers else None)


def _count_committed(metrics: Metrics, messages: Sequence[Message]) -> None:
    """Counts the messages that this process has committed. Over all processes, each message is counted once."""
    events = [message.event for message in messages if message.kind is Kind.EVENT_RECORDED and message.event]
    passed = sum(event.success for event in events)
    if events:
        metrics.events_recorded(passed, len(events) - passed)
    for kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
        if count := sum(message.kind is kind for message in messages):
            metrics.gate_messages_published(kind.value, count)
