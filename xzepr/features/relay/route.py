"""A route into Kafka: its topics, what a message looks like there, and the transaction that moves messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from xzepr.features.relay.model import Published, partition_truncated, position_lost
from xzepr.features.stream import cloudevents
from xzepr.features.stream.model import Message, Origin
from xzepr.infra.kafka.cluster import Cluster, MessagesLostError, RejectedError, Security, TopicError
from xzepr.infra.kafka.latest import end_offsets, latest_value
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topic, Topics
from xzepr.settings import KafkaSettings

_YIELD_EVERY = 50
"""Messages that are written one after the other before whatever else runs in the process gets its turn."""

OpenProducer = Callable[[Cluster, str | None, int], Awaitable[Producer]]


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """What the route's topic takes."""

    max_bytes: int
    """Of one message."""
    partitions: int


@dataclass(frozen=True, slots=True)
class Route:
    """The whole stream into one topic, as CloudEvents."""

    settings: KafkaSettings
    hub_id: str

    @property
    def name(self) -> str:
        """Its name everywhere: the topic's. Another topic is another route, and gets the whole history."""
        return self.settings.topic

    @property
    def cluster(self) -> Cluster:
        """The brokers."""
        given = self.settings
        password = None if given.sasl_password is None else given.sasl_password.get_secret_value()
        security = Security(
            protocol=given.security_protocol,
            mechanism=given.sasl_mechanism,
            username=given.sasl_username,
            password=password,
            ca_file=given.tls_ca_file,
            cert_file=given.tls_cert_file,
            key_file=given.tls_key_file,
        )
        return Cluster(given.brokers, given.timeout_seconds, security)

    @property
    def transactional_id(self) -> str | None:
        """Kafka lets one producer at a time use it; None where transactions are switched off."""
        if not self.settings.transactions:
            return None
        return f"xzepr-relay-{self.hub_id}-{self.name}"

    @property
    def state_key(self) -> bytes:
        """Key of the route's state in the state topic, which hubs may share."""
        return f"{self.hub_id}/{self.name}".encode()

    def new_topics(self) -> list[NewTopicSpec]:
        """The topics as this route creates them when they are missing."""
        settings = self.settings
        state_config = {
            "cleanup.policy": "compact",
            # The newest segment is never compacted: with Kafka's 1 GiB the topic would take days to become small.
            "segment.bytes": str(16 * 1024 * 1024),
            "min.cleanable.dirty.ratio": "0.1",
        }
        return [
            NewTopicSpec(settings.topic, settings.partitions, settings.replication_factor),
            NewTopicSpec(settings.state_topic, 1, settings.replication_factor, state_config),
        ]

    def check_state_topic(self, topics: dict[str, Topic]) -> None:
        """Raises TopicError when the state topic could lose what it is there to keep."""
        state = topics.get(self.settings.state_topic)
        if state is None:
            return
        if state.cleanup_policy != "compact":
            raise TopicError(
                f"topic {state.name} has cleanup.policy={state.cleanup_policy}, and would delete the relay's "
                f"position: set cleanup.policy=compact, or name another topic in kafka.state_topic"
            )
        if state.partitions != 1:
            raise TopicError(
                f"topic {state.name} has {state.partitions} partitions, and the relay's state needs exactly 1: name "
                "another topic in kafka.state_topic"
            )

    async def prepare(self, published: int) -> TopicLimits:
        """Sees to it that the topics exist and fit. Raises StoppedError when one is absent although the route was
        published up to a position, TopicError when one does not fit."""
        wanted = {spec.name: spec for spec in self.new_topics()}
        async with Topics(self.cluster) as topics:
            found = await topics.find(list(wanted))
            self.check_state_topic(found)
            absent = [spec for name, spec in wanted.items() if name not in found]
            if absent and published:
                raise position_lost(self.name, published)
            for spec in absent:
                found[spec.name] = await topics.create(spec)
        topic = found[self.settings.topic]
        return TopicLimits(min(self.settings.max_message_bytes, topic.max_message_bytes), topic.partitions)

    def record(self, message: Message, max_bytes: int) -> Record:
        """The message as a Kafka record; without its data when it would be too large."""
        key, headers = cloudevents.key(message), cloudevents.headers(message)
        whole = Record(self.settings.topic, key, cloudevents.encode(message, self.settings.source), headers)
        if whole.size <= max_bytes:
            return whole
        return Record(self.settings.topic, key, cloudevents.encode_without_data(message, self.settings.source), headers)

    def state_record(self, published: Published) -> Record:
        """The state as a Kafka record, to be sent in the transaction of what it tells of."""
        return Record(self.settings.state_topic, self.state_key, published.encode())


class RouteWriter:
    """A route that is open: the producer that has fenced all earlier ones, and what they published."""

    def __init__(
        self, route: Route, producer: Producer, limits: TopicLimits, published: Published | None, state_error: str
    ) -> None:
        self._route = route
        self._producer = producer
        self._limits = limits
        self.published = published
        """None while Kafka holds no state of this route that can be read."""
        self.state_error = state_error
        """Why not, where there is something; else empty."""

    @classmethod
    async def open(cls, route: Route, limits: TopicLimits, open_producer: OpenProducer) -> Self:
        """Fences predecessors, then reads what they left: in this order, or the state may be stale. (Without
        transactions it may be: then some messages come twice.)"""
        producer = await open_producer(route.cluster, route.transactional_id, limits.max_bytes)
        try:
            value = await latest_value(route.cluster, route.settings.state_topic, route.state_key)
        except BaseException:
            await producer.close()
            raise
        try:
            return cls(route, producer, limits, None if value is None else Published.decode(value), "")
        except ValueError as error:
            return cls(route, producer, limits, None, str(error))

    @property
    def published_so_far(self) -> Published:
        """What was published, of a passage whose place was found."""
        assert self.published is not None, "the relay has found its place"
        return self.published

    async def verify_offsets(self, published: Published) -> None:
        """Raises StoppedError when the topic ends before what was published: it was made anew, which brokers do by
        themselves where topics are created for who asks for them, or has lost its newest messages."""
        topic, reached = self._route.settings.topic, published.offsets
        found = await end_offsets(self._route.cluster, topic, self._limits.partitions)
        for partition, offset in reached.items():
            if found.get(partition, 0) <= offset:
                raise partition_truncated(self._route.name, published.position, partition, offset)
        self.published = replace(published, offsets={one: end - 1 for one, end in found.items() if end})

    async def start_after(self, origin: Origin) -> None:
        """Nothing was published: the route begins with the oldest message that the stream has."""
        self.published = Published(origin.position, origin.id)
        if origin.position:  # Kafka knows it before the database does, or Kafka would seem to have forgotten it
            await self.publish((), self.published)

    def use_limits(self, limits: TopicLimits) -> None:
        """From now on, this is what the topic takes."""
        self._limits = limits

    async def publish(self, messages: Sequence[Message], published: Published) -> None:
        """Moves messages (none, when only the state changes) and their state in one transaction. After a BrokerError
        the outcome is unknown, and the passage is to be closed. Raises RefusedError when at least one of the messages
        will never be accepted, StoppedError when a topic lost what was there before: nothing was committed then."""
        topic, state_topic = self._route.settings.topic, self._route.settings.state_topic
        try:
            await self._send(messages, published)
        except RejectedError as error:
            if error.topic == state_topic:
                raise TopicError(f"{error}: it is too small or too strict to hold the relay's position") from error
            raise
        except MessagesLostError as error:
            so_far = published.position if self.published is None else self.published.position
            raise (
                partition_truncated(self._route.name, so_far, error.partition, error.offset)
                if error.topic == topic
                else position_lost(self._route.name, so_far)
            ) from error
        await self._producer.commit()
        self.published = self._with_offsets(published)

    async def _send(self, messages: Sequence[Message], published: Published) -> None:
        await self._producer.begin()
        for number, message in enumerate(messages, 1):
            await self._producer.send(self._route.record(message, self._limits.max_bytes))
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if not (self._route.settings.transactions and published.offsets):
            # Without transactions the position must not arrive before what it speaks of. With them both travel at once,
            # and the state tells what earlier ones reached; the first one has none before it.
            await self._producer.flush()
            published = self._with_offsets(published)
        await self._producer.send(self._route.state_record(published))
        await self._producer.flush()

    def _with_offsets(self, published: Published) -> Published:
        topic = self._route.settings.topic
        arrived = {
            partition: offset for (where, partition), offset in self._producer.acknowledged.items() if where == topic
        }
        return replace(published, offsets={**published.offsets, **arrived})

    async def check(self) -> None:
        """Raises BrokerError when no broker answers."""
        await self._producer.check()

    async def close(self) -> None:
        """Lets go of the brokers."""
        await self._producer.close()
