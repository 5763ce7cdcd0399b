"""Topics: reads their configuration, and creates missing ones."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import for_code

from xzepr.infra.kafka.bootstrap import diagnose
from xzepr.infra.kafka.cluster import BrokerError, Cluster, TopicError, call

# Kafka's error codes.
_TOPIC_EXISTS = 36
_POLICY_VIOLATION, _INVALID_REPLICATION_FACTOR, _NOT_ALLOWED = 44, 38, 29


@dataclass(frozen=True, slots=True)
class Topic:
    """An existing topic."""

    name: str
    partitions: int
    cleanup_policy: str
    max_message_bytes: int


@dataclass(frozen=True, slots=True)
class NewTopicSpec:
    """A topic to create."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] = field(default_factory=dict[str, str])


class Topics:
    """Access to the topics of a cluster over one connection, opened and closed by `async with`."""

    def __init__(self, cluster: Cluster) -> None:
        """Opens no connection yet. Raises BrokerError if a certificate cannot be read."""
        self._cluster = cluster
        self._client: Any = AIOKafkaAdminClient(client_id="xzepr-relay", **cluster.options())

    async def __aenter__(self) -> "Topics":
        try:
            async with call(self._cluster, "connect to the brokers"):
                await self._client.start()
        except BaseException as error:
            await self.close()
            if isinstance(error, BrokerError) and (why := await diagnose(self._cluster)):
                raise BrokerError(f"connect to the brokers: {why}") from error
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection."""
        with suppress(BrokerError):
            async with call(self._cluster, "close", 5.0):
                await self._client.close()

    async def find(self, names: Sequence[str]) -> dict[str, Topic]:
        """Returns those of the named topics that exist, by name. Raises BrokerError."""
        async with call(self._cluster, "read topics"):
            # Requests all topics: brokers that create topics on demand would create one that is requested by name.
            described: list[dict[str, Any]] = await self._client.describe_topics()
            partitions = {topic["topic"]: len(topic["partitions"]) for topic in described}
            return {name: await self._read(name, partitions[name]) for name in names if name in partitions}

    async def _read(self, name: str, partitions: int) -> Topic:
        resource = ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": "", "max.message.bytes": ""})
        [response] = await self._client.describe_configs([resource])
        error, message, _, _, entries = response.resources[0]
        if error:
            raise BrokerError(f"read the configuration of topic {name}: {message or for_code(error).__name__}")
        values: dict[str, str] = {entry[0]: entry[1] for entry in entries}
        return Topic(name, partitions, values["cleanup.policy"], int(values["max.message.bytes"]))

    async def create(self, spec: NewTopicSpec) -> Topic:
        """Creates a topic, unless it exists, and waits until brokers list it.

        Raises TopicError if an operator has to act, BrokerError otherwise.
        """
        new = NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=dict(spec.config))
        async with call(self._cluster, f"create topic {spec.name}"):
            response = await self._client.create_topics([new])
            _, error, message = response.topic_errors[0][:3]
            if error not in (0, _TOPIC_EXISTS):
                raise _creation_error(spec.name, error, message)
            while True:
                if topics := await self.find([spec.name]):
                    return topics[spec.name]
                await asyncio.sleep(0.05)


def _creation_error(name: str, error: int, message: str | None) -> Exception:
    text = f"topic {name} cannot be created: {message or for_code(error).__name__}"
    if error in (_POLICY_VIOLATION, _INVALID_REPLICATION_FACTOR, _NOT_ALLOWED):
        return TopicError(f"{text} Create it, or change the kafka settings")
    return BrokerError(text)
