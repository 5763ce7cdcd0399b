"""One run of one fault: injects it repeatedly under load, then collects the evidence and checks it."""

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
from tests.faults.runner.deployment import Deployment
from tests.faults.runner.evidence import Evidence
from tests.faults.runner.findings import LOST, REPEATED
from tests.faults.runner.group_changes import GroupAdministrator
from tests.faults.runner.ledger import EVERYTHING, SubscriberRecord
from tests.faults.runner.report import FaultReport, save_report
from tests.faults.runner.subscribers import Subscriber, create_subscribers
from tests.faults.runner.writers import RETRYABLE, Workload, Writers

WORKLOAD_SECONDS = 32.0
MIN_RATE = 200.0  # events per second
MIN_GROUP_CHANGE_RATE = 0.5  # per second in which a hub answers: a quarter of the attempts
MARGIN_SECONDS = 3.0  # before the first injection and after the last
TIMES = "XZEPR_TEST_FAULT_TIMES"  # minimum number of injections of each fault, if set
NO_PROGRESS_SECONDS = 60.0  # a run stops waiting for subscribers after this time without progress
# Timeouts of a run without injections, and of one injection, so that a run that hangs ends.
_RUN_TIMEOUT_SECONDS, _INJECTION_TIMEOUT_SECONDS = 600.0, 90.0

Inject = Callable[[Deployment], Awaitable[None]]


def injection_count(fewest: int) -> int:
    """Returns how often to inject a fault: at least `fewest` times."""
    return max(fewest, int(os.environ.get(TIMES, "0")))


class FaultRun:
    """A workload on a deployment, with its ledger and subscribers. Use `under_fault`, or `under_load` and `check`."""

    def __init__(
        self,
        fault: str,
        system: Deployment,
        *,
        seed: int | None = None,
        rate: float = 240.0,
        retryable: frozenset[str] = RETRYABLE,
    ) -> None:
        self.fault = fault
        self.system = system
        self.seed = Random().randrange(1_000_000) if seed is None else seed
        self.workload = Workload(system.ports, system.secret, system.receivers, self.seed, rate, retryable=retryable)
        self.writers = Writers(self.workload)
        self.subscribers: list[Subscriber] = []
        self.extra_records: list[SubscriberRecord] = []  # of subscribers that the test itself runs
        self.injections = 0
        self.seconds = 0.0
        self.rate = 0.0

    @asynccontextmanager
    async def under_load(self) -> AsyncGenerator[None]:
        """Runs clients, an administrator that changes groups, and subscribers while the block runs.

        Then waits until every event has its response and every subscriber has reached the head.
        """
        cursor = await self.system.cursor()
        self.subscribers = create_subscribers(self.system.ports, self.system.secret, cursor, self.seed)
        following = [asyncio.create_task(subscriber.run()) for subscriber in self.subscribers]
        administrator = asyncio.create_task(GroupAdministrator(self.workload, self.system.groups).run())
        began = time.monotonic()
        try:
            async with self.writers.running():
                yield
                self.seconds = time.monotonic() - began
                administrator.cancel()
                await asyncio.gather(administrator, return_exceptions=True)
            ledger = self.writers.ledger
            self.rate = len(ledger.acknowledged) / (time.monotonic() - began - ledger.seconds_of_silence)
            head = await self.system.head()
            await self._all_reached(head)
            await asyncio.sleep(0.3)  # for duplicates and unexpected messages to arrive
        finally:
            for task in (administrator, *following):
                task.cancel()
            outcomes = await asyncio.gather(administrator, *following, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _all_reached(self, head: int) -> None:
        """Waits until every subscriber has reached the head, one fails, or none makes progress."""
        last, moved_at = [0], time.monotonic()
        while time.monotonic() - moved_at < NO_PROGRESS_SECONDS:
            positions = [subscriber.reached for subscriber in self.subscribers]
            if min(positions) >= head or any(subscriber.record.fatal_error for subscriber in self.subscribers):
                return
            if positions != last:
                last, moved_at = positions, time.monotonic()
            await asyncio.sleep(0.05)

    async def evidence(self) -> Evidence:
        """Collects the evidence after the relay has reached the head."""
        system = self.system
        url, kafka_records = system.postgres.admin_url, None
        if system.has_kafka:
            await system.wait_until_relayed()
            kafka_records = await asyncio.to_thread(evidence.consume_topic, system.kafka, system.topic)
        hubs = [hub for hub in system.hubs if hub.is_running]
        repeats = await self.writers.resend(hubs[0].port)
        events = await asyncio.to_thread(evidence.stored_events, url)
        units = sorted({event.unit for event in events})
        return Evidence(
            entries=self.writers.ledger.entries,
            events=events,
            messages=await asyncio.to_thread(evidence.stored_messages, url),
            subscriber_records=[*(subscriber.record for subscriber in self.subscribers), *self.extra_records],
            gates={hub.name: await evidence.gate_states(hub.port, system.secret, units) for hub in hubs},
            kafka_records=kafka_records,
            repeats=repeats,
            groups=await asyncio.to_thread(evidence.stored_groups, url),
        )

    async def check(self, node: pytest.Item) -> Verdict:
        """Checks the evidence and saves the report. Fails on any finding, or if the load was too small."""
        collected = await self.evidence()
        verdict = check(collected)
        save_report(self._report(collected, verdict), node)
        assert not verdict.findings, _failure_text(verdict, self)
        self._assert_enough_load(collected)
        return verdict

    def _assert_enough_load(self, collected: Evidence) -> None:
        """Fails if too little happened for the run to prove anything."""
        assert self.seconds >= 30, f"the load lasted only {self.seconds:.1f} s"
        assert self.rate >= MIN_RATE, f"only {self.rate:.0f} events/s were recorded: is the machine busy?"
        kinds = Counter(message.kind for message in collected.messages)
        assert min(kinds["gate.completed"], kinds["gate.regressed"]) > 100, kinds
        answered = self.seconds - self.writers.ledger.seconds_of_silence
        assert kinds["group.updated"] >= answered * MIN_GROUP_CHANGE_RATE, f"{kinds} in {answered:.1f} s"
        for subscriber in self.subscribers:
            record = subscriber.record
            assert record.connections >= (5 if subscriber.reconnecting else 1), record.retry_reasons
        filtered = [subscriber.record for subscriber in self.subscribers if subscriber.record.filter != EVERYTHING]
        assert all(record.received for record in filtered), "no message matched a filter"
        assert sum(record.resumed_from_checkpoint for record in filtered) >= 5, "too few resumed from a checkpoint"

    def _report(self, collected: Evidence, verdict: Verdict) -> FaultReport:
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
            kafka="yes" if self.system.has_kafka else self.system.kafka,
            rate=round(self.rate, 1),
            messages=len(collected.messages),
            connections=sum(subscriber.record.connections for subscriber in self.subscribers),
            retry_reasons=ledger.retry_reasons,
            findings=verdict.summary(20),
        )


async def under_fault(
    fault: str,
    system: Deployment,
    node: pytest.Item,
    inject: Inject,
    *,
    times: int,
    every: float = 2.0,
    rate: float = 240.0,
) -> FaultRun:
    """Injects the fault under load, at least `times` times, then checks the evidence. The load lasts at least 30 s.

    Waits `every` seconds after each injection. XZEPR_TEST_FAULT_TIMES may raise the number of injections.
    """
    run, times = FaultRun(fault, system, rate=rate), injection_count(times)
    async with asyncio.timeout(_RUN_TIMEOUT_SECONDS + times * _INJECTION_TIMEOUT_SECONDS), run.under_load():
        began = time.monotonic()
        await asyncio.sleep(MARGIN_SECONDS)
        for _ in range(times):
            await inject(system)
            run.injections += 1
            await asyncio.sleep(every)
        await asyncio.sleep(max(MARGIN_SECONDS - every, WORKLOAD_SECONDS - (time.monotonic() - began), 0))
    await run.check(node)
    return run


def _failure_text(verdict: Verdict, run: FaultRun) -> str:
    findings = "".join(f"  {line}\n" for line in verdict.summary(30))
    log = "".join(line for hub in run.system.hubs for line in hub.lines[-40:])
    count = len(verdict.findings)
    return f"{run.fault} (seed {run.seed}): {count} findings\n{findings}last log lines of the hubs:\n{log}"
