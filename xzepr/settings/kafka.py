"""Settings of the relay, which copies the stream to Kafka."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from xzepr.settings.types import Broker, Count, File, Seconds, Section, Text, Topic, contradiction


def _upper(value: object) -> object:
    return value.upper() if isinstance(value, str) else value


class KafkaSettings(Section):
    """The relay, which copies the stream to Kafka."""

    brokers: tuple[Broker, ...] = Field(
        default=(),
        description="host:port of each broker. Without brokers, the relay waits; once they are set, it copies the "
        "whole stream.",
    )
    topic: Topic = Field(default="xzepr.events", description="The topic to which the stream is copied.")
    state_topic: Topic = Field(
        default="xzepr.relay", description="The compacted topic in which the relay keeps its position."
    )
    partitions: Count = Field(default=6, description="Number of partitions if the relay creates `topic`.")
    replication_factor: Annotated[Count, Field(le=32767)] = Field(
        default=1, description="Number of replicas of each partition if the relay creates a topic."
    )
    source: Annotated[str, Field(min_length=1, pattern=r"^[!-~]+$")] = Field(
        default="/xzepr", description="The `source` of the CloudEvents, a URI reference."
    )
    enabled: bool = Field(default=True, description="Run the relay in this process.")
    max_transaction_messages: Count = Field(
        default=2000, description="Maximum number of messages in one Kafka transaction."
    )
    max_message_bytes: Count = Field(
        default=1_000_000,
        description="Maximum size of a message, in bytes; a larger one has a link to its data instead of the data.",
    )
    timeout_seconds: Seconds = Field(default=30, description="Seconds after which a call to Kafka fails.")
    transactions: bool = Field(
        default=True,
        description="Publish each message exactly once, for consumers with `read_committed`. Set it to false if the "
        "brokers have no transactions: delivery is then at least once, and a crash may duplicate messages.",
    )
    security_protocol: Annotated[Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"], BeforeValidator(_upper)] = (
        Field(default="PLAINTEXT", description="Protocol of the brokers: with TLS (SSL), a password (SASL), or both.")
    )
    sasl_mechanism: Annotated[Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, BeforeValidator(_upper)] = (
        Field(default=None, description="SASL mechanism. PLAIN sends the password itself: use it with TLS only.")
    )
    sasl_username: Text | None = Field(default=None, description="The relay's user name for the brokers.")
    sasl_password: SecretStr | None = Field(default=None, description="The password of `sasl_username`.")
    tls_ca_file: File | None = Field(
        default=None, description="CA certificates (PEM) to verify the brokers with; by default the system's."
    )
    tls_cert_file: File | None = Field(
        default=None, description="The relay's client certificate (PEM), for brokers that require one."
    )
    tls_key_file: File | None = Field(
        default=None, description="The private key (PEM) of the client certificate, without a passphrase."
    )

    @model_validator(mode="after")
    def _check_security(self) -> Self:
        sasl = ("sasl_mechanism", "sasl_username", "sasl_password")
        tls = ("tls_ca_file", "tls_cert_file", "tls_key_file")
        for name in sasl:
            is_set = getattr(self, name) is not None
            if is_set and not self.security_protocol.startswith("SASL"):
                raise contradiction("passwords need SASL_PLAINTEXT or SASL_SSL", "security_protocol", name)
            if not is_set and self.security_protocol.startswith("SASL"):
                raise contradiction("SASL needs a mechanism, a user name and a password", "security_protocol", name)
        for name in tls:
            if getattr(self, name) is not None and not self.security_protocol.endswith("SSL"):
                raise contradiction("certificates need SSL or SASL_SSL", "security_protocol", name)
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise contradiction("a certificate needs its key", "tls_cert_file", "tls_key_file")
        return self

    @model_validator(mode="after")
    def _check_topics(self) -> Self:
        if self.topic == self.state_topic:
            raise contradiction("the two topics must differ", "topic", "state_topic")
        return self
