"""A subscriber in a separate process that a test can freeze. It prints its position and finally everything received.

Run as `python -m tests.faults.runner.subscriber_process NAME TRANSPORT PORTS SECRET AFTER`. SIGTERM ends it.
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

from tests.faults.runner.ledger import Json, ReceivedMessage, SubscriberRecord
from tests.faults.runner.subscribers import Subscriber
from tests.support.server import ROOT

_MAX_LINE_BYTES = 64 * 1024 * 1024


class SubscriberProcess:
    """The process as seen by its parent."""

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.reached = 0
        self._process = process
        self._last: asyncio.Task[str] = asyncio.create_task(self._read())

    async def _read(self) -> str:
        assert self._process.stdout is not None, "standard output must be piped"
        line = ""
        while raw := await self._process.stdout.readline():
            line = raw.decode()
            if line.startswith("reached "):
                self.reached = int(line.split()[1])
        return line

    def freeze(self) -> None:
        """Pauses the process with SIGSTOP. Its connection stays open."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resumes the process."""
        os.kill(self._process.pid, signal.SIGCONT)

    async def end(self) -> SubscriberRecord:
        """Ends the process and returns everything that it received."""
        self._process.terminate()
        fields: Json = json.loads(await self._last)
        await self._process.wait()
        fields["received"] = [ReceivedMessage(*values) for values in fields["received"]]
        return SubscriberRecord(**fields)

    async def kill(self) -> None:
        """Kills the process if it still runs."""
        if self._process.returncode is None:
            self._process.kill()
        self._last.cancel()
        await asyncio.gather(self._process.wait(), self._last, return_exceptions=True)


@asynccontextmanager
async def subscriber_process(
    name: str, transport: str, ports: Sequence[int], secret: str, after: str
) -> AsyncGenerator[SubscriberProcess]:
    """Runs a subscriber that follows the stream after a cursor until the block ends."""
    arguments = (name, transport, json.dumps(list(ports)), secret, after)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.runner.subscriber_process", *arguments),
        cwd=ROOT,
        stdout=PIPE,
        limit=_MAX_LINE_BYTES,
    )
    subscriber = SubscriberProcess(name, process)
    try:
        yield subscriber
    finally:
        await subscriber.kill()


async def _run(name: str, transport: str, ports: str, secret: str, after: str) -> None:
    subscriber = Subscriber(name, transport, json.loads(ports), secret, after, reconnecting=False)
    task = asyncio.create_task(subscriber.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    while not task.done():
        _print(f"reached {subscriber.reached}")
        await asyncio.wait([task], timeout=0.2)
    record = subscriber.record
    fields = asdict(record)
    del fields["filter"]  # it has none
    fields["received"] = [(message.position, message.id, message.kind, message.event_id) for message in record.received]
    _print(json.dumps(fields))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(_run(*sys.argv[1:]))
