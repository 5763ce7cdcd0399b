"""The goals of the hub's speed, and the rows of the table that compares them with measurements."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from statistics import median

from tests.bench.table.figures import Measurement, Side, Summary, ratio, summary

FAILED = "FAILED: "  # starts the note of a section that has failed


class Direction(Enum):
    """Whether a goal is a lower or an upper limit."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


@dataclass(frozen=True, slots=True)
class Goal:
    """A limit of a figure, or of its ratio to another one."""

    section: str
    title: str
    side: Side
    unit: str
    direction: Direction
    limit: float
    beside: str = ""
    """The name of the other figure; empty if the limit is absolute."""
    other: Side | None = None
    repeats: bool = False
    """Whether another section measures the same with its own servers. Shown only if it was measured."""

    @property
    def text(self) -> str:
        """The limit in words."""
        bound = f"{self.direction.value} {self.limit:g}"
        return f"{bound} × {self.beside}" if self.other else f"{bound} {self.unit}"

    def is_met(self, value: float) -> bool:
        """Returns whether a value is within the limit."""
        return value >= self.limit if self.direction is Direction.AT_LEAST else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """A goal with its measurement, or with the reason why there is none."""

    goal: Goal
    measured: Summary | None = None
    other: Summary | None = None
    ratio: Summary | None = None
    by_cpu: float | None = None
    """The same ratio by the processor time of a request, of server and database; None if it says nothing."""
    note: str = ""

    @property
    def judged(self) -> Summary | None:
        """The value that the goal limits; None if it was not measured."""
        return self.ratio if self.goal.other else self.measured

    @property
    def result(self) -> str:
        """`met`, `missed`, `FAILED`, or the reason why there is no measurement."""
        if self.judged is None:
            return "FAILED" if self.note.startswith(FAILED) else self.note
        return "met" if self.goal.is_met(self.judged.median) else "missed"


TWO_WORKERS = ("hub_2", "peers:xzepr_2")


def rows(measurements: Collection[Measurement], sections: Collection[str], notes: Mapping[str, str]) -> list[Row]:
    """Returns a row for each goal of the sections. `notes` say why a section has no measurements."""
    found = (_row(goal, measurements, notes) for goal in GOALS if goal.section in sections)
    return [row for row in found if row.judged is not None or not row.goal.repeats]


def _row(goal: Goal, measurements: Collection[Measurement], notes: Mapping[str, str]) -> Row:
    values = goal.side.rounds(measurements)
    others = goal.other.rounds(measurements) if goal.other else {}
    if not values or (goal.other and not others):
        return Row(goal, note=notes.get(goal.section, "not measured"))
    if not others:
        return Row(goal, summary(list(values.values())))
    summaries = summary(list(values.values())), summary(list(others.values()))
    return Row(goal, *summaries, ratio(values, others), _by_cpu(goal, measurements))


def _by_cpu(goal: Goal, measurements: Collection[Measurement]) -> float | None:
    """Returns the ratio of the processor times of a request. More than 1 means that the hub needs less."""
    if goal.other is None or goal.side.figure != "rate" or goal.side.server in TWO_WORKERS:
        return None
    hub, other = (_cpu_ms(side, measurements) for side in (goal.side, goal.other))
    return other / hub if hub and other else None


def _cpu_ms(side: Side, measurements: Collection[Measurement]) -> float:
    """Returns the processor time of one request in milliseconds; 0 if it was not measured."""
    figures = (Side(side.case, side.server, name).rounds(measurements) for name in ("server_ms", "database_ms"))
    return sum(median(rounds.values()) for rounds in figures if rounds)


def _faster(section: str, title: str, case: str, limit: float, beside: str, other: str, hub: str = "hub") -> Goal:
    """Returns the goal that the hub serves at least `limit` times as many requests as another server."""
    sides = Side(case, hub, "rate"), Side(case, other, "rate")
    return Goal(section, title, sides[0], "/s", Direction.AT_LEAST, limit, beside, sides[1])


def _beside_peer(title: str, case: str, limit: float, beside: str, other: str, *, repeats: bool = False) -> Goal:
    sides = Side(case, "peers:xzepr", "rate"), Side(case, f"peers:{other}", "rate")
    return Goal("peers", title, sides[0], "/s", Direction.AT_LEAST, limit, beside, sides[1], repeats)


def _steady(section: str, title: str, case: str) -> Goal:
    """Returns the goal that the slowest requests of a case are not much slower than most."""
    sides = Side(case, "hub", "p99"), Side(case, "hub", "p50")
    return Goal(section, f"p99, {title}", sides[0], "ms", Direction.AT_MOST, 4, "p50", sides[1])


def _at_most(section: str, title: str, side: Side, limit: float, unit: str, *other: str) -> Goal:
    beside, server = other or ("", "")
    against = Side(side.case, server, side.figure) if server else None
    return Goal(section, title, side, unit, Direction.AT_MOST, limit, beside, against)


TYPENAME = "{ __typename }"
CREATE = "createEvent, 64 connections"
ONE_BY_ONE = "createEvent, 1 connection"
BATCHES = "createEvents of 500"
EVENT = "event by id"
LIST = "list 50 × 11"
RECEIVERS = "list 50 with receiver"
HAND = "hand-written"
GROUP = "hand-written, group commit"

GOALS = (
    _faster("typename", TYPENAME, "typename", 0.6, HAND, "hand"),
    _faster("create", CREATE, "create", 0.8, GROUP, "hand_group"),
    _beside_peer(CREATE, "create", 1, "Mercurius", "mercurius"),
    _beside_peer(CREATE, "create", 0.7, "Rust", "rust"),
    _at_most("create", ONE_BY_ONE, Side("create_1", "hub", "p50"), 1.5, "ms", "hand-written, one INSERT", "hand"),
    _faster("create", "createEvent, 2 workers", "create", 1.3, "one worker", "hub", hub="hub_2"),
    _faster("list", f"{LIST}, 2 workers", "list", 1.6, "one worker", "hub", hub="hub_2"),
    _faster("batches", BATCHES, "batches", 0.6, "COPY", "copy"),
    _beside_peer(EVENT, "event", 0.6, "Mercurius", "mercurius"),
    _faster("event", EVENT, "event", 1.2, HAND, "hand"),
    _beside_peer(LIST, "list", 1.5, "Mercurius", "mercurius"),
    _beside_peer(RECEIVERS, "list_receiver", 3, "Mercurius", "mercurius"),
    _at_most(
        "execution",
        "1,000 rows × 10 fields in process",
        Side("execution", "hub", "ms"),
        1.5,
        "ms",
        "a comprehension",
        "comprehension",
    ),
    _steady("typename", TYPENAME, "typename"),
    _steady("create", "createEvent", "create"),
    _steady("event", EVENT, "event"),
    _steady("list", LIST, "list"),
    _steady("list", RECEIVERS, "list_receiver"),
    _at_most(
        "history",
        "createEvent after earlier events",
        Side("history", "hub_full", "each"),
        1.2,
        "ms",
        "an empty hub",
        "hub_empty",
    ),
    _faster("fanout", "fan-out, frames", "fanout", 0.6, "a bare broadcast", "broadcast"),
    _at_most("fanout", "memory of an idle subscriber", Side("subscriber", "hub", "kib"), 30, "KiB"),
    _at_most("start", "start until ready", Side("start", "hub", "seconds"), 2, "s"),
    _at_most("start", "import of the command line", Side("import", "xzepr", "seconds"), 0.3, "s"),
    _at_most("start", "memory of an idle worker", Side("worker", "hub_2", "mib"), 120, "MiB"),
    _beside_peer(f"{TYPENAME}, peers' run", "typename", 0.6, HAND, "hand", repeats=True),
    _beside_peer(f"{CREATE}, peers' run", "create", 0.8, GROUP, "hand_group", repeats=True),
    _beside_peer(f"{EVENT}, peers' run", "event", 1.2, HAND, "hand", repeats=True),
    Goal(
        "peers",
        "createEvent, 2 workers, peers' run",
        Side("create", "peers:xzepr_2", "rate"),
        "/s",
        Direction.AT_LEAST,
        1.3,
        "one worker",
        Side("create", "peers:xzepr", "rate"),
        repeats=True,
    ),
)
