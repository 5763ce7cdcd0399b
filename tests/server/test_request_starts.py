"""Requests that arrive at the same time start a few at a time, in their order."""

import asyncio

from xzepr.server.request_starts import RequestStarts


async def test_requests_start_in_order_16_for_each_iteration():
    starts, loop, started, seen = RequestStarts(), asyncio.get_running_loop(), list[int](), list[int]()
    for number in range(40):
        starts.add(lambda number=number: started.append(number), loop)
    while len(started) < 40:
        seen.append(len(started))
        await asyncio.sleep(0)
    assert seen == [16, 32]
    assert started == list(range(40))


async def test_next_iteration_starts_again_at_once():
    starts, loop, started = RequestStarts(), asyncio.get_running_loop(), list[int]()
    for _ in range(3):
        for _ in range(16):
            starts.add(lambda: started.append(1), loop)
        await asyncio.sleep(0)
    assert len(started) == 48


async def test_later_request_does_not_overtake():
    starts, loop, started = RequestStarts(), asyncio.get_running_loop(), list[int]()
    for number in range(20):
        starts.add(lambda number=number: started.append(number), loop)
    await asyncio.sleep(0)
    for number in range(20, 60):
        starts.add(lambda number=number: started.append(number), loop)
    while len(started) < 60:
        await asyncio.sleep(0)
    assert started == list(range(60))
