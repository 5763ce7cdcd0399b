"""A pytest plugin that reports the fault runs of a session: one JSON line for each run, and a table at the end."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

FILE = "XZEPR_TEST_FAULT_REPORT"  # names the file for the JSON lines; without it, only the table is printed
ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One run of one fault."""

    fault: str
    injections: int
    seconds: float
    """Duration of the workload."""
    acknowledged: int
    lost: int
    repeated: int
    wrong: int
    """Findings of any other kind."""
    longest_outage: float
    """Longest time of an event from its first attempt to its acknowledgement, in seconds."""
    longest_silence: float
    """Longest time without an acknowledgement for any client, in seconds."""
    retries: int
    kafka: str
    """`yes`, or the reason why there was no broker."""
    rate: float
    """Acknowledged events per second. Includes catching up and excludes outages of at least a second, during which
    a fault that affects every hub leaves no server."""
    messages: int
    connections: int
    """Connections of subscribers."""
    retry_reasons: dict[str, int] = field(default_factory=dict[str, int])
    findings: Sequence[str] = ()
    commit: str = ""
    at: str = ""


def commit() -> str:
    """Returns the commit under test, with a star if the tree has changes."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=*"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def save_report(report: FaultReport, node: pytest.Item) -> None:
    """Appends the run to the report file, and passes it to the summary of the session."""
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
    """Returns the lines of a table with one row for each fault."""
    rows = [HEAD, *(tuple(_cell(line[name]) for name in HEAD) for line in merge_runs(lines))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def merge_runs(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merges the runs of each fault: adds the counts and keeps the longest outage and silence."""
    merged: dict[str, dict[str, Any]] = {}
    for line in lines:
        if (row := merged.get(line["fault"])) is None:
            merged[line["fault"]] = dict(line)
            continue
        for name in ("injections", "seconds", "acknowledged", "lost", "repeated", "wrong", "retries"):
            row[name] += line[name]
        for name in ("longest_outage", "longest_silence"):
            row[name] = max(row[name], line.get(name, 0.0))
        row["kafka"] = line["kafka"] if row["kafka"] == "yes" else row["kafka"]
    return list(merged.values())


def _cell(value: object) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


_SELECTED = pytest.StashKey[list[str]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Stores the fault tests of the session for the summary."""
    session.config.stash[_SELECTED] = [item.nodeid for item in session.items if item.get_closest_marker("faults")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of the session, the number of faults tried, and the reasons why others were not."""
    stats: dict[str, list[Any]] = terminalreporter.stats
    selected = terminalreporter.config.stash.get(_SELECTED, list[str]())
    reports = [item for items in stats.values() for item in items if isinstance(item, pytest.TestReport)]
    lines = [line for report in reports if report.when == "call" and (line := _line_of(report)) is not None]
    if not selected and not lines:
        return
    terminalreporter.section("faults")
    for line in [*table(lines), *closing_lines(lines, selected, reports)]:
        terminalreporter.write_line(line)


def closing_lines(
    lines: Sequence[dict[str, Any]], selected: Sequence[str], reports: Sequence[pytest.TestReport]
) -> list[str]:
    """Returns the outcome of the selected faults, and names those that have no row in the table."""
    skipped = {report.nodeid: _reason(report) for report in reports if report.skipped and report.nodeid in selected}
    checked = {report.nodeid for report in reports if _line_of(report) is not None}
    started = {report.nodeid for report in reports} - checked - skipped.keys()
    aborted = [node for node in selected if node in started]
    not_started = [node for node in selected if node not in started | checked | skipped.keys()]
    counts = f"{len(skipped)} were skipped, {len(aborted)} were aborted before the check"
    return [
        f"{len(merge_runs(lines))} faults were tried, {counts}, {len(not_started)} were not started",
        *(f"  skipped: {_test(node)}: {reason}" for node, reason in skipped.items()),
        *(f"  aborted: {_test(node)}" for node in aborted),
        *(f"  not started: {_test(node)}" for node in not_started),
    ]


def _line_of(report: pytest.TestReport) -> dict[str, Any] | None:
    lines: list[Any] = [value for name, value in report.user_properties if name == "fault"]
    return lines[0] if lines else None


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
