"""One run of one fault: load and subscribers, the fault again and again meanwhile, and the judgement afterwards."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest

from tests.faults.runner import evidence
from tests.faults.runner.checker import Verdict, check
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.findings import LOST, REPEATED
from tests.faults.runner.group_changes import Gardener
from tests.faults.runner.ledger import EVERYTHING, Attendance
from tests.faults.runner.report import FaultReport, keep
from tests.faults.runner.stage import Stage
from tests.faults.runner.subscribers import Subscriber, audience
from tests.faults.runner.writers import TRY_AGAIN, Load, Writers

LOAD_SECONDS = 32.0
LEAST_RATE = 200.0
LEAST_CHANGES = 0.5
"""Of groups, in each second in which a hub answers: a quarter of what is tried."""
QUIET_SECONDS = 3.0
"""Before the first injection, and after the last one."""
TIMES = "XZEPR_TEST_FAULT_TIMES"
"""How often each fault is injected at least; without it as often as its test says."""
SETTLE_SECONDS = 60.0
_LONGEST_SECONDS, _INJECTION_SECONDS = 600.0, 90.0
"""Longer than load and catching up take, and than an injection does: a run that hangs ends."""

Inject = Callable[[Stage], Awaitable[None]]


def times_of(fewest: int) -> int:
    """How often a fault is to be injected."""
    return max(fewest, int(os.environ.get(TIMES, "0")))


class FaultRun:
    """Load on a stage, and what clients and subscribers saw of it. Use `under_fault`, or `loaded` and `judge`."""

    def __init__(
        self,
        fault: str,
        stage: Stage,
        *,
        seed: int | None = None,
        rate: float = 240.0,
        try_again: frozenset[str] = TRY_AGAIN,
    ) -> None:
        self.fault = fault
        self.stage = stage
        self.seed = Random().randrange(1_000_000) if seed is None else seed
        self.load = Load(stage.ports, stage.secret, stage.receivers, self.seed, rate, try_again=try_again)
        self.writers = Writers(self.load)
        self.subscribers: list[Subscriber] = []
        self.others: list[Attendance] = []
        """What subscribers got that the test had beside these."""
        self.injections = 0
        self.seconds = 0.0
        self.rate = 0.0

    @asynccontextmanager
    async def loaded(self) -> AsyncGenerator[None]:
        """Meanwhile clients record, somebody changes groups, and subscribers come and go. At the end every event that
        was offered has its answer, and every subscriber has reached the head."""
        cursor = await self.stage.cursor()
        self.subscribers = audience(self.stage.ports, self.stage.secret, cursor, self.seed)
        following = [asyncio.create_task(one.run()) for one in self.subscribers]
        gardener = asyncio.create_task(Gardener(self.load, self.stage.groups).run())
        began = time.monotonic()
        try:
            async with self.writers.writing():
                yield
                self.seconds = time.monotonic() - began
                gardener.cancel()
                await asyncio.gather(gardener, return_exceptions=True)
            ledger = self.writers.ledger
            self.rate = len(ledger.acknowledged) / (time.monotonic() - began - ledger.seconds_of_silence)
            head = await self.stage.head()
            await self._all_reached(head)
            await asyncio.sleep(0.3)  # what came twice, or too much, would come now
        finally:
            for task in (gardener, *following):
                task.cancel()
            outcomes = await asyncio.gather(gardener, *following, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _all_reached(self, head: int) -> None:
        """Returns when every subscriber has, or when for a while none came further."""
        places, moved_at = [0], time.monotonic()
        while min(one.reached for one in self.subscribers) < head and time.monotonic() - moved_at < SETTLE_SECONDS:
            found = [one.reached for one in self.subscribers]
            if found != places:
                places, moved_at = found, time.monotonic()
            if any(one.attendance.refusal for one in self.subscribers):
                return
            await asyncio.sleep(0.05)

    async def evidence(self) -> Evidence:
        """What is there now. Waits until the relay has reached the head."""
        url, published = self.stage.postgres.admin_url, None
        if self.stage.has_kafka:
            await self.stage.relayed()
            published = await asyncio.to_thread(evidence.consumed, self.stage.kafka, self.stage.topic)
        hubs = [hub for hub in self.stage.hubs if hub.runs]
        repeats = await self.writers.send_again(hubs[0].port)
        events = await asyncio.to_thread(evidence.stored_events, url)
        units = sorted({event.unit for event in events})
        return Evidence(
            entries=self.writers.ledger.entries,
            events=events,
            messages=await asyncio.to_thread(evidence.stored_messages, url),
            attendances=[*(one.attendance for one in self.subscribers), *self.others],
            gates={hub.name: await evidence.asked_gates(hub.port, self.stage.secret, units) for hub in hubs},
            published=published,
            repeats=repeats,
            groups=await asyncio.to_thread(evidence.stored_groups, url),
        )

    async def judge(self, node: pytest.Item) -> Verdict:
        """Checks everything, keeps the report, and fails when a promise was broken or the load was too small."""
        found = await self.evidence()
        verdict = check(found)
        keep(self._report(found, verdict), node)
        assert not verdict.findings, _told(verdict, self)
        self._assert_it_was_tried(found)
        return verdict

    def _assert_it_was_tried(self, found: Evidence) -> None:
        """A run in which little happened proves little: it fails."""
        assert self.seconds >= 30, f"the load lasted only {self.seconds:.1f} s"
        assert self.rate >= LEAST_RATE, f"only {self.rate:.0f} events/s were recorded: is the machine busy?"
        kinds = Counter(message.kind for message in found.messages)
        assert min(kinds["gate.completed"], kinds["gate.regressed"]) > 100, kinds
        answered = self.seconds - self.writers.ledger.seconds_of_silence
        assert kinds["group.updated"] >= answered * LEAST_CHANGES, f"{kinds} in {answered:.1f} s"
        for one in self.subscribers:
            assert one.attendance.attached >= (5 if one.restless else 1), one.attendance.troubles
        filtered = [one.attendance for one in self.subscribers if one.attendance.wish != EVERYTHING]
        assert all(one.seen for one in filtered), "a filter let nothing through"
        assert sum(one.from_checkpoints for one in filtered) >= 5, "hardly anybody went on from a checkpoint"

    def _report(self, found: Evidence, verdict: Verdict) -> FaultReport:
        ledger = self.writers.ledger
        lost, repeated = verdict.count(LOST), verdict.count(REPEATED)
        return FaultReport(
            fault=self.fault,
            injections=self.injections,
            seconds=round(self.seconds, 1),
            acknowledged=len(ledger.acknowledged),
            lost=lost,
            repeated=repeated,
            wrong=len(verdict.findings) - lost - repeated,
            longest_outage=round(ledger.longest_outage, 2),
            longest_silence=round(ledger.longest_silence, 2),
            retries=ledger.retries,
            kafka="yes" if self.stage.has_kafka else self.stage.kafka,
            rate=round(self.rate, 1),
            messages=len(found.messages),
            attached=sum(one.attendance.attached for one in self.subscribers),
            troubles=ledger.troubles,
            findings=verdict.told(20),
        )


async def under_fault(
    fault: str, stage: Stage, node: pytest.Item, inject: Inject, *, times: int, every: float = 2.0, rate: float = 240.0
) -> FaultRun:
    """Injects the fault so many times (more where XZEPR_TEST_FAULT_TIMES says so), `every` so many seconds after the
    last one was over, while clients record; judges everything afterwards. The load lasts at least 30 s."""
    run, times = FaultRun(fault, stage, rate=rate), times_of(times)
    async with asyncio.timeout(_LONGEST_SECONDS + times * _INJECTION_SECONDS), run.loaded():
        began = time.monotonic()
        await asyncio.sleep(QUIET_SECONDS)
        for _ in range(times):
            await inject(stage)
            run.injections += 1
            await asyncio.sleep(every)
        await asyncio.sleep(max(QUIET_SECONDS - every, LOAD_SECONDS - (time.monotonic() - began), 0))
    await run.judge(node)
    return run


def _told(verdict: Verdict, run: FaultRun) -> str:
    some = "".join(f"  {line}\n" for line in verdict.told(30))
    said = "".join(line for hub in run.stage.hubs for line in hub.lines[-40:])
    count = len(verdict.findings)
    return f"{run.fault} (seed {run.seed}): {count} promises broken\n{some}last words of the hubs:\n{said}"
