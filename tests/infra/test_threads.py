"""Threads that work for the event loop."""

import asyncio
import threading

import pytest

from xzepr.infra.threads import call_on_loop, run_in_thread


async def test_result_is_returned_from_another_thread():
    assert await run_in_thread("work", threading.current_thread) is not threading.current_thread()


async def test_exception_of_thread_is_raised():
    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        await run_in_thread("work", fail)


async def test_cancelled_waiter_leaves_thread_running():
    proceed, ended = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        proceed.wait()
        call_on_loop(loop, ended.set)

    future = run_in_thread("work", work)
    future.cancel()
    proceed.set()
    await ended.wait()
    await asyncio.sleep(0)
    assert future.cancelled()


def test_thread_outlives_its_loop():
    proceed = threading.Event()
    ended = list[str]()

    async def start() -> asyncio.AbstractEventLoop:
        run_in_thread("outlives", work)
        return asyncio.get_running_loop()

    def work() -> None:
        proceed.wait()
        call_on_loop(loop, ended.append, "never called")

    loop = asyncio.run(start())
    [thread] = [thread for thread in threading.enumerate() if thread.name == "outlives"]
    assert thread.daemon, "the process can end before it"
    proceed.set()
    thread.join()
    assert ended == []


async def test_calls_on_loop_keep_their_order():
    called = list[int]()
    loop = asyncio.get_running_loop()
    await run_in_thread("work", lambda: [call_on_loop(loop, called.append, n) for n in range(100)])
    assert called == list(range(100)), "calls come before the result of the thread"
