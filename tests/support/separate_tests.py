"""A pytest plugin that names the tests that `make test` leaves to other targets, with their number in each file."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

_COUNTS: Counter[str] = Counter()
_KEY = "xzepr_deselected"


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Counts the tests that the markers of the command line exclude."""
    _COUNTS.update(item.nodeid.partition("::")[0] for item in items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sends the counts of an xdist worker to its controller, which collects no tests."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_KEY] = dict(_COUNTS)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Receives the counts of a worker. All workers collect the same tests."""
    _COUNTS.update(getattr(node, "workeroutput", {}).get(_KEY, {}) if not _COUNTS else {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the counts."""
    selected = str(terminalreporter.config.getoption("markexpr"))
    if _COUNTS and selected.startswith("not (kafka or "):
        lines = [f"{file}: {number}" for file, number in sorted(_COUNTS.items())]
        terminalreporter.write_line("Tests of make test-kafka, test-browser, test-all and faults, by file:")
        terminalreporter.write_line("\n".join(lines))
