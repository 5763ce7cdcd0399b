"""Waits for a gate: queries it whenever the stream reports an event for its unit, and every few seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from xzepr.cli.client.http import HubClient, HubUnreachable, JsonObject, RequestRejected
from xzepr.cli.client.units import UnitKey
from xzepr.cli.output import print_notice, printable

if TYPE_CHECKING:
    from xzepr.cli.client.subscription import ResumingSubscription

Result = TypeVar("Result")

GATE_FIELDS = """
  complete since eventReceiverGroup { id name type version enabled }
  members { state eventReceiver { id name type version } event { id success recordedAt description } }
"""
_GATE = f"""
query ($group: ID!, $unit: UnitInput!) {{
  gate(eventReceiverGroupId: $group, unit: $unit) {{ {GATE_FIELDS} }}
}}
"""
_EVENTS = """
subscription ($after: String, $filter: StreamFilterInput) {
  stream(after: $after, kinds: [EVENT_RECORDED], filter: $filter) { __typename cursor }
}
"""
_POLL_SECONDS = 5.0
_RESPONSE_TIMEOUT_SECONDS = 10.0
# Granted to the hub even if less time remains, so that a slow hub can still respond.
_MIN_RESPONSE_TIMEOUT_SECONDS = 5.0


class GateOutcome(StrEnum):
    """The result of a wait; a gate with failed and missing members is FAILED."""

    COMPLETE = "complete"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class GateResult:
    """The last state of the gate that was queried, and the outcome that follows from it."""

    outcome: GateOutcome
    gate: JsonObject

    @property
    def name(self) -> str:
        """The name of the outcome: `COMPLETE`, `FAILED` or `MISSING`."""
        return self.outcome.name

    @classmethod
    def from_gate(cls, gate: JsonObject) -> "GateResult":
        """Returns the result for a gate queried with GATE_FIELDS."""
        states = {str(member["state"]) for member in gate["members"]}
        if gate["complete"]:
            return cls(GateOutcome.COMPLETE, gate)
        return cls(GateOutcome.FAILED if "FAILED" in states else GateOutcome.MISSING, gate)


def describe(gate: JsonObject) -> str:
    """Returns what a gate waits for: `gate release waits for test (missing), scan (failed); 1 of 3 passed`."""
    members: list[JsonObject] = gate["members"]
    pending = [member for member in members if member["state"] != "PASSED"]
    names = (f"{printable(member['eventReceiver']['name'])} ({str(member['state']).lower()})" for member in pending)
    passed = len(members) - len(pending)
    group = printable(gate["eventReceiverGroup"]["name"])
    return f"gate {group} waits for {', '.join(names) or 'members'}; {passed} of {len(members)} passed"


def retry_while_away(ask: Callable[[], Result], deadline: float) -> Result:
    """Returns what `ask` returns, and calls it again while the hub is away, until the deadline of time.monotonic().

    Raises HubUnreachable or RequestRejected of the last attempt, or at once for an error that retrying cannot fix.
    """
    pause = 0.5
    told = False
    while True:
        try:
            return ask()
        except (HubUnreachable, RequestRejected) as error:
            retry_after = 0.0
            if isinstance(error, RequestRejected):
                if not error.temporary:
                    raise
                retry_after = error.retry_after_seconds
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise
            if not told:
                print_notice(f"{error}; trying again until the time-out")
                told = True
            time.sleep(min(max(pause, retry_after), remaining))
            pause = min(pause * 2, _POLL_SECONDS)


class GateWait:
    """One wait for one group and one unit."""

    def __init__(self, client: HubClient, group_id: str, unit: UnitKey, deadline: float, *, fail_fast: bool) -> None:
        """The wait ends at `deadline`, a time of time.monotonic()."""
        self._client = client
        self._variables = {"group": group_id, "unit": unit.as_input()}
        self._deadline = deadline
        self._fail_fast = fail_fast
        self._queried_at = 0.0
        self._told = ""

    def run(self) -> GateResult:
        """Returns the result once the gate is complete or the time is up, or with `fail_fast` once a member failed.

        Prints the state at the start and after each change on standard error. An unreachable hub is retried until the
        time is up. Raises HubUnreachable or RequestRejected if the last query fails, or retrying cannot help.
        """
        result = retry_while_away(self._query_gate, self._deadline)
        if self._is_final(result) or self._remaining_seconds() <= 0:
            return result
        filter = {"unit": self._variables["unit"]}
        from xzepr.cli.client.subscription import ResumingSubscription  # with a library that `gates show` does not need

        subscription = ResumingSubscription(self._client, _EVENTS, {"filter": filter}, notify=print_notice)
        try:
            return self._follow(subscription)
        finally:
            subscription.close()

    def _follow(self, subscription: "ResumingSubscription") -> GateResult:
        latest: GateResult | HubUnreachable | RequestRejected | None = None
        for frame in subscription.frames(self._frame_timeout):
            timed_out = self._remaining_seconds() <= 0
            if frame is not None or timed_out or time.monotonic() - self._queried_at >= _POLL_SECONDS:
                try:
                    latest = self._query_gate()
                except (HubUnreachable, RequestRejected) as error:
                    if isinstance(error, RequestRejected) and not error.temporary:
                        raise
                    latest = error
            if isinstance(latest, GateResult) and self._is_final(latest):
                return latest
            if timed_out and latest is not None:
                break
        if isinstance(latest, GateResult):
            return latest
        raise latest or HubUnreachable("the hub did not respond in time")

    def _query_gate(self) -> GateResult:
        self._queried_at = time.monotonic()
        seconds = min(max(self._remaining_seconds(), _MIN_RESPONSE_TIMEOUT_SECONDS), _RESPONSE_TIMEOUT_SECONDS)
        result = GateResult.from_gate(self._client.execute_within(seconds, _GATE, self._variables)["gate"])
        self._tell(result)
        return result

    def _tell(self, result: GateResult) -> None:
        state = describe(result.gate)
        if state != self._told and not self._is_final(result) and self._remaining_seconds() > 0:
            print_notice(state)
            self._told = state

    def _is_final(self, result: GateResult) -> bool:
        return result.outcome is GateOutcome.COMPLETE or (self._fail_fast and result.outcome is GateOutcome.FAILED)

    def _remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    def _frame_timeout(self) -> float:
        return max(min(self._remaining_seconds(), _POLL_SECONDS), 0.0)
