"""Waiting for a gate: asked whenever the stream says that something happened to its unit, and now and then as a net."""

import time
from dataclasses import dataclass
from enum import StrEnum

from xzepr.cli.client.http import Client, JsonObject, Refused, Unreachable
from xzepr.cli.client.subscription import Follower
from xzepr.cli.client.units import Unit
from xzepr.cli.output import say

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
_ANSWER_SECONDS = 10.0
_LEAST_ANSWER_SECONDS = 5.0
"""That the hub is given however little time is left: one that is merely slow can say."""


class Verdict(StrEnum):
    """How a gate is, in the order in which it decides."""

    COMPLETE = "complete"
    FAILED = "failed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The gate as it was last seen, and what that means."""

    verdict: Verdict
    gate: JsonObject

    @property
    def name(self) -> str:
        """The verdict's name."""
        return self.verdict.name

    @classmethod
    def of(cls, gate: JsonObject) -> "Outcome":
        """What a gate means."""
        states = {str(member["state"]) for member in gate["members"]}
        if gate["complete"]:
            return cls(Verdict.COMPLETE, gate)
        return cls(Verdict.FAILED if "FAILED" in states else Verdict.MISSING, gate)


class Waiting:
    """One wait for one group and one unit."""

    def __init__(self, client: Client, group_id: str, unit: Unit, timeout: float, *, fail_fast: bool) -> None:
        """The time runs from now; `timeout` is in seconds."""
        self._client = client
        self._asked = {"group": group_id, "unit": unit.as_input()}
        self._deadline = time.monotonic() + timeout
        self._fail_fast = fail_fast
        self._asked_at = 0.0

    def until_decided(self) -> Outcome:
        """What the gate is once it is complete or the time is over, or with fail_fast once a member failed. A hub that
        has answered once may be away meanwhile; raises Unreachable or Refused when it is at the end, or at first."""
        outcome = self._look()
        if self._decided(outcome) or self._left() <= 0:
            return outcome
        follower = Follower(self._client, _EVENTS, {"filter": {"unit": self._asked["unit"]}}, notice=say)
        try:
            return self._follow(follower)
        finally:
            follower.close()

    def _follow(self, follower: Follower) -> Outcome:
        seen: Outcome | Unreachable | Refused | None = None
        for frame in follower.frames(self._patience):
            over = self._left() <= 0
            if frame is not None or over or time.monotonic() - self._asked_at >= _POLL_SECONDS:
                try:
                    seen = self._look()
                except (Unreachable, Refused) as error:
                    if isinstance(error, Refused) and not error.passing:
                        raise
                    seen = error
            if isinstance(seen, Outcome) and self._decided(seen):
                return seen
            if over and seen is not None:
                break
        if isinstance(seen, Outcome):
            return seen
        raise seen or Unreachable("the hub did not say in time")

    def _look(self) -> Outcome:
        self._asked_at = time.monotonic()
        seconds = min(max(self._left(), _LEAST_ANSWER_SECONDS), _ANSWER_SECONDS)
        return Outcome.of(self._client.ask_within(seconds, _GATE, self._asked)["gate"])

    def _decided(self, outcome: Outcome) -> bool:
        return outcome.verdict is Verdict.COMPLETE or (self._fail_fast and outcome.verdict is Verdict.FAILED)

    def _left(self) -> float:
        return self._deadline - time.monotonic()

    def _patience(self) -> float:
        return max(min(self._left(), _POLL_SECONDS), 0.0)
