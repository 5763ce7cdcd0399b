"""The pauses of a back-off double up to a limit."""

import asyncio

import pytest

from xzepr.core.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(0.25, 3.0)
    assert [backoff.next() for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 3.0, 3.0]


def test_reset_starts_with_the_first_pause() -> None:
    backoff = Backoff(0.1, 5.0)
    assert [backoff.next(), backoff.next()] == [0.1, 0.2]
    backoff.reset()
    assert backoff.next() == 0.1


def test_first_pause_may_exceed_the_longest() -> None:
    backoff = Backoff(60.0, 30.0)
    assert [backoff.next(), backoff.next()] == [60.0, 30.0]


def test_jitter_shortens_pauses_at_random() -> None:
    backoff = Backoff(4.0, 4.0, jitter=0.5)
    pauses = [backoff.next() for _ in range(200)]
    assert min(pauses) >= 2.0
    assert max(pauses) <= 4.0
    assert len(set(pauses)) > 100


async def test_sleep_pauses_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    backoff = Backoff(0.2, 10.0)
    await backoff.sleep()
    await backoff.sleep()
    assert slept == [0.2, 0.4]
