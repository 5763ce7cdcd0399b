"""The closing lines of a fault run tell what became of every fault, also of one that was never judged."""

from typing import Literal

import pytest

from tests.faults.runner.report import closing

Outcome = Literal["passed", "failed", "skipped"]


def report(test: str, when: Literal["setup", "call"], outcome: Outcome, *lines: dict[str, str]) -> pytest.TestReport:
    reason = ("file.py", 1, "Skipped: no java on this machine") if outcome == "skipped" else None
    properties: list[tuple[str, object]] = [("fault", line) for line in lines]
    return pytest.TestReport(
        f"file.py::{test}", ("file.py", 1, test), {}, outcome, reason, when, (), 0, 0, 0, properties
    )


WANTED = [f"file.py::{test}" for test in ("judged", "found_guilty", "skipped", "hung", "died_before", "not_reached")]
REPORTS = [
    report("judged", "setup", "passed"),
    report("judged", "call", "passed", {"fault": "kill -9 of the relay"}),
    report("found_guilty", "call", "failed", {"fault": "broker restarted"}),
    report("skipped", "call", "skipped"),
    report("died_before", "call", "failed"),
    report("hung", "setup", "passed"),
    report("no_fault", "call", "failed"),
]


def test_closing_lines_list_faults_without_a_verdict() -> None:
    rows = [dict.fromkeys(("injections", "seconds", "acknowledged", "lost", "repeated", "wrong", "retries"), 1)] * 2
    lines = [{**row, "fault": name, "kafka": "yes"} for row, name in zip(rows, ("one", "other"), strict=True)]
    assert closing(lines, WANTED, REPORTS) == [
        "2 faults were tried, 1 were skipped, 2 were broken off before they were judged, 1 were not begun",
        "  skipped: skipped: no java on this machine",
        "  broken off: hung",
        "  broken off: died_before",
        "  not begun: not_reached",
    ]
