"""Real Kafka brokers for tests, with jars from Maven Central. Also a pytest plugin, and the program of `make kafka`."""

import base64
import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest

KAFKA = "4.3.1"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
CLUSTER_ID = "xzeprTestCluster000001"

_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>io.xzepr.tests</groupId>
  <artifactId>kafka</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""

# Small: one replica of everything, no initial delay for consumer groups, and a log cleaner that fits a small heap.
# A killed node can register again at once.
_PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.bootstrap.servers={controllers}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
log.dirs={data}
num.partitions=3
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=2097152
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=300
"""


class NoBrokerError(Exception):
    """This machine cannot run a broker. The message names the missing program."""


class BrokerStartError(Exception):
    """A broker does not start although no program is missing. The message contains the end of its log."""


def jars() -> Path:
    """Returns the folder of Kafka's jars, which Maven fetches the first time.

    Raises NoBrokerError if java or mvn is missing.
    """
    if shutil.which("java") is None:
        raise NoBrokerError("no java on this machine")
    folder = CACHE / f"libs-{KAFKA}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    if shutil.which("mvn") is None:
        raise NoBrokerError("no mvn on this machine to fetch Kafka with")
    (CACHE / "pom.xml").write_text(_POM.format(kafka=KAFKA))
    with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
        command = ["mvn", "-q", "-B", "-ntp", "-f", str(CACHE / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*command, "-DincludeScope=runtime", f"-DoutputDirectory={fresh}/libs"], capture_output=True, text=True
        )
        if done.returncode != 0:
            raise NoBrokerError(f"Maven could not fetch Kafka {KAFKA}: {done.stdout[-400:]}")
        os.rename(f"{fresh}/libs", folder)


def free_port() -> int:
    """Returns a loopback port on which no process listens now."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports. Separate calls of `free_port` may return the same port twice."""
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def die_with_parent() -> None:
    """For `preexec_fn`: kills the child when the thread that started it ends for any reason."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: no broker outlives a killed test run


class Broker:
    """A broker with its own folder and port. A test can stop or kill it and start it again with the same data."""

    def __init__(
        self, folder: Path, port: int | None = None, *, properties: str = "", format_options: Sequence[str] = ()
    ) -> None:
        """`properties` override those of every broker. `format_options` are options of the storage tool."""
        self.folder = folder
        own, self.controller = free_ports(2)
        self.port = port or own
        self.node = 1
        self.properties = properties
        self.controllers = f"127.0.0.1:{self.controller}"
        self.format_options = ["--standalone", *format_options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port`, also while the broker is down."""
        return f"127.0.0.1:{self.port}"

    def start(self, timeout: float = 60) -> None:
        """Starts the broker and waits until it serves.

        Raises NoBrokerError if there is no Kafka, BrokerStartError if the broker does not start.
        """
        self.launch()
        self.await_start(timeout)

    def launch(self) -> None:
        """Starts the broker without waiting. It ends with the calling thread."""
        libs = self.prepare()
        heap = ["-Xms128m", "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        with (self.folder / "broker.log").open("wb") as out:
            self._process = subprocess.Popen(
                ["java", *heap, "-cp", libs, "kafka.Kafka", str(self.folder / "server.properties")],
                stdout=out,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def prepare(self) -> str:
        """Fetches Kafka and formats the storage unless that is done. Returns the class path."""
        libs = f"{jars()}/*"
        if not (self.folder / "data").exists():
            self._format(libs)
        return libs

    def _format(self, libs: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        properties = self.folder / "server.properties"
        text = _PROPERTIES.format(
            node=self.node,
            controllers=self.controllers,
            port=self.port,
            controller=self.controller,
            data=self.folder / "data",
        )
        properties.write_text(text + self.properties)
        tool = ["java", "-cp", libs, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c", str(properties)]
        done = subprocess.run([*tool, *self.format_options], capture_output=True, text=True)
        if done.returncode != 0:
            raise BrokerStartError(f"the broker's storage cannot be formatted: {(done.stdout + done.stderr)[-800:]}")

    def await_start(self, timeout: float = 60) -> None:
        """Waits until the broker serves. Raises BrokerStartError if it does not."""
        process, log = self._process, self.folder / "broker.log"
        assert process is not None, "launch it first"
        end = time.monotonic() + timeout
        while not re.search(rb"Kafka Server started", log.read_bytes()):
            if process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise BrokerStartError(f"the broker did not start: {log.read_text()[-800:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stops the broker with SIGTERM. Does nothing if it is down."""
        self.signal(signal.SIGTERM)
        self.join()

    def kill(self) -> None:
        """Kills the broker with SIGKILL."""
        self.signal(signal.SIGKILL)
        self.join()

    def freeze(self) -> None:
        """Pauses the broker. It stops answering and closes no connection."""
        assert self._process is not None, "start it first"
        self._process.send_signal(signal.SIGSTOP)

    def signal(self, how: signal.Signals) -> None:
        """Sends a signal to the process if it runs."""
        if self._process is not None:
            self._process.send_signal(how)

    def join(self, seconds: float = 10) -> None:
        """Waits until the process has ended, and kills it after `seconds`."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


_THREE_REPLICAS = """offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
min.insync.replicas=2
unclean.leader.election.enable=false
"""


class Cluster:
    """Three brokers that are also controllers. Any two continue without the third."""

    def __init__(self, folder: Path) -> None:
        self.brokers = [Broker(folder / str(node), properties=_THREE_REPLICAS) for node in (1, 2, 3)]
        controllers = ",".join(broker.controllers for broker in self.brokers)
        voters = ",".join(
            f"{node}@127.0.0.1:{broker.controller}:{_directory_id(node)}" for node, broker in enumerate(self.brokers, 1)
        )
        for node, broker in enumerate(self.brokers, 1):
            broker.node = node
            broker.controllers = controllers
            broker.format_options = ["--initial-controllers", voters]

    @property
    def bootstrap(self) -> str:
        """The addresses of all three brokers, also while they are down."""
        return ",".join(broker.bootstrap for broker in self.brokers)

    def start(self) -> None:
        """Starts all brokers and waits until they serve."""
        for broker in self.brokers:
            broker.launch()
        for broker in self.brokers:
            broker.await_start()

    def stop(self) -> None:
        """Stops all brokers at once. Stopped one after another, the last would hang without a quorum."""
        for broker in self.brokers:
            broker.signal(signal.SIGTERM)
        for broker in self.brokers:
            broker.join(5)


def _directory_id(node: int) -> str:
    """Returns a Kafka UUID: 16 bytes in URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(bytes([node] * 16)).decode().rstrip("=")


@contextlib.contextmanager
def running(port: int | None = None) -> Generator[Broker]:
    """Runs a broker in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="xzepr-kafka-") as folder:
        broker = Broker(Path(folder), port)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


# The pytest plugin ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """The bootstrap address of the session's broker: that of XZEPR_TEST_KAFKA if set, else a new one."""
    named = os.environ.get("XZEPR_TEST_KAFKA")
    if named:
        yield named
        return
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(running())
        except NoBrokerError as missing:
            pytest.skip(f"no Kafka broker: {missing}")
        yield broker.bootstrap


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker for this test alone that is not started yet."""
    try:
        jars()
    except NoBrokerError as missing:
        pytest.skip(f"no Kafka broker: {missing}")
    broker = Broker(tmp_path / "kafka")
    yield broker
    broker.kill()


@pytest.fixture
def three_brokers(tmp_path: Path) -> Iterator[Cluster]:
    """A running cluster for this test alone."""
    try:
        jars()
    except NoBrokerError as missing:
        pytest.skip(f"no Kafka broker: {missing}")
    cluster = Cluster(tmp_path / "kafka")
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups the Kafka tests, so that they share one broker in one xdist worker (with --dist loadgroup)."""
    for item in items:
        if item.get_closest_marker("kafka"):
            item.add_marker(pytest.mark.xdist_group("kafka"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Reports how many Kafka tests were skipped, because a green run without them is incomplete."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "kafka" in report.keywords]
    if skipped:
        terminalreporter.write_line(
            f"{len(skipped)} kafka tests were skipped: {skipped[0].longrepr[2].removeprefix('Skipped: ')}", yellow=True
        )


def main() -> None:
    """Runs a broker in the foreground until Ctrl-C, then deletes its data."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt), running(port=19092) as broker:
            address = f"Kafka {KAFKA} at {broker.bootstrap} (XZEPR__KAFKA__BROKERS={broker.bootstrap})"
            sys.stdout.write(f"{address}; Ctrl-C stops it\n")
            sys.stdout.flush()
            signal.pause()
    except (NoBrokerError, BrokerStartError) as error:
        sys.exit(f"Kafka cannot run here: {error}")


if __name__ == "__main__":
    main()
