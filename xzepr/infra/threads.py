"""Threads that work for the event loop."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def run_in_thread(name: str, function: Callable[[], T]) -> "asyncio.Future[T]":
    """Runs a function in a new thread, and returns a future of its result or exception.

    The process can end although the thread still runs, unlike with an executor.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            call_on_loop(loop, _settle, future, future.set_exception, error)
        else:
            call_on_loop(loop, _settle, future, future.set_result, result)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


def call_on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: object) -> None:
    """Calls a function on the loop's thread, from another one, in the order of these calls. Ignores a closed loop."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(function, *arguments)


def _settle(future: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: object) -> None:
    if not future.done():
        settle(outcome)
