"""What a process holds open, opened in order and closed in reverse."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from xzepr import __version__
from xzepr.features.auth.service import Auth
from xzepr.features.auth.tokens import Tokens
from xzepr.features.events.recorder import Recorder
from xzepr.features.events.service import Events
from xzepr.features.groups.service import Groups
from xzepr.features.receivers.admission import Admission
from xzepr.features.receivers.service import Receivers
from xzepr.features.stream.feed import Feed
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Message
from xzepr.features.stream.processes import ThisProcess
from xzepr.features.stream.relay import Relay
from xzepr.features.stream.retention import Retention
from xzepr.features.stream.service import Stream
from xzepr.features.users.service import Users
from xzepr.infra.crypto import KeyPair, Passwords
from xzepr.infra.db import Database
from xzepr.infra.telemetry.metrics import Metrics
from xzepr.settings import Settings


@dataclass(frozen=True, slots=True)
class Hub:
    """Every service of one process. Interfaces are handed this and nothing else."""

    settings: Settings
    process: ThisProcess
    metrics: Metrics
    db: Database
    stream: Stream
    feed: Feed
    relay: Relay
    retention: Retention
    users: Users
    auth: Auth
    receivers: Receivers
    groups: Groups
    events: Events
    recorder: Recorder

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings, database_url: str, keys: KeyPair) -> AsyncGenerator["Hub"]:
        """A hub on a migrated database. Its loops do not run yet: see `processes.py`. Raises Unavailable when the
        database cannot be reached."""
        async with AsyncExitStack() as opened:
            metrics = Metrics(__version__)
            db = Database(database_url, settings.database, name="hub")
            await db.open()
            opened.push_async_callback(db.close)
            passwords = Passwords()
            opened.callback(passwords.close)
            stream = await Stream.open(db)
            yield cls._assemble(settings, metrics, db, stream, passwords, keys)

    @classmethod
    def _assemble(
        cls, settings: Settings, metrics: Metrics, db: Database, stream: Stream, passwords: Passwords, keys: KeyPair
    ) -> "Hub":
        feed = Feed(db, stream, ring_size=settings.stream.ring_size, poll_seconds=settings.stream.poll_seconds)
        relay = Relay(stream, settings.kafka, wait_beyond=feed.wait_beyond, poll_seconds=settings.stream.poll_seconds)
        users = Users(db, passwords, min_password=settings.auth.password_min_length)
        tokens = Tokens(
            keys,
            issuer=settings.jwt.issuer,
            audience=settings.jwt.audience,
            lifetime=timedelta(seconds=settings.jwt.access_token_expiration),
        )
        receivers = Receivers(db, stream)
        admission = Admission(db)
        recorder = Recorder(db, stream, admission, settings.events, settings.recorder, metrics.batch_committed)
        metrics.queue_length_from(lambda: recorder.waiting)
        stream.followers.append(feed.offer)
        feed.watchers.append(admission.forget)
        feed.forgetters.append(admission.forget_all)
        feed.watchers.append(lambda messages: _count(metrics, messages))
        return cls(
            settings=settings,
            process=ThisProcess(),
            metrics=metrics,
            db=db,
            stream=stream,
            feed=feed,
            relay=relay,
            retention=_retention(db, settings),
            users=users,
            auth=Auth(db, users, tokens, observe_login=metrics.login_tried),
            receivers=receivers,
            groups=Groups(db, stream, receivers, settings.groups, settings.events),
            events=Events(db, settings.events),
            recorder=recorder,
        )


def _retention(db: Database, settings: Settings) -> Retention:
    hours = settings.stream.retention_hours
    keep = None if hours is None else timedelta(hours=hours)
    return Retention(db, keep, settings.kafka.topic if settings.kafka.brokers else None)


def _count(metrics: Metrics, messages: Sequence[Message]) -> None:
    """Counts what the stream says: in each process all that the whole hub recorded since it started."""
    recorded = [message.event for message in messages if message.kind is Kind.EVENT_RECORDED and message.event]
    passed = sum(event.success for event in recorded)
    if recorded:
        metrics.events_recorded(passed, len(recorded) - passed)
    for kind in (Kind.GATE_COMPLETED, Kind.GATE_REGRESSED):
        if times := sum(message.kind is kind for message in messages):
            metrics.gate_announced(kind.value, times)
    metrics.head_moved(messages[-1].position)
