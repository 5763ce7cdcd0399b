"""A route into Kafka: its topics, its records, and the transactions that publish messages."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

from xzepr.features.relay.hanging import RouteTopics, end_hanging_transactions
from xzepr.features.relay.model import Published, partition_truncated, position_lost
from xzepr.features.stream import cloudevents
from xzepr.features.stream.model import Message, Origin
from xzepr.infra.kafka.cluster import Cluster, MessagesLostError, RejectedError, Security, TopicError
from xzepr.infra.kafka.latest import end_offsets, latest_value
from xzepr.infra.kafka.producer import Producer, Record
from xzepr.infra.kafka.topics import NewTopicSpec, Topic, Topics
from xzepr.settings import KafkaSettings

_YIELD_EVERY = 50  # messages that are sent before the event loop may run other tasks

OpenProducer = Callable[[Cluster, str | None, int], Awaitable[Producer]]


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """The limits of the route's topic."""

    max_bytes: int
    """Maximum size of one message."""
    partitions: int


@dataclass(frozen=True, slots=True)
class Route:
    """A destination of the relay: one topic that receives the whole stream, as CloudEvents."""

    settings: KafkaSettings
    hub_id: str

    @property
    def name(self) -> str:
        """The topic's name. Another topic is another route, and receives the whole history."""
        return self.settings.topic

    @property
    def cluster(self) -> Cluster:
        """The Kafka cluster of the settings."""
        settings = self.settings
        password = None if settings.sasl_password is None else settings.sasl_password.get_secret_value()
        security = Security(
            protocol=settings.security_protocol,
            mechanism=settings.sasl_mechanism,
            username=settings.sasl_username,
            password=password,
            ca_file=settings.tls_ca_file,
            cert_file=settings.tls_cert_file,
            key_file=settings.tls_key_file,
        )
        return Cluster(settings.brokers, settings.timeout_seconds, security)

    @property
    def transactional_id(self) -> str | None:
        """The id that Kafka lets only one producer use at a time; None if transactions are off."""
        if not self.settings.transactions:
            return None
        return f"xzepr-relay-{self.hub_id}-{self.name}"

    @property
    def state_key(self) -> bytes:
        """The key of the route's state in the state topic, which several hubs may share."""
        return f"{self.hub_id}/{self.name}".encode()

    def topics(self, partitions: int) -> RouteTopics:
        """Returns the route's topics, if its topic has this number of partitions."""
        settings = self.settings
        return RouteTopics(
            self.cluster, settings.topic, partitions, settings.state_topic, self.state_key, settings.source
        )

    def new_topics(self) -> list[NewTopicSpec]:
        """Returns the specifications by which missing topics are created."""
        settings = self.settings
        state_config = {
            "cleanup.policy": "compact",
            # The newest segment is never compacted: with Kafka's default of 1 GiB, compaction would take days to begin.
            "segment.bytes": str(16 * 1024 * 1024),
            "min.cleanable.dirty.ratio": "0.1",
        }
        return [
            NewTopicSpec(settings.topic, settings.partitions, settings.replication_factor),
            NewTopicSpec(settings.state_topic, 1, settings.replication_factor, state_config),
        ]

    def check_state_topic(self, topics: dict[str, Topic]) -> None:
        """Raises TopicError if the state topic could lose the relay's state."""
        state = topics.get(self.settings.state_topic)
        if state is None:
            return
        if state.cleanup_policy != "compact":
            raise TopicError(
                f"topic {state.name} has cleanup.policy={state.cleanup_policy}, and would delete the relay's "
                "position: set cleanup.policy=compact, or name another topic in kafka.state_topic"
            )
        if state.partitions != 1:
            raise TopicError(
                f"topic {state.name} has {state.partitions} partitions, and the relay's state needs exactly 1: name "
                "another topic in kafka.state_topic"
            )

    async def prepare(self, published_position: int) -> TopicLimits:
        """Creates missing topics, and returns the limits of the route's topic.

        `published` is the published position. Raises RelayStopped if it is not 0 and a topic is missing, TopicError if
        a topic is unsuitable.
        """
        specs = {spec.name: spec for spec in self.new_topics()}
        async with Topics(self.cluster) as client:
            topics = await client.find(list(specs))
            self.check_state_topic(topics)
            missing = [spec for name, spec in specs.items() if name not in topics]
            if missing and published_position:
                raise position_lost(self.name, published_position)
            for spec in missing:
                topics[spec.name] = await client.create(spec)
        topic = topics[self.settings.topic]
        return TopicLimits(min(self.settings.max_message_bytes, topic.max_message_bytes), topic.partitions)

    def record(self, message: Message, max_bytes: int) -> Record:
        """Returns the message as a Kafka record, without its data if the record would exceed `max_bytes`."""
        key, headers = cloudevents.key(message), cloudevents.headers(message)
        record = Record(self.settings.topic, key, cloudevents.encode(message, self.settings.source), headers)
        if record.size <= max_bytes:
            return record
        return Record(self.settings.topic, key, cloudevents.encode_without_data(message, self.settings.source), headers)

    def state_record(self, published: Published) -> Record:
        """Returns the state as a Kafka record, to be sent in the transaction of the messages it covers."""
        return Record(self.settings.state_topic, self.state_key, published.encode())


class RouteWriter:
    """Publishes to a route, with a producer that has fenced all earlier ones."""

    def __init__(
        self,
        route: Route,
        producer: Producer,
        limits: TopicLimits,
        *,
        published: Published | None,
        state_error: str = "",
    ) -> None:
        self._route = route
        self._producer = producer
        self._limits = limits
        self.published_or_none = published
        """The route's state; None if Kafka had no readable state, until the relay has found its position."""
        self.state_error = state_error
        """Why the state in Kafka cannot be read; empty if there is none or it can be read."""

    @classmethod
    async def open(cls, route: Route, limits: TopicLimits, open_producer: OpenProducer) -> Self:
        """Fences earlier producers, then reads the state that they left. In the other order, the state could be stale.

        Without transactions the state may be stale, and some messages are then duplicated. Raises BrokerError.
        """
        producer = await open_producer(route.cluster, route.transactional_id, limits.max_bytes)
        try:
            open_at = None
            if route.transactional_id is not None:
                open_at = await end_hanging_transactions(route.topics(limits.partitions), producer)
            value = await latest_value(route.cluster, route.settings.state_topic, route.state_key, open_at=open_at)
        except BaseException:
            await producer.close()
            raise
        try:
            published = None if value is None else Published.decode(value)
        except ValueError as error:
            return cls(route, producer, limits, published=None, state_error=str(error))
        return cls(route, producer, limits, published=published)

    @property
    def published(self) -> Published:
        """The route's state, once the relay has found its position."""
        assert self.published_or_none is not None, "the relay has found its position"
        return self.published_or_none

    async def verify_offsets(self, published: Published) -> None:
        """Raises RelayStopped if the topic ends before the published offsets.

        The topic was then recreated, or lost its newest messages. Brokers recreate topics by themselves if they create
        topics on demand. Otherwise replaces the published offsets with those at which the partitions end now.
        """
        ends = await end_offsets(self._route.cluster, self._route.settings.topic, self._limits.partitions)
        for partition, offset in published.offsets.items():
            if ends.get(partition, 0) <= offset:
                raise partition_truncated(self._route.name, published.position, partition, offset)
        self.published_or_none = replace(
            published, offsets={partition: end - 1 for partition, end in ends.items() if end}
        )

    async def start_after(self, origin: Origin) -> None:
        """Starts a route that was never published, with the oldest message of the stream."""
        self.published_or_none = Published(origin.position, origin.id)
        if origin.position:  # Kafka gets it before the database: in the other order, a crash would look like lost data
            await self.publish((), self.published_or_none)

    def use_limits(self, limits: TopicLimits) -> None:
        """Applies new limits of the topic from now on."""
        self._limits = limits

    async def publish(self, messages: Sequence[Message], published: Published) -> None:
        """Publishes messages (none if only the state changes) and the new state in one transaction.

        Raises RejectedError if the brokers will never accept at least one of the messages, TopicError if they will
        never accept the state, RelayStopped if a topic lost earlier messages; then nothing was committed. After any
        other BrokerError the outcome is unknown. After every error, the writer must be closed.
        """
        topic, state_topic = self._route.settings.topic, self._route.settings.state_topic
        try:
            await self._send(messages, published)
        except RejectedError as error:
            if error.topic == state_topic:
                raise TopicError(f"{error}: its limits are too small or too strict for the relay's position") from error
            raise
        except MessagesLostError as error:
            position = published.position if self.published_or_none is None else self.published_or_none.position
            raise (
                partition_truncated(self._route.name, position, error.partition, error.offset)
                if error.topic == topic
                else position_lost(self._route.name, position)
            ) from error
        await self._producer.commit()
        self.published_or_none = self._with_offsets(published)

    async def _send(self, messages: Sequence[Message], published: Published) -> None:
        await self._producer.begin()
        for number, message in enumerate(messages, 1):
            await self._producer.send(self._route.record(message, self._limits.max_bytes))
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)
        if not (self._route.settings.transactions and published.offsets):
            # Without transactions, the state must not arrive before the messages that it covers. With transactions both
            # are sent at once, and the state has the offsets of earlier transactions, except for the first one.
            await self._producer.flush()
            published = self._with_offsets(published)
        await self._producer.send(self._route.state_record(published))
        await self._producer.flush()

    def _with_offsets(self, published: Published) -> Published:
        topic = self._route.settings.topic
        offsets = {
            partition: offset for (name, partition), offset in self._producer.acknowledged.items() if name == topic
        }
        return replace(published, offsets={**published.offsets, **offsets})

    async def check(self) -> None:
        """Raises BrokerError if no broker responds."""
        await self._producer.check()

    async def close(self) -> None:
        """Closes the producer."""
        await self._producer.close()
