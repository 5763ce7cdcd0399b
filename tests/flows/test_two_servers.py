"""Two processes on one database: gates that both complete at the same moment, and one stream for both."""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from tests.support.hub import MANAGER, VIEWER, messages, new_group, new_receiver, running_hub
from xzepr.features.stream.kinds import Kind
from xzepr.features.stream.model import Checkpoint, Cursor, Message, StreamFilter
from xzepr.features.subscriptions.service import follow
from xzepr.hub import Hub

ROUNDS = 100
ROOT = Path(__file__).parents[2]


async def started(database_url: str, receiver_id: str, open: AsyncExitStack) -> Process:
    """A reporter that is ready; it is told to end, and awaited, when the stack closes."""
    arguments = ("-m", "tests.flows.reporting_process", database_url, receiver_id)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE, cwd=ROOT)

    async def end() -> None:
        assert process.stdin is not None, "it is piped"
        process.stdin.close()
        assert await process.wait() == 0

    open.push_async_callback(end)
    while await line(process) != "ready":
        pass
    return process


async def line(process: Process) -> str:
    assert process.stdout is not None, "it is piped"
    said = (await process.stdout.readline()).decode()
    assert said, "it ended"
    return said.strip()


async def report(process: Process, unit: str) -> tuple[int, int]:
    """The event's position, and how many gates it left complete."""
    assert process.stdin is not None, "it is piped"
    process.stdin.write(f"{unit}\n".encode())
    position, complete = (await line(process)).split()
    return int(position), int(complete)


async def test_concurrent_completion_completes_a_gate_once(database_url: str):
    async with AsyncExitStack() as open:
        hub = await open.enter_async_context(running_hub(database_url))
        build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
        group = await new_group(hub, build, scan)
        here, there = await asyncio.gather(started(database_url, build.id, open), started(database_url, scan.id, open))
        watching = asyncio.create_task(watched(hub, Cursor.of(group.position, (await messages(hub))[-1].id)))
        first = Counter[Process]()
        for round in range(ROUNDS):
            told = (here, there) if round % 2 == 0 else (there, here)
            answers = await asyncio.gather(*(report(process, f"unit-{round}") for process in told))
            assert sorted(complete for _, complete in sorted(answers)) == [0, 1], "only the second saw it complete"
            first[told[answers.index(min(answers))]] += 1
        stream = await messages(hub, group.position)
        seen = await asyncio.wait_for(watching, 20)
    assert [message.position for message in stream] == list(range(4, 4 + 3 * ROUNDS))
    done = [message.event.name for message in stream if message.kind is Kind.GATE_COMPLETED and message.event]
    assert done == [f"unit-{round}" for round in range(ROUNDS)], "none missed, none doubled"
    assert min(first[here], first[there]) > 0, "each was first at times"
    assert seen == stream, "a third process sees what both announced"


async def watched(hub: Hub, after: Cursor) -> list[Message]:
    """All that follows, as a subscriber sees it, until every round is complete."""
    seen: list[Message] = []
    async for frame in follow(hub.stream, hub.feed, VIEWER, after, StreamFilter(), checkpoint_seconds=10):
        if not isinstance(frame, Checkpoint):
            seen.append(frame)
        if len(seen) == 3 * ROUNDS:
            break
    return seen


async def test_writers_of_two_servers_share_one_order(database_url: str):
    async with running_hub(database_url) as here, running_hub(database_url) as there:
        receivers = await asyncio.gather(*(new_receiver(hub) for hub in (here, there) for _ in range(10)))
        await asyncio.gather(*(new_group(hub, *receivers[:3]) for hub in (here, there) for _ in range(10)))
        stream = await messages(here)
    assert [message.position for message in stream] == list(range(1, 41))
    times = [message.time for message in stream]
    assert times == sorted(times)
    assert {message.actor_id for message in stream} == {MANAGER.id}
