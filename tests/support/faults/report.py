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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the session, how many faults were tried, and why others were not."""
    stats: dict[str, list[Any]] = terminalreporter.stats
    reports = [report for name in ("passed", "failed") for report in stats.get(name, [])]
    lines = [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "fault"
    ]
    skipped = [report for report in stats.get("skipped", []) if "faults" in report.keywords]
    if not lines and not skipped:
        return
    terminalreporter.section("faults")
    for line in table(lines):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"{len(summed(lines))} faults were tried, {len(skipped)} were skipped")
    for report in skipped:
        reason = str(report.longrepr[2])
        terminalreporter.write_line(f"  {report.nodeid.rpartition('::')[2]}: {reason.removeprefix('Skipped: ')}")


def main() -> None:
    """Prints the table of a report file: `python -m tests.support.faults.report FILE`."""
    import sys

    lines = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    sys.stdout.write("\n".join(table(lines)) + "\n")


if __name__ == "__main__":
    main()
