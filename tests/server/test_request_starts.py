"""Requests that arrive at the same time start a few at a time, in their order."""

import asyncio
from contextvars import Context, ContextVar
from functools import partial

from xzepr.server.request_starts import RequestStarts


def _ignore(_: asyncio.AbstractEventLoop, __: dict[str, object]) -> None:
    return None


async def test_requests_start_in_order_16_for_each_iteration():
    starts, loop, started, seen = RequestStarts(), asyncio.get_running_loop(), list[int](), list[int]()
    for number in range(40):
        starts.add(lambda _, number=number: started.append(number), loop)
    while len(started) < 40:
        seen.append(len(started))
        await asyncio.sleep(0)
    assert seen == [16, 32]
    assert started == list(range(40))


async def test_next_iteration_starts_again_at_once():
    starts, loop, started = RequestStarts(), asyncio.get_running_loop(), list[int]()
    for _ in range(3):
        for _ in range(16):
            starts.add(lambda _: started.append(1), loop)
        await asyncio.sleep(0)
    assert len(started) == 48


async def test_later_request_does_not_overtake():
    starts, loop, started = RequestStarts(), asyncio.get_running_loop(), list[int]()
    for number in range(20):
        starts.add(lambda _, number=number: started.append(number), loop)
    await asyncio.sleep(0)
    for number in range(20, 60):
        starts.add(lambda _, number=number: started.append(number), loop)
    while len(started) < 60:
        await asyncio.sleep(0)
    assert started == list(range(60))


async def test_request_that_fails_to_start_stops_no_other():
    starts, loop, started = RequestStarts(), asyncio.get_running_loop(), list[int]()

    def start(number: int, _: Context) -> None:
        if number == 20:
            raise MemoryError
        started.append(number)

    loop.set_exception_handler(_ignore)
    for number in range(60):
        starts.add(partial(start, number), loop)
    for _ in range(6):
        await asyncio.sleep(0)
    starts.add(partial(start, 60), loop)
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    assert started[-1] == 60
    assert set(range(61)) - set(started) == {20}


async def test_requests_do_not_share_a_context():
    variable: ContextVar[int] = ContextVar("variable", default=0)
    starts, loop, seen = RequestStarts(), asyncio.get_running_loop(), list[int]()

    def start(context: Context) -> None:
        seen.append(context.run(variable.get))
        context.run(variable.set, 1)

    variable.set(2)  # as a request that starts the next one of its connection
    for _ in range(40):
        starts.add(start, loop)
    while len(seen) < 40:
        await asyncio.sleep(0)
    assert seen == [0] * 40
