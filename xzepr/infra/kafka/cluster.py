"""A Kafka cluster: where it is, how long a call to it may take, and how its failures are told."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka.errors import ProducerFenced


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the brokers are."""

    brokers: tuple[str, ...]
    """host:port, any that are known."""
    timeout: float = 30.0
    """Seconds that one call may take."""

    @property
    def timeout_ms(self) -> int:
        """The same in milliseconds, for the client's own requests."""
        return int(self.timeout * 1000)


class BrokerError(Exception):
    """A call to Kafka failed or took too long, and what it did is unknown. What it was called on is of no more use."""


class FencedError(BrokerError):
    """A newer producer has this transactional id, or the transaction took too long: Kafka says the same for both."""


class TopicError(Exception):
    """A topic is not what it has to be, and an operator has to act; the message says how."""


@asynccontextmanager
async def call(cluster: Cluster, what: str, seconds: float | None = None) -> AsyncGenerator[None]:
    """Bounds what is awaited inside and turns every failure of it into BrokerError.

    aiokafka has no time limits of its own, and fails with anything from KafkaError to AssertionError."""
    limit = cluster.timeout if seconds is None else seconds
    try:
        async with asyncio.timeout(limit):
            yield
    except (BrokerError, TopicError):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError(f"{what}: the client gave up") from None  # a task of its own was cancelled, not ours
    except ProducerFenced as error:
        raise FencedError(f"{what}: fenced by another producer, or the transaction took too long") from error
    except TimeoutError as error:
        raise BrokerError(f"{what}: no answer within {limit:g} seconds") from error
    except Exception as error:
        raise BrokerError(f"{what}: {str(error) or type(error).__name__}") from error
