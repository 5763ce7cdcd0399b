"""`make bench`: measures the hub beside minimal endpoints. Prints medians of five rounds in one run."""

import asyncio
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import batches, create, environment, history, latency, slow
from tests.support import kafka

SECTIONS = ("create", "batches", "history", "latency", "slow")


async def main(sections: Sequence[str]) -> None:
    """Prints a table for each section; for all of them if none is named."""
    unknown = set(sections) - set(SECTIONS)
    if unknown:
        sys.exit(f"unknown section: {', '.join(unknown)}; choose from {', '.join(SECTIONS)}")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}", flush=True)
    async with environment.postgres() as server:
        for section in sections or SECTIONS:
            await _SECTIONS[section](server)


async def _create(server: environment.EmbeddedPostgres) -> None:
    rows = await asyncio.to_thread(create.measure, server)
    heads = ("64 connections", "requests/s", "p50 ms", "p99 ms", "hub / this", "failures")
    _print("createEvent, one event per request", heads, rows)


async def _batches(server: environment.EmbeddedPostgres) -> None:
    rows = await asyncio.to_thread(batches.measure, server)
    _print("createEvents of 500", ("", "events/s", "of COPY"), rows)


async def _history(server: environment.EmbeddedPostgres) -> None:
    rows = await history.measure(server)
    _print("Create with a gate, by length of history", ("", "rows read", "ms", "of the first"), rows)


async def _latency(server: environment.EmbeddedPostgres) -> None:
    with ExitStack() as stack:
        broker = None
        try:
            broker = stack.enter_context(kafka.running())
        except kafka.NoBrokerError as reason:
            print(f"without Kafka: {reason}")
        rows = await asyncio.to_thread(latency.measure, server, broker)
    _print("Latency after COMMIT, at 200 events/s", ("", "p50 ms", "p99 ms"), rows)


async def _slow(server: environment.EmbeddedPostgres) -> None:
    rows = await asyncio.to_thread(slow.measure, server)
    heads = ("createEvent beside subscribers", "p50 ms", "p99 ms", "p50 / idle", "p99 / idle", "MiB", "connections")
    _print(f"{slow.CONNECTIONS} connections create, subscribers start at the beginning of the stream", heads, rows)


_SECTIONS = {"create": _create, "batches": _batches, "history": _history, "latency": _latency, "slow": _slow}


def _print(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    asyncio.Runner(loop_factory=uvloop.new_event_loop).run(main(sys.argv[1:]))
