"""The start of a hub, the import of its command line, and the memory of an idle worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.environment import READY_SECONDS, hub_variables, wait_until_ready
from tests.bench.processors import family, resident_kib
from tests.bench.session import FILLED, Session
from tests.support.kafka import free_port

WORKERS = 2
_IDLE_SECONDS = 2.0  # until a worker that has just started is idle
_DATABASE = "start"
# The families of commands that speak to a hub.
FAMILIES = ("login", "users", "apply", "events", "gates", "stream")
_IMPORT = """
import sys, time
began = time.perf_counter()
import xzepr.__main__
xzepr.__main__.assemble(sys.argv[1:])
print(time.perf_counter() - began)
"""


def measure(session: Session) -> None:
    """Measures all three in each round. The hub starts with an embedded database that a first start has created."""
    folder = session.environment.folder / "start"
    with _starting(folder):
        pass
    url = session.environment.database(_DATABASE, FILLED)
    for round in session.rounds:
        with _starting(folder) as seconds:
            session.record("start", "hub", round, {"seconds": seconds})
        slowest = max(_import_seconds(command) for command in FAMILIES)
        session.record("import", "xzepr", round, {"seconds": slowest})
        with session.environment.hub(url, "--workers", str(WORKERS)) as hub:
            time.sleep(_IDLE_SECONDS)
            sizes = sorted((resident_kib(process) for process in family(hub.process)[1:]), reverse=True)
            session.record("worker", "hub_2", round, {"mib": max(sizes[:WORKERS]) / 1024})
    session.environment.drop(_DATABASE)


@contextmanager
def _starting(folder: Path) -> Generator[float]:
    """Starts a hub in a folder, and yields the seconds until it was ready. SIGTERM ends it."""
    port = free_port()
    command = [sys.executable, "-m", "xzepr", "serve", "--port", str(port), "--data-dir", str(folder)]
    environment = os.environ | hub_variables(folder)
    began = time.perf_counter()
    with (folder / "serve.log").open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/health/ready", folder / "serve.log")
        yield time.perf_counter() - began
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(READY_SECONDS)


def _import_seconds(command: str) -> float:
    """Returns the seconds in which a new interpreter imports the command line and one family of commands."""
    printed = subprocess.run([sys.executable, "-c", _IMPORT, command], check=True, capture_output=True, text=True)
    return float(printed.stdout)
