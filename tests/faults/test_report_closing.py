"""The closing lines of a session name every fault, also those that were never checked."""

from typing import Literal

import pytest

from tests.faults.runner.report import closing_lines

Outcome = Literal["passed", "failed", "skipped"]


def report(test: str, when: Literal["setup", "call"], outcome: Outcome, *lines: dict[str, str]) -> pytest.TestReport:
    reason = ("file.py", 1, "Skipped: no java on this machine") if outcome == "skipped" else None
    properties: list[tuple[str, object]] = [("fault", line) for line in lines]
    return pytest.TestReport(
        f"file.py::{test}", ("file.py", 1, test), {}, outcome, reason, when, (), 0, 0, 0, properties
    )


TESTS = ("checked", "with_findings", "skipped", "hung", "failed_early", "not_reached")
SELECTED = [f"file.py::{test}" for test in TESTS]
REPORTS = [
    report("checked", "setup", "passed"),
    report("checked", "call", "passed", {"fault": "kill -9 of the relay"}),
    report("with_findings", "call", "failed", {"fault": "broker restarted"}),
    report("skipped", "call", "skipped"),
    report("failed_early", "call", "failed"),
    report("hung", "setup", "passed"),
    report("no_fault", "call", "failed"),
]


def test_closing_lines_list_faults_without_a_verdict() -> None:
    rows = [dict.fromkeys(("injections", "seconds", "acknowledged", "lost", "repeated", "wrong", "retries"), 1)] * 2
    lines = [{**row, "fault": name, "kafka": "yes"} for row, name in zip(rows, ("one", "other"), strict=True)]
    assert closing_lines(lines, SELECTED, REPORTS) == [
        "2 faults were tried, 1 were skipped, 2 were aborted before the check, 1 were not started",
        "  skipped: skipped: no java on this machine",
        "  aborted: hung",
        "  aborted: failed_early",
        "  not started: not_reached",
    ]
