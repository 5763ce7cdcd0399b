"""The relay on brokers that require SASL and mutual TLS, tested on a real broker."""

import asyncio
import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.kafka import Broker, NoBrokerError, free_port, jars
from tests.support.relay import (
    append,
    assert_exactly_once,
    consume,
    kafka_settings,
    new_relay,
    open_stream,
    running,
    until,
    until_relayed,
)
from xzepr.features.relay.model import RelayState
from xzepr.settings import KafkaSettings

pytestmark = pytest.mark.kafka

_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_PROPERTIES = """listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
user_relay="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location={folder}/ca.pem
listener.name.sasl_ssl.ssl.client.auth=required
"""


class Authority:
    """A certificate authority that writes its certificates as PEM files into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign("authority", self._key, authority=True)
        (folder / "ca.pem").write_bytes(_pem(self._certificate))

    def issue(self, name: str) -> None:
        """Writes `name.crt`, `name.key`, and both in `name.pem`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _pem(self._sign(name, key))
        private_key = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / f"{name}.crt").write_bytes(certificate)
        (self.folder / f"{name}.key").write_bytes(private_key)
        (self.folder / f"{name}.pem").write_bytes(private_key + certificate)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool = False) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class SecuredBroker:
    """A broker that requires a password and a client certificate, with the authority of its certificates."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder / "certificates")
        for name in ("broker", "relay"):
            self.authority.issue(name)
        port, plain = free_port(), free_port()
        self.plain = f"127.0.0.1:{plain}"
        options = [f"--add-scram={kind}=[name=relay,password=pencil]" for kind in _MECHANISMS[1:]]
        self.broker = Broker(folder / "kafka", port, format_options=options)
        self.broker.properties = _PROPERTIES.format(
            plain=plain,
            port=port,
            controller=self.broker.controller,
            password="pencil",
            folder=self.authority.folder,
        )

    def settings(self, **overrides: object) -> KafkaSettings:
        """Returns settings that the broker accepts, with `overrides`."""
        folder = self.authority.folder
        values: dict[str, object] = {
            "security_protocol": "sasl_ssl",
            "sasl_mechanism": "scram-sha-512",
            "sasl_username": "relay",
            "sasl_password": "pencil",
            "tls_ca_file": folder / "ca.pem",
            "tls_cert_file": folder / "relay.crt",
            "tls_key_file": folder / "relay.key",
        }
        return kafka_settings(self.broker.bootstrap, **(values | overrides))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    try:
        jars()
    except NoBrokerError as missing:
        pytest.skip(f"no Kafka broker: {missing}")
    secured_broker = SecuredBroker(tmp_path_factory.mktemp("secured"))
    secured_broker.broker.start()
    yield secured_broker
    secured_broker.broker.stop()


@pytest.mark.parametrize("mechanism", _MECHANISMS)
async def test_authenticated_relay_delivers_exactly_once(
    secured: SecuredBroker, database_url: str, mechanism: str
) -> None:
    settings = secured.settings(sasl_mechanism=mechanism)
    async with open_stream(database_url) as stream:
        await append(stream, 300)
        async with running(new_relay(stream, settings)) as relay:
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, secured.plain, settings.topic), 300)


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        ({"sasl_password": "pen"}, "invalid credentials"),
        ({"sasl_username": "stranger"}, "invalid credentials"),
        ({"tls_ca_file": None}, "certificate verify failed"),
        ({"tls_cert_file": None, "tls_key_file": None}, "that is not configured"),
        (
            {"security_protocol": "SSL", "sasl_mechanism": None, "sasl_username": None, "sasl_password": None},
            "that is not configured",
        ),
        ({"tls_cert_file": Path("/nowhere/relay.crt")}, "No such file"),
    ],
    ids=["wrong password", "unknown user", "untrusted authority", "no certificate", "no password", "missing file"],
)
async def test_rejected_relay_waits_for_correct_settings(
    secured: SecuredBroker, database_url: str, mistake: dict[str, object], reason: str
) -> None:
    correct = secured.settings(timeout_seconds=3)
    async with open_stream(database_url) as stream:
        await append(stream, 5)
        rejected = secured.settings(**mistake, timeout_seconds=3, topic=correct.topic, state_topic=correct.state_topic)
        async with running(new_relay(stream, rejected)) as relay:
            await until(lambda: reason in relay.status.detail)
            assert relay.status.state is RelayState.WAITING_FOR_BROKERS
            assert "pen" not in relay.status.detail
        async with running(new_relay(stream, correct)) as relay:
            await until_relayed(relay, stream)
    assert_exactly_once(await asyncio.to_thread(consume, secured.plain, correct.topic), 5)
