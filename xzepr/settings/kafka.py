"""Settings of the relay into Kafka."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from xzepr.settings.types import Count, Seconds, Section, Text, Topic, contradiction


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class KafkaSettings(Section):
    """The relay into Kafka."""

    brokers: tuple[Text, ...] = Field(
        default=(),
        description="host:port of brokers. With none the relay waits; name them later, and history follows.",
    )
    topic: Topic = Field(default="xzepr.events", description="The topic that receives the stream.")
    state_topic: Topic = Field(
        default="xzepr.relay", description="The compacted topic that holds the relay's position."
    )
    partitions: Count = Field(default=6, description="Partitions of `topic`, when the relay creates it.")
    replication_factor: Annotated[Count, Field(le=32767)] = Field(
        default=1, description="Copies of each partition, when the relay creates a topic."
    )
    source: Annotated[str, Field(min_length=1, pattern=r"^[!-~]+$")] = Field(
        default="/xzepr", description="The `source` of the CloudEvents, a URI reference."
    )
    enabled: bool = Field(default=True, description="Run the relay in this process.")
    max_transaction_messages: Count = Field(default=2000, description="Most messages in one Kafka transaction.")
    max_message_bytes: Count = Field(
        default=1_000_000,
        description="Largest message, in bytes; a larger one goes without its data and says where that is.",
    )
    timeout_seconds: Seconds = Field(default=30, description="Seconds that one call to Kafka may take.")
    transactions: bool = Field(
        default=True,
        description="Each message exactly once for consumers that read committed. Without, for brokers that have no "
        "transactions: at least once, so that some come twice after a crash.",
    )
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        Field(default="PLAINTEXT", description="How brokers are spoken to: with TLS (SSL), a password (SASL), or both.")
    )
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(_upper)] = (
        Field(default=None, description="How the password is proven. PLAIN sends it: use it with TLS only.")
    )
    sasl_username: Text | None = Field(default=None, description="Who the relay is to the brokers.")
    sasl_password: SecretStr | None = Field(default=None, description="The password of that user.")
    tls_ca_file: Path | None = Field(
        default=None, description="Certificates of who vouches for the brokers, PEM; without it, the system's own."
    )
    tls_cert_file: Path | None = Field(default=None, description="The relay's own certificate, PEM, if brokers ask.")
    tls_key_file: Path | None = Field(default=None, description="Its key, PEM, without a password.")

    @model_validator(mode="after")
    def _security_is_whole(self) -> Self:
        sasl = ("sasl_mechanism", "sasl_username", "sasl_password")
        tls = ("tls_ca_file", "tls_cert_file", "tls_key_file")
        for name in sasl:
            given = getattr(self, name) is not None
            if given and not self.security_protocol.startswith("SASL"):
                raise contradiction("passwords need SASL_PLAINTEXT or SASL_SSL", "security_protocol", name)
            if not given and self.security_protocol.startswith("SASL"):
                raise contradiction("SASL needs a mechanism, a user name and a password", "security_protocol", name)
        for name in tls:
            if getattr(self, name) is not None and not self.security_protocol.endswith("SSL"):
                raise contradiction("certificates need SSL or SASL_SSL", "security_protocol", name)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise contradiction("a certificate needs its key", "tls_cert_file", "tls_key_file")
        return self

    @model_validator(mode="after")
    def _topics_differ(self) -> Self:
        if self.topic == self.state_topic:
            raise contradiction("one topic cannot be both", "topic", "state_topic")
        return self
