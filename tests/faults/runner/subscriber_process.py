"""A subscriber in a process of its own, so that it can be frozen: it says how far it is, and at its end what it got.

Run as `python -m tests.faults.runner.subscriber_process NAME TRANSPORT PORTS SECRET AFTER`; SIGTERM ends it.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict

from tests.faults.runner.ledger import Attendance, Json, Seen
from tests.faults.runner.subscribers import Subscriber
from tests.support.server import ROOT

_LONGEST_LINE = 64 * 1024 * 1024


class LoneSubscriber:
    """The process, as its parent sees it."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.reached = 0
        self._process = process
        self._last: asyncio.Task[str] = asyncio.create_task(self._read())

    async def _read(self) -> str:
        assert self._process.stdout is not None, "it is piped"
        line = ""
        while raw := await self._process.stdout.readline():
            line = raw.decode()
            if line.startswith("reached "):
                self.reached = int(line.split()[1])
        return line

    def freeze(self) -> None:
        """It does nothing any more, and does not know it."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        os.kill(self._process.pid, signal.SIGCONT)

    async def end(self) -> Attendance:
        """Everything that it got."""
        self._process.terminate()
        found: Json = json.loads(await self._last)
        await self._process.wait()
        found["seen"] = [Seen(*one) for one in found["seen"]]
        return Attendance(**found)

    async def kill(self) -> None:
        """Whatever it does, it ends."""
        if self._process.returncode is None:
            self._process.kill()
        self._last.cancel()
        await asyncio.gather(self._process.wait(), self._last, return_exceptions=True)


@asynccontextmanager
async def lone_subscriber(
    name: str, transport: str, ports: Sequence[int], secret: str, after: str
) -> AsyncGenerator[LoneSubscriber]:
    """One that follows the stream after a cursor meanwhile."""
    arguments = (name, transport, json.dumps(list(ports)), secret, after)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.runner.subscriber_process", *arguments),
        cwd=ROOT,
        stdout=PIPE,
        limit=_LONGEST_LINE,
    )
    one = LoneSubscriber(name, process)
    try:
        yield one
    finally:
        await one.kill()


async def _run(name: str, transport: str, ports: str, secret: str, after: str) -> None:
    one = Subscriber(name, transport, json.loads(ports), secret, after, restless=False)
    task = asyncio.create_task(one.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    while not task.done():
        _say(f"reached {one.reached}")
        await asyncio.wait([task], timeout=0.2)
    got = asdict(one.attendance)
    del got["wish"]  # it asks for everything
    got["seen"] = [(seen.position, seen.id, seen.kind, seen.event_id) for seen in one.attendance.seen]
    _say(json.dumps(got))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
