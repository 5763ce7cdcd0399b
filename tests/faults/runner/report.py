"""What the fault runs of a test session came to: a line of JSON for each, and a table at its end; a pytest plugin."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

FILE = "XZEPR_TEST_FAULT_REPORT"
"""Names the file that lines are appended to; without it there is the table alone."""
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One run of one fault."""

    fault: str
    injections: int
    seconds: float
    """How long events were offered."""
    acknowledged: int
    lost: int
    repeated: int
    wrong: int
    """Findings of any other kind."""
    longest_outage: float
    """Seconds that a client went from its first try of an event to its acknowledgement, at most."""
    longest_silence: float
    """Seconds in which no client at all got one, at most."""
    retries: int
    kafka: str
    """yes, or why not."""
    rate: float
    """Acknowledged events a second, catching up included, outages of a second and more not: in them a fault that takes
    every hub leaves nobody to record with."""
    messages: int
    attached: int
    """Connections of subscribers."""
    troubles: dict[str, int] = field(default_factory=dict[str, int])
    findings: Sequence[str] = ()
    commit: str = ""
    at: str = ""


def commit() -> str:
    """The commit that is tested, with a star when the tree has changes."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=*"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def keep(report: FaultReport, node: pytest.Item) -> None:
    """Appends the line, and hands it to the summary of the session."""
    line = {**asdict(report), "commit": commit(), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    node.user_properties.append(("fault", line))
    if path := os.environ.get(FILE):
        with Path(path).open("a") as file:
            file.write(json.dumps(line) + "\n")


HEAD = (
    *("fault", "injections", "seconds", "acknowledged", "lost", "repeated", "wrong"),
    *("longest_outage", "longest_silence", "retries", "kafka"),
)


def table(lines: Sequence[dict[str, Any]]) -> list[str]:
    """The runs, one under the other; runs of the same fault are added up."""
    rows = [HEAD, *(tuple(_shown(line[name]) for name in HEAD) for line in summed(lines))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def summed(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each fault: counts are added, of outages the longest is kept."""
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if (was := found.get(line["fault"])) is None:
            found[line["fault"]] = dict(line)
            continue
        for name in ("injections", "seconds", "acknowledged", "lost", "repeated", "wrong", "retries"):
            was[name] += line[name]
        for name in ("longest_outage", "longest_silence"):
            was[name] = max(was[name], line.get(name, 0.0))
        was["kafka"] = line["kafka"] if was["kafka"] == "yes" else was["kafka"]
    return list(found.values())


def _shown(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


_WANTED = pytest.StashKey[list[str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes which faults the session is about to try."""
    session.config.stash[_WANTED] = [item.nodeid for item in session.items if item.get_closest_marker("faults")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the session, how many faults were tried, and why others were not."""
    stats: dict[str, list[Any]] = terminalreporter.stats
    wanted = terminalreporter.config.stash.get(_WANTED, list[str]())
    reports = [one for some in stats.values() for one in some if isinstance(one, pytest.TestReport)]
    lines = [line for report in reports if report.when == "call" and (line := _line_of(report)) is not None]
    if not wanted and not lines:
        return
    terminalreporter.section("faults")
    for line in [*table(lines), *closing(lines, wanted, reports)]:
        terminalreporter.write_line(line)


def closing(lines: Sequence[dict[str, Any]], wanted: Sequence[str], reports: Sequence[pytest.TestReport]) -> list[str]:
    """What became of each fault that was wanted: a run without a row is not passed over."""
    skipped = {one.nodeid: _reason(one) for one in reports if one.skipped and one.nodeid in wanted}
    judged = {one.nodeid for one in reports if _line_of(one) is not None}
    begun = {one.nodeid for one in reports} - judged - skipped.keys()
    broken_off = [one for one in wanted if one in begun]
    never = [one for one in wanted if one not in begun | judged | skipped.keys()]
    counts = f"{len(skipped)} were skipped, {len(broken_off)} were broken off before they were judged"
    return [
        f"{len(summed(lines))} faults were tried, {counts}, {len(never)} were not begun",
        *(f"  skipped: {_test(one)}: {reason}" for one, reason in skipped.items()),
        *(f"  broken off: {_test(one)}" for one in broken_off),
        *(f"  not begun: {_test(one)}" for one in never),
    ]


def _line_of(report: pytest.TestReport) -> dict[str, Any] | None:
    found: list[Any] = [value for name, value in report.user_properties if name == "fault"]
    return found[0] if found else None


def _reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    return str(reason).removeprefix("Skipped: ")


def _test(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]


def main() -> None:
    """Prints the table of a report file: `python -m tests.faults.runner.report FILE`."""
    import sys

    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    sys.stdout.write("\n".join(table(lines)) + "\n")


if __name__ == "__main__":
    main()
