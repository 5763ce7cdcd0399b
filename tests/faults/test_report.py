"""The table of fault runs has one row for each fault."""

from dataclasses import asdict, replace

import pytest

from tests.faults.runner.ledger import Entry, Ledger
from tests.faults.runner.report import FaultReport, merge_runs, table

RUN = FaultReport(
    fault="kill -9 of the relay",
    injections=5,
    seconds=32.0,
    acknowledged=7680,
    lost=0,
    repeated=0,
    wrong=0,
    longest_outage=1.5,
    longest_silence=1.0,
    retries=12,
    kafka="yes",
    rate=240.0,
    messages=12000,
    connections=60,
)
RUNS = [asdict(run) for run in (RUN, replace(RUN, longest_outage=0.5, lost=1), replace(RUN, fault="broker restarted"))]


def test_runs_of_one_fault_are_summed() -> None:
    relay, broker = merge_runs(RUNS)
    assert (relay["injections"], relay["acknowledged"], relay["lost"], relay["longest_outage"]) == (10, 15360, 1, 1.5)
    assert (broker["fault"], broker["injections"], broker["lost"]) == ("broker restarted", 5, 0)


def test_row_names_a_run_without_a_broker() -> None:
    [line] = merge_runs([asdict(RUN), asdict(replace(RUN, kafka="no: no java on this machine"))])
    assert line["kafka"] == "no: no java on this machine"


def test_table_has_a_row_for_each_fault() -> None:
    head, *rows = table(RUNS)
    assert head.split()[:3] == ["fault", "injections", "seconds"]
    assert [row.split("  ")[0] for row in rows] == ["kill -9 of the relay", "broker restarted"]


def test_outages_are_silences_of_at_least_a_second() -> None:
    times = [1.0, 1.2, 4.2, 4.3, 5.2, 6.2]
    ledger = Ledger([Entry(str(time), {}, acknowledged_at=time) for time in times] + [Entry("never", {})])
    assert ledger.seconds_of_silence == pytest.approx(4.0)
    assert ledger.longest_silence == pytest.approx(3.0)
