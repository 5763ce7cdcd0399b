"""A Kafka cluster: its addresses and security, time limits of calls, and the errors that calls raise."""

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
    """How the hub and the brokers authenticate each other."""

    protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    mechanism: str | None = None
    """With SASL: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Trusted authorities (PEM); None for those that the system trusts."""
    cert_file: Path | None = None
    key_file: Path | None = None

    def options(self) -> dict[str, Any]:
        """Returns options for any aiokafka client. Raises OSError if a file cannot be read.

        Reads the files each time, so that a new connection uses renewed certificates.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.cert_file is not None:
                # The empty password makes an encrypted key an error. Without it, OpenSSL would prompt at the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            options["ssl_context"] = context
        if self.mechanism is not None:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kafka cluster, and how to connect to it."""

    brokers: tuple[str, ...]
    """host:port of at least one broker."""
    timeout_seconds: float = 30.0
    """Time limit of one call."""
    security: Security = Security()

    def options(self) -> dict[str, Any]:
        """Returns options for any aiokafka client. Raises BrokerError if a certificate cannot be read."""
        try:
            security = self.security.options()
        except OSError as error:  # includes ssl.SSLError
            raise BrokerError(f"read the certificates of kafka.tls_*: {error}") from error
        return security | {"bootstrap_servers": ",".join(self.brokers), "request_timeout_ms": self.timeout_ms}

    @property
    def timeout_ms(self) -> int:
        """The time limit in milliseconds, for the client's own requests."""
        return int(self.timeout_seconds * 1000)


class BrokerError(Exception):
    """A call to Kafka failed or timed out, and its outcome is unknown. The client must not be used again."""


class FencedError(BrokerError):
    """A newer producer has this transactional id, or the transaction took too long: Kafka reports both alike."""


class CompetingProducerError(FencedError):
    """A newer producer has this transactional id: the transaction was too young to have taken too long."""


class RejectedError(BrokerError):
    """The brokers will never accept at least one of the messages that were sent.

    Brokers check batches, so other messages of the same batch are rejected, too.
    """

    def __init__(self, topic: str, reason: str) -> None:
        """`reason` is for an operator."""
        super().__init__(f"topic {topic} rejects a message: {reason}")
        self.topic = topic
        self.reason = reason


class MessagesLostError(Exception):
    """A partition ends before an acknowledged message: its topic was recreated, or brokers lost its newest messages."""

    def __init__(self, topic: str, partition: int, offset: int) -> None:
        """`offset` is that of the acknowledged message."""
        super().__init__(f"partition {partition} of topic {topic} ends before offset {offset}, which it had reached")
        self.topic = topic
        self.partition = partition
        self.offset = offset


class InvalidRecordError(BrokerResponseError):
    """A broker's validation of a record failed. aiokafka does not know this error code."""

    errno = 87
    message = "INVALID_RECORD"
    description = "the broker found the record invalid"


kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

# Errors caused by a record itself. A rejected timestamp is not one: a clock is wrong, and the record is accepted later.
REJECTIONS = (MessageSizeTooLargeError, RecordListTooLargeError, InvalidRecordError)


def rejection(topic: str, error: BrokerResponseError) -> RejectedError:
    """Converts one of REJECTIONS, with a reason for an operator."""
    if isinstance(error, InvalidRecordError):
        return RejectedError(topic, f"{error.description} ({error.message})")
    return RejectedError(
        topic, f"it is larger than the topic allows ({error.message}: max.message.bytes, segment.bytes)"
    )


class TopicError(Exception):
    """A topic is unsuitable, and an operator has to act; the message explains how."""


@asynccontextmanager
async def call(cluster: Cluster, action: str, seconds: float | None = None) -> AsyncGenerator[None]:
    """Limits the time of the block (to `seconds`, or the cluster's limit) and converts its errors to BrokerError.

    aiokafka itself has no time limits, and raises anything from KafkaError to AssertionError.
    """
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
        raise BrokerError(f"{action}: the client gave up") from None  # the client cancelled its own task, not this one
    except ProducerFenced as error:
        raise FencedError(f"{action}: fenced by another producer, or the transaction took too long") from error
    except TimeoutError as error:
        raise BrokerError(f"{action}: no answer within {limit:g} seconds") from error
    except Exception as error:
        raise BrokerError(f"{action}: {str(error) or type(error).__name__}") from error
