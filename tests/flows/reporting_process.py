"""A separate process with a whole hub, which records an event for each unit on its standard input.

Run as `python -m tests.flows.reporting_process DATABASE_URL RECEIVER_ID`; prints "ready", then a line for each event.
"""

import asyncio
import sys

from tests.support.hub import MANAGER, new_event, running_hub


async def main(database_url: str, receiver_id: str) -> None:
    """Reads units, one a line, and prints each event's position and the number of gates that it left complete."""
    loop = asyncio.get_running_loop()
    async with running_hub(database_url) as hub:
        _print_line("ready")
        while unit := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
            recorded = await hub.recorder.record(MANAGER, new_event(receiver_id, name=unit))
            _print_line(f"{recorded.event.position} {sum(gate.complete for gate in recorded.gates)}")


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
