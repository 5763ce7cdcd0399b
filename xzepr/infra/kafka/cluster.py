"""A Kafka cluster: where it is, how long a call to it may take, and how its failures are told."""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.errors import (
    BrokerResponseError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
    kafka_errors,
)


@dataclass(frozen=True, slots=True)
class Security:
    """How brokers know us, and we them."""

    protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    mechanism: str | None = None
    """PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512, with SASL."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """PEM; None: whom the system trusts."""
    cert_file: Path | None = None
    key_file: Path | None = None

    def options(self) -> dict[str, Any]:
        """For any of aiokafka's clients. Files are read each time, so that renewed certificates are used as soon as
        the relay connects anew. Raises OSError."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # A key with a password would make OpenSSL ask for it at the terminal: refused instead.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            options["ssl_context"] = context
        if self.mechanism is not None:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where the brokers are."""

    brokers: tuple[str, ...]
    """host:port, any that are known."""
    timeout_seconds: float = 30.0
    """Seconds that one call may take."""
    security: Security = Security()

    def options(self) -> dict[str, Any]:
        """What all of aiokafka's clients are given. Raises BrokerError when a certificate cannot be read."""
        try:
            security = self.security.options()
        except OSError as error:  # of which ssl.SSLError is one
            raise BrokerError(f"read the certificates of kafka.tls_*: {error}") from error
        return security | {"bootstrap_servers": ",".join(self.brokers), "request_timeout_ms": self.timeout_ms}

    @property
    def timeout_ms(self) -> int:
        """The same in milliseconds, for the client's own requests."""
        return int(self.timeout_seconds * 1000)


class BrokerError(Exception):
    """A call to Kafka failed or took too long, and what it did is unknown. What it was called on is of no more use."""


class FencedError(BrokerError):
    """A newer producer has this transactional id, or the transaction took too long: Kafka says the same for both."""


class CompetingProducerError(FencedError):
    """A newer producer has this transactional id: the transaction was too young to have taken too long."""


class RejectedError(BrokerError):
    """The brokers will not have what was sent, for what it is and not for how they are: it is refused every time. They
    judge batches, so that what was sent together with the culprit is refused with it."""

    def __init__(self, topic: str, reason: str) -> None:
        """`reason` is for an operator."""
        super().__init__(f"topic {topic} refuses a message: {reason}")
        self.topic = topic
        self.reason = reason


class MessagesLostError(Exception):
    """A partition ends before a message that had arrived in it: its topic was made anew, or brokers lost its end."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        """`reached` is the offset of that message."""
        super().__init__(f"partition {partition} of topic {topic} ends before offset {offset}, which it had reached")
        self.topic = topic
        self.partition = partition
        self.offset = offset


class InvalidRecordError(BrokerResponseError):
    """What aiokafka takes for an unknown error: a broker's own check of the record failed."""

    errno = 87
    message = "INVALID_RECORD"
    description = "the broker found the record invalid"


kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

REJECTIONS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)
"""The errors that are about a record. A time stamp that is refused is about somebody's clock, and passes."""


def rejection(topic: str, error: BrokerResponseError) -> RejectedError:
    """One of REFUSALS for an operator."""
    if isinstance(error, InvalidRecordError):
        return RejectedError(topic, f"{error.description} ({error.message})")
    return RejectedError(
        topic, f"it is larger than the topic takes ({error.message}: max.message.bytes, segment.bytes)"
    )


class TopicError(Exception):
    """A topic is not what it has to be, and an operator has to act; the message says how."""


@asynccontextmanager
async def call(cluster: Cluster, action: str, seconds: float | None = None) -> AsyncGenerator[None]:
    """Bounds what is awaited inside and turns every failure of it into BrokerError.

    aiokafka has no time limits of its own, and fails with anything from KafkaError to AssertionError."""
    limit = cluster.timeout_seconds if seconds is None else seconds
    try:
        async with asyncio.timeout(limit):
            yield
    except (BrokerError, MessagesLostError, TopicError):
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise BrokerError(f"{action}: the client gave up") from None  # a task of its own was cancelled, not ours
    except ProducerFenced as error:
        raise FencedError(f"{action}: fenced by another producer, or the transaction took too long") from error
    except TimeoutError as error:
        raise BrokerError(f"{action}: no answer within {limit:g} seconds") from error
    except Exception as error:
        raise BrokerError(f"{action}: {str(error) or type(error).__name__}") from error
