"""The load generator `wrk`, which needs less processor time than a Python program."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path

import orjson

from tests.bench.load import LoadError, Measured, NoResponseError, Target, children_cpu_seconds

_SCRIPT = Path(__file__).parent / "press.lua"
_GRACE_SECONDS = 30


@cache
def version() -> str | None:
    """Returns the name and version of `wrk`; None if it is not installed."""
    if shutil.which("wrk") is None:
        return None
    printed = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", printed.stdout + printed.stderr)
    return f"wrk {found[0]}" if found else "wrk"


def press(target: Target, connections: int, seconds: float, first: int = 0) -> Measured:
    """Sends requests for `seconds`. Raises LoadError if `wrk` fails or gets no response."""
    with tempfile.TemporaryDirectory(prefix="xzepr-bench-") as folder:
        files = {
            "body": target.body,
            "headers": "".join(f"{name}: {value}\n" for name, value in target.headers.items()).encode(),
            "values": "\n".join(target.values).encode(),
        }
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        variables = {"LOAD_FOLDER": folder, "LOAD_PATH": target.path, "LOAD_FIRST": str(first)}
        used = children_cpu_seconds()
        printed = _run(target.port, connections, seconds, os.environ | variables)
        return measured(printed, children_cpu_seconds() - used)


def _run(port: int, connections: int, seconds: float, environment: dict[str, str]) -> str:
    """Runs `wrk` and returns what it prints. SIGINT ends it after a fraction of a second."""
    whole = int(seconds) if seconds == int(seconds) else int(seconds) + 5
    command = ["wrk", "-t1", f"-c{connections}", f"-d{whole}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    process = subprocess.Popen(
        [*command, f"http://127.0.0.1:{port}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        if whole != seconds:
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
        return process.communicate(timeout=seconds + _GRACE_SECONDS)[0]
    finally:
        process.kill()
        process.wait()


def measured(printed: str, cpu_seconds: float) -> Measured:
    """Returns the result that the script printed last. Raises LoadError if there is none, or no response."""
    last = printed.strip().rpartition("\n")[2]
    if not last.startswith("{"):
        raise LoadError(f"wrk printed no result: {printed[-500:]}")
    result = orjson.loads(last)
    if not result["requests"]:
        raise NoResponseError(f"wrk got no response: {printed[-500:]}")
    return Measured(
        seconds=result["us"] / 1e6,
        requests=result["requests"],
        failures=result["errors"],
        received_bytes=result["bytes"],
        p50=result["p50"] / 1000,
        p99=result["p99"] / 1000,
        cpu_seconds=cpu_seconds,
    )
