"""Two processes on one database: they complete gates at the same moment and share one stream."""

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


async def start_reporter(database_url: str, receiver_id: str, open: AsyncExitStack) -> Process:
    """Starts a reporting process and waits until it is ready; the stack stops it."""
    arguments = ("-m", "tests.flows.reporting_process", database_url, receiver_id)
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE, cwd=ROOT)

    async def end() -> None:
        assert process.stdin is not None, "stdin is piped"
        process.stdin.close()
        assert await process.wait() == 0

    open.push_async_callback(end)
    while await read_line(process) != "ready":
        pass
    return process


async def read_line(process: Process) -> str:
    assert process.stdout is not None, "stdout is piped"
    line = (await process.stdout.readline()).decode()
    assert line, "the process has ended"
    return line.strip()


async def report(process: Process, unit: str) -> tuple[int, int]:
    """Records an event; returns its position and the number of gates that it left complete."""
    assert process.stdin is not None, "stdin is piped"
    process.stdin.write(f"{unit}\n".encode())
    position, complete = (await read_line(process)).split()
    return int(position), int(complete)


async def test_concurrent_completion_completes_a_gate_once(database_url: str):
    async with AsyncExitStack() as open:
        hub = await open.enter_async_context(running_hub(database_url))
        build, scan = await new_receiver(hub), await new_receiver(hub, "scan")
        group = await new_group(hub, build, scan)
        first_server, second_server = await asyncio.gather(
            start_reporter(database_url, build.id, open), start_reporter(database_url, scan.id, open)
        )
        subscription = asyncio.create_task(read_stream(hub, Cursor.of(group.position, (await messages(hub))[-1].id)))
        firsts = Counter[Process]()
        for round in range(ROUNDS):
            order = (first_server, second_server) if round % 2 == 0 else (second_server, first_server)
            results = await asyncio.gather(*(report(process, f"unit-{round}") for process in order))
            assert sorted(complete for _, complete in sorted(results)) == [0, 1], (
                "only the second event completes the gate"
            )
            firsts[order[results.index(min(results))]] += 1
        stream = await messages(hub, group.position)
        seen = await asyncio.wait_for(subscription, 20)
    assert [message.position for message in stream] == list(range(4, 4 + 3 * ROUNDS))
    completed = [message.event.name for message in stream if message.kind is Kind.GATE_COMPLETED and message.event]
    assert completed == [f"unit-{round}" for round in range(ROUNDS)], "no completion is missing or duplicated"
    assert min(firsts[first_server], firsts[second_server]) > 0, "each server was first at times"
    assert seen == stream, "a third process sees the messages of both"


async def read_stream(hub: Hub, after: Cursor) -> list[Message]:
    """Returns the messages that a subscriber receives until every round is complete."""
    seen: list[Message] = []
    async for frame in follow(hub.stream, hub.feed, VIEWER, after, StreamFilter(), checkpoint_seconds=10):
        if not isinstance(frame, Checkpoint):
            seen.append(frame)
        if len(seen) == 3 * ROUNDS:
            break
    return seen


async def test_writers_of_two_servers_share_one_order(database_url: str):
    async with running_hub(database_url) as first, running_hub(database_url) as second:
        receivers = await asyncio.gather(*(new_receiver(hub) for hub in (first, second) for _ in range(10)))
        await asyncio.gather(*(new_group(hub, *receivers[:3]) for hub in (first, second) for _ in range(10)))
        stream = await messages(first)
    assert [message.position for message in stream] == list(range(1, 41))
    times = [message.time for message in stream]
    assert times == sorted(times)
    assert {message.actor_id for message in stream} == {MANAGER.id}
