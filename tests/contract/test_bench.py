"""The parts of `make bench` that are no measurement: statistics, goals, comparisons, and what load generators say."""

import socketserver
import threading
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

import orjson
import pytest

from tests.bench import cases, load, peers, wrk
from tests.bench.__main__ import SECTIONS, arguments, options
from tests.bench.load import COUNTER, LoadError, Measured, NoResponseError, Target
from tests.bench.session import QUICK
from tests.bench.table import report
from tests.bench.table.figures import Measurement, Side, Summary, ratio, summary
from tests.bench.table.goals import FAILED, GOALS, Direction, Goal, Row, rows
from tests.bench.table.results import NoRunError, Run, read, write

Press = Callable[[Target, int, float, int], Measured]


def measurements(case: str, server: str, *rates: float, **figures: float) -> list[Measurement]:
    """Returns a measurement for each rate, in rounds from 1 on."""
    return [Measurement(case, server, number, {"rate": rate, **figures}) for number, rate in enumerate(rates, 1)]


def run_of(*measured: list[Measurement], sections: tuple[str, ...] = ("typename",), **facts: object) -> Run:
    """Returns a run with these measurements."""
    defaults: dict[str, object] = {"commit": "abc", "date": "2026-11-20", "quick": False, "rounds": 2, "seconds": 4.0}
    machine = {"cores": 2, "processor": "x", "python": "3", "postgresql": "18", "load_generator": "wrk"}
    sizes = {"history": 10, "subscribers": 10}
    return Run(defaults | machine | sizes | facts, sections, {}, [each for part in measured for each in part])


def row_of(run: Run, title: str) -> Row:
    """Returns the first row with this title."""
    return next(row for row in run.rows() if row.goal.title == title)


def test_summary_is_the_median_with_its_spread() -> None:
    assert summary([5, 1, 9, 4, 3]) == Summary(4, 1, 9)


@pytest.mark.parametrize(("other", "overlap"), [((3, 5), True), ((5, 6), False), ((0, 1), True), ((0, 0.5), False)])
def test_spreads_overlap_if_they_share_a_value(other: tuple[float, float], overlap: bool) -> None:
    assert Summary(2, 1, 4).overlaps(Summary(sum(other) / 2, *other)) is overlap


def test_ratio_pairs_the_rounds() -> None:
    assert ratio({1: 10, 2: 40, 3: 30}, {1: 10, 2: 20, 3: 10, 4: 99}) == Summary(30 / 15, 1, 3)


def test_side_takes_its_own_figures() -> None:
    measured = [*measurements("a", "hub", 1, 2), *measurements("a", "hand", 3), *measurements("b", "hub", 4)]
    assert Side("a", "hub", "rate").rounds(measured) == {1: 1, 2: 2}
    assert Side("a", "hub", "p50").rounds(measured) == {}


@pytest.mark.parametrize(
    ("direction", "value", "met"),
    [(Direction.AT_LEAST, 2, True), (Direction.AT_LEAST, 1.9, False), (Direction.AT_MOST, 2.1, False)],
)
def test_goal_is_met_on_its_side_of_the_limit(direction: Direction, value: float, met: bool) -> None:
    assert Goal("s", "t", Side("c", "hub", "ms"), "ms", direction, 2).is_met(value) is met


def test_every_goal_belongs_to_a_section() -> None:
    assert {goal.section for goal in GOALS} <= set(SECTIONS)


def test_no_two_goals_look_alike() -> None:
    assert len({(goal.title, goal.text) for goal in GOALS}) == len(GOALS)


def test_row_judges_the_ratio_of_medians() -> None:
    costs = {"server_ms": 0.1, "database_ms": 0.1}
    hub = measurements("typename", "hub", 50, 70, 60, **costs)
    hand = measurements("typename", "hand", 100, 100, 100, server_ms=0.05, database_ms=0.1)
    row = row_of(run_of(hub, hand), "{ __typename }")
    assert row.result == "met"
    assert row.ratio == Summary(0.6, 0.5, 0.7)
    assert row.by_cpu == pytest.approx(0.75)


def test_row_judges_an_absolute_limit() -> None:
    slow = [Measurement("start", "hub", 1, {"seconds": 2.5})]
    row = row_of(run_of(slow, sections=("start",)), "start until ready")
    assert (row.result, row.ratio) == ("missed", None)


def test_row_without_measurement_says_why() -> None:
    notes = {"peers": "skipped: needs npm", "create": f"{FAILED}3 requests failed"}
    results = {row.goal.text: row.result for row in rows([], ["peers", "create"], notes)}
    assert results["≥ 1 × Mercurius"] == "skipped: needs npm"  # noqa: RUF001
    assert results["≥ 0.8 × hand-written, group commit"] == "FAILED"  # noqa: RUF001


def test_rows_of_other_sections_are_absent() -> None:
    assert {row.goal.section for row in rows([], ["start"], {})} == {"start"}


def test_repeated_goal_is_shown_only_if_measured() -> None:
    title = "{ __typename }, peers' run"
    assert title not in {row.goal.title for row in rows([], SECTIONS, {})}
    measured = [*measurements("typename", "peers:xzepr", 1), *measurements("typename", "peers:hand", 1)]
    assert title in {row.goal.title for row in rows(measured, SECTIONS, {})}


def test_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = run_of(measurements("typename", "hub", 1, 2), measurements("typename", "hand", 2, 2))
    write(run, tmp_path / "folder" / "run.json")
    assert read(tmp_path / "folder" / "run.json").rows() == run.rows()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format": 0}', b'{"format": 1, "measurements": [{}]}'])
def test_other_files_are_no_runs(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(NoRunError, match=r"run\.json"):
        read(path)


@pytest.mark.parametrize(("rates", "verdict"), [((90, 110), "better"), ((10, 12), "WORSE"), ((49, 51), "")])
def test_comparison_marks_changes_beyond_both_spreads(rates: tuple[float, ...], verdict: str) -> None:
    hand = measurements("typename", "hand", 100, 100)
    before = run_of(measurements("typename", "hub", 40, 60), hand)
    (cells,) = report.compare_cells(before, run_of(measurements("typename", "hub", *rates), hand))
    change = f"{sum(rates) / 100 - 1:+.0%}"
    assert cells[:4] == ["{ __typename }", "50", f"{sum(rates) / 2:,.3g}", change]
    assert cells[6:] == [change, verdict]


def test_comparison_marks_a_greater_upper_limit_as_worse() -> None:
    runs = [run_of([Measurement("start", "hub", 1, {"seconds": n})], sections=("start",)) for n in (1.0, 2.0)]
    assert [cells[-1] for cells in report.compare_cells(runs[0], runs[1])] == ["WORSE"]


def test_comparison_leaves_out_what_one_run_lacks() -> None:
    hub, hand = measurements("typename", "hub", 1), measurements("typename", "hand", 1)
    assert report.compare_cells(run_of(hub), run_of(hub, hand)) == []


def test_comparison_names_different_conditions() -> None:
    assert report.differences(run_of(), run_of(cores=4)) == ["cores: 2 before, 4 after"]


def test_markdown_has_a_row_for_each_goal() -> None:
    run = run_of(measurements("typename", "hub", 1, others=0.25), measurements("typename", "hand", 1), quick=True)
    lines = report.markdown(run).splitlines()
    assert lines[0].startswith("QUICK RUN")
    assert "other processes used 25%" in lines[0]
    assert len({line.count("|") for line in lines[2:]}) == 1
    assert lines[4].startswith("|`{ __typename }`|1.00/s (1.00–1.00)|")  # noqa: RUF001
    assert len(lines) == 4 + len(run.rows())


def peer(**changes: object) -> dict[str, object]:
    """Returns a measurement as the peers' program writes it."""
    figures = {"rps": 500.0, "p50": 1.0, "p99": 2.0, "server_ms": 0.1, "database_ms": 0.2, "others": 0.01}
    return {"server": "rust", "case": "ONE", "round": 3, "requests": 9, "bytes": 9, "errors": 0, **figures, **changes}


def test_peers_measurements_are_renamed() -> None:
    (measured,) = peers.parse([peer()])
    assert (measured.case, measured.server, measured.round) == ("event", "peers:rust", 3)
    assert (measured.figures["rate"], measured.figures["each"]) == (500, 2)


def test_errors_of_a_peer_fail_the_run() -> None:
    with pytest.raises(LoadError, match="2 errors of rust"):
        peers.parse([peer(errors=2)])


def test_missing_peers_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert peers.missing(tmp_path) == ["the folder of the peers (--peers FOLDER)", *peers.TOOLS]


def test_result_of_wrk_is_its_last_line() -> None:
    last = b'{"requests": 100, "bytes": 5000, "us": 2000000, "p50": 1500, "p99": 9000, "errors": 1}'
    measured = wrk.measured("Running 2s test\n\n" + last.decode() + "\n", 0.5)
    assert measured == Measured(2.0, 100, 1, 5000, 1.5, 9.0, 0.5)
    assert (measured.rate, measured.percentile(99)) == (50, 9)


def test_wrk_without_a_result_is_an_error() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        wrk.measured("unable to connect to 127.0.0.1", 0)
    with pytest.raises(NoResponseError):
        wrk.measured('{"requests": 0, "bytes": 0, "us": 1, "p50": 0, "p99": 0, "errors": 0}', 0)


class Recorder(socketserver.StreamRequestHandler):
    """Answers requests, and keeps their bodies in `server.bodies`. A body with `fail` gets a GraphQL error."""

    def handle(self) -> None:
        """Serves one connection."""
        while head := self.rfile.readline():
            headers: dict[bytes, bytes] = {}
            while (line := self.rfile.readline()) != b"\r\n":
                name, _, value = line.partition(b":")
                headers[name.lower()] = value.strip()
            body = self.rfile.read(int(headers[b"content-length"]))
            cast(Any, self.server).bodies.append((head, headers, body))
            response = b'{"errors":[{}]}' if b"fail" in body else b'{"data":{}}    '
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(response), response))


@pytest.fixture
def recorder() -> Generator[Any]:
    """A server with a thread for each connection."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Recorder) as server:
        server.daemon_threads = True
        cast(Any, server).bodies = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


GENERATORS = [
    load.press,
    pytest.param(wrk.press, marks=pytest.mark.skipif(wrk.version() is None, reason="needs wrk")),
]


def target(recorder: Any, body: bytes, values: tuple[str, ...] = ()) -> Target:
    """Returns requests to the recorder."""
    return Target(recorder.server_address[1], "/graphql", body, {"X-Api-Key": "k"}, values)


@pytest.mark.parametrize("press", GENERATORS)
def test_generator_sends_a_new_number_each_time(press: Press, recorder: Any) -> None:
    measured = press(target(recorder, b'{"n":"' + COUNTER + b'","m":"' + COUNTER + b'"}'), 2, 0.3, 7_000_000_000)
    sent: list[Mapping[str, str]] = [orjson.loads(body) for _, _, body in recorder.bodies]
    assert 0 < measured.requests <= len(sent)
    assert measured.failures == 0
    assert all(each["n"] == each["m"] and 7_000_000_000 <= int(each["n"]) < 7_010_000_000 for each in sent)
    assert len({each["n"] for each in sent}) == len(sent)
    head, headers, _ = recorder.bodies[0]
    assert (head, headers[b"x-api-key"]) == (b"POST /graphql HTTP/1.1\r\n", b"k")


@pytest.mark.parametrize("press", GENERATORS)
def test_generator_sends_the_values_in_turn(press: Press, recorder: Any) -> None:
    press(target(recorder, b'"' + COUNTER + b'"', ("one", "three")), 1, 0.3, 0)
    bodies = [body for _, _, body in recorder.bodies][-4:]
    assert sorted(bodies) == [b'"one"', b'"one"', b'"three"', b'"three"']


def test_generator_counts_failed_responses(recorder: Any) -> None:
    measured = load.press(target(recorder, b'"' + COUNTER + b'"', ("fail", "succeed")), 1, 0.3)
    assert 0 < measured.failures < measured.requests


def test_failed_response_is_an_error(recorder: Any) -> None:
    assert load.response_of(target(recorder, b'"ok"'), 0)[0] == b'{"data":{}}    '
    with pytest.raises(LoadError, match="errors"):
        load.response_of(target(recorder, b'"fail"'), 0)


def test_wrong_response_is_an_error() -> None:
    cases.check("typename", b'{"data":{"__typename":"Query"}}')
    for response in (b'{"data":{"__typename":"Mutation"}}', b'{"data":null}', b"{}", b"<html>"):
        with pytest.raises(LoadError, match="typename"):
            cases.check("typename", response)


def test_quick_run_has_no_peers_unless_named() -> None:
    assert options(arguments(["--quick"])) == QUICK
    assert options(arguments(["--quick", "--peers", "folder"])).peers == Path("folder")
    assert options(arguments(["--no-peers", "--rounds", "7"])).peers is None
    assert options(arguments(["--rounds", "7"])).rounds == 7


def test_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        arguments(["nonsense"])
    assert "choose from typename" in capsys.readouterr().err
