"""The signals of a process: they interrupt a start, stop a running server, and end a stuck one in time."""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from tests.support.server import ROOT

STUCK_START = """
import asyncio, time
from xzepr.server.signals import StopSignals

async def main():
    async with StopSignals(1.0).handled():
        print("starting", flush=True)
        await asyncio.to_thread(time.sleep, 120)

asyncio.run(main())
"""

RUNNING = """
import asyncio
from xzepr.server.signals import StopSignals

async def main():
    signals = StopSignals()
    async with signals.handled():
        signals.running(lambda: print("first", flush=True), lambda: print("second", flush=True))
        print("running", flush=True)
        await signals.first.wait()
        await signals.second.wait()
    print("ended", flush=True)

asyncio.run(main())
"""


@contextmanager
def program(text: str, first_line: str) -> Generator["subprocess.Popen[str]"]:
    """Runs a program and waits for its first line of output; kills it at the end."""
    with subprocess.Popen((sys.executable, "-c", text), cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == first_line
        try:
            yield process
        finally:
            process.kill()


def test_interrupted_start_ends_in_time_beside_a_stuck_thread() -> None:
    with program(STUCK_START, "starting") as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0


def test_signals_call_the_functions_of_a_running_process() -> None:
    with program(RUNNING, "running") as process:
        assert process.stdout is not None
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().strip() == "first"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline().strip() == "second"
        assert process.stdout.readline().strip() == "ended"
        assert process.wait(timeout=60) == 0
