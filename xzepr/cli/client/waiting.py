"""Waits for a gate: queries it whenever the stream reports an event for its unit, and every few seconds."""

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from xzepr.cli.client.http import HubClient, HubUnreachable, JsonObject, RequestRejected
from xzepr.cli.client.units import UnitKey
from xzepr.cli.output import print_notice

if TYPE_CHECKING:
    from xzepr.cli.client.subscription import ResumingSubscription

GATE_FIELDS = """
  complete since group { id name type version enabled }
  members { state eventReceiver { id name type version } event { id success recordedAt description } }
"""
_GATE = f"query ($group: ID!, $unit: UnitInput!) {{ gate(groupId: $group, unit: $unit) {{ {GATE_FIELDS} }} }}"
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


class GateWait:
    """One wait for one group and one unit."""

    def __init__(
        self, client: HubClient, group_id: str, unit: UnitKey, timeout_seconds: float, *, fail_fast: bool
    ) -> None:
        """Starts the clock: the wait ends after `timeout_seconds`."""
        self._client = client
        self._variables = {"group": group_id, "unit": unit.as_input()}
        self._deadline = time.monotonic() + timeout_seconds
        self._fail_fast = fail_fast
        self._queried_at = 0.0

    def run(self) -> GateResult:
        """Returns the result once the gate is complete or the time is up, or with `fail_fast` once a member failed.

        After the first response, an unreachable hub is retried until the time is up. Raises HubUnreachable or
        RequestRejected if the first query or the last one fails, or for an error that retrying cannot fix.
        """
        result = self._query_gate()
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
        return GateResult.from_gate(self._client.execute_within(seconds, _GATE, self._variables)["gate"])

    def _is_final(self, result: GateResult) -> bool:
        return result.outcome is GateOutcome.COMPLETE or (self._fail_fast and result.outcome is GateOutcome.FAILED)

    def _remaining_seconds(self) -> float:
        return self._deadline - time.monotonic()

    def _frame_timeout(self) -> float:
        return max(min(self._remaining_seconds(), _POLL_SECONDS), 0.0)
