"""Metrics of one process and of several workers."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, multiprocess
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from tests.support.hub import until
from xzepr.api.shell import Concerns, Shell, request_count
from xzepr.infra.telemetry.metrics import Metrics, remove_worker_gauges

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """Returns the value of the sample with this name and these labels; None if there is none."""
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_batch_is_counted_by_size_time_outcome() -> None:
    metrics = Metrics("1.2.3")
    metrics.batch_committed(64, 0.004)
    metrics.events_recorded(60, 4)
    metrics.gate_messages_published("gate.completed", 3)
    assert value(metrics, "xzepr_recorder_batch_events_bucket", le="64.0") == 1
    assert value(metrics, "xzepr_recorder_batch_events_bucket", le="32.0") == 0
    assert value(metrics, "xzepr_recorder_commit_duration_seconds_sum") == 0.004
    assert value(metrics, "xzepr_events_total", success="true") == 60
    assert value(metrics, "xzepr_events_total", success="false") == 4
    assert value(metrics, "xzepr_gate_messages_total", kind="gate.completed") == 3
    assert value(metrics, "xzepr_build_info", version="1.2.3") == 1


def test_gauges_show_latest_values() -> None:
    metrics = Metrics("1")
    metrics.set_queue_size(2)
    metrics.set_head(1042)
    metrics.set_relay_lag("default", 7, 1.5)
    metrics.messages_relayed("default", 5)
    metrics.set_relay_state("default", "waiting")
    metrics.set_relay_state("default", "running")
    for _ in range(3):
        metrics.subscription_started("websocket")
    metrics.subscription_ended("websocket")
    assert value(metrics, "xzepr_recorder_queue_events") == 2
    metrics.set_queue_size(0)
    assert value(metrics, "xzepr_recorder_queue_events") == 0
    assert value(metrics, "xzepr_stream_head_position") == 1042
    assert value(metrics, "xzepr_relay_lag_messages", route="default") == 7
    assert value(metrics, "xzepr_relay_published_messages_total", route="default") == 5
    assert value(metrics, "xzepr_relay_state", route="default", state="running") == 1
    assert value(metrics, "xzepr_relay_state", route="default", state="waiting") == 0
    assert value(metrics, "xzepr_subscribers", transport="websocket") == 2


def test_operations_are_counted_by_outcome() -> None:
    metrics = Metrics("1")
    metrics.operation_executed("mutation", "ok", 0.01)
    metrics.operation_executed("mutation", "FORBIDDEN", 0.01)
    metrics.login_attempted("ok")
    metrics.login_attempted("INVALID_CREDENTIALS")
    assert value(metrics, "xzepr_graphql_operations_total", type="mutation", outcome="FORBIDDEN") == 1
    assert value(metrics, "xzepr_graphql_operation_duration_seconds_count", type="mutation") == 2
    assert value(metrics, "xzepr_logins_total", outcome="INVALID_CREDENTIALS") == 1


def test_scrapes_between_counts_add_up() -> None:
    metrics = Metrics("1")
    for round in range(1, 4):
        metrics.request_answered("POST", "/graphql", 200, 0.002)
        metrics.request_answered("POST", "/graphql", 200, 30.0)
        metrics.operation_fell_back("error")
        assert value(metrics, "xzepr_http_requests_total", method="POST", route="/graphql", status="200") == 2 * round
        assert value(metrics, "xzepr_http_request_duration_seconds_bucket", route="/graphql", le="0.0025") == round
        assert value(metrics, "xzepr_http_request_duration_seconds_bucket", route="/graphql", le="10.0") == round
        assert value(metrics, "xzepr_http_request_duration_seconds_count", route="/graphql") == 2 * round
        assert value(metrics, "xzepr_http_request_duration_seconds_sum", route="/graphql") == pytest.approx(
            30.002 * round
        )
        assert value(metrics, "xzepr_graphql_fallbacks_total", reason="error") == round


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.00100001, 0.25, 9.99, 10.0, 10.1])
def test_value_is_in_the_bucket_that_prometheus_chooses(seconds: float) -> None:
    metrics, registry = Metrics("1"), CollectorRegistry()
    metrics.operation_executed("query", "ok", seconds)
    expected = Histogram("xzepr_graphql_operation_duration_seconds", "", ["type"], buckets=BOUNDS, registry=registry)
    expected.labels("query").observe(seconds)
    for bound in (*map(str, BOUNDS), "+Inf"):
        labels = {"type": "query", "le": bound}
        assert value(metrics, "xzepr_graphql_operation_duration_seconds_bucket", **labels) == registry.get_sample_value(
            "xzepr_graphql_operation_duration_seconds_bucket", labels
        )


async def test_counts_reach_other_workers_within_a_second(tmp_path: Path) -> None:
    counting = await asyncio.create_subprocess_exec(
        sys.executable, "-c", COUNTING_WORKER, str(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert counting.stdin is not None
    assert counting.stdout is not None
    async with asyncio.timeout(60):
        assert await counting.stdout.readline() == b"counted\n"
        await until(lambda: _shown_by_another(tmp_path) == 7)
        counting.stdin.close()
        assert await counting.wait() == 0
    assert _shown_by_another(tmp_path) == 8, "the last counts are passed on at the end"


def _shown_by_another(folder: Path) -> float:
    """Returns the events of worker 1 as the collector of any other worker shows them."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))
    return registry.get_sample_value("xzepr_events_total", {"success": "true"}) or 0


def test_hubs_in_one_process_count_separately() -> None:
    first, second = Metrics("1"), Metrics("1")
    first.login_attempted("ok")
    assert value(second, "xzepr_logins_total", outcome="ok") is None


WORKER = """
import sys, time
from pathlib import Path
from time import perf_counter
from xzepr.infra.telemetry.metrics import Metrics
folder, number = Path(sys.argv[1]), int(sys.argv[2])
metrics = Metrics.shared("1", folder, number)
metrics.events_recorded(number, 0)
metrics.batch_committed(64, 0.004)
metrics.set_head(100 * number)
metrics.set_feed_lag(10 - number, 1.0)
metrics.set_connections("sse", number)
metrics.subscription_started("websocket")
metrics.set_queue_size(5)
metrics.set_relay_state("route", "following" if number == 1 else "standby")
metrics.set_relay_lag("route", number, 0.5)
if number == 1:
    metrics.set_dead_letters("route", 4)
sys.stdout.buffer.write(metrics.render())
"""


COUNTING_WORKER = """
import asyncio, sys
from pathlib import Path
from time import perf_counter
from xzepr.infra.telemetry.metrics import Metrics

async def main():
    metrics = Metrics.shared("1", Path(sys.argv[1]), 1)
    run = asyncio.create_task(metrics.run())
    metrics.events_recorded(7, 0)
    print("counted", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    metrics.events_recorded(1, 0)
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)

asyncio.run(main())
"""


def _worker(folder: Path, number: int) -> Any:
    """Runs a worker process that records some metrics. Returns the samples that it renders."""
    process = subprocess.run([sys.executable, "-c", WORKER, str(folder), str(number)], check=True, capture_output=True)
    samples = (
        sample for family in text_string_to_metric_families(process.stdout.decode()) for sample in family.samples
    )
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_any_worker_shows_totals_of_all_workers(tmp_path: Path) -> None:
    _worker(tmp_path, 1)
    samples = _worker(tmp_path, 2)
    assert samples["xzepr_events_total", "true"] == 1 + 2
    assert samples["xzepr_recorder_batch_events_bucket", "64.0"] == 2
    assert samples["xzepr_recorder_commit_duration_seconds_count",] == 2
    assert samples["xzepr_worker_starts_total",] == 2
    assert samples["xzepr_build_info", "1"] == 1
    assert samples["xzepr_connections", "sse"] == 1 + 2
    assert samples["xzepr_subscribers", "websocket"] == 2
    assert samples["xzepr_recorder_queue_events",] == 10
    assert samples["xzepr_stream_head_position",] == 200, "the highest position of all workers"
    assert samples["xzepr_feed_lag_messages",] == 9, "the largest lag of all workers"
    assert samples["xzepr_relay_state", "following", "route"] == 1
    assert samples["xzepr_relay_state", "route", "standby"] == 1
    assert samples["xzepr_relay_lag_messages", "route"] == 2, "the lag reported last"
    assert samples["xzepr_relay_dead_letters", "route"] == 4, "one worker reports the count of the database"


def test_restarted_worker_continues_its_counters(tmp_path: Path) -> None:
    _worker(tmp_path, 1)
    _worker(tmp_path, 2)
    samples = _worker(tmp_path, 2)
    assert samples["xzepr_events_total", "true"] == 1 + 2 + 2
    assert samples["xzepr_worker_starts_total",] == 3
    assert samples["xzepr_connections", "sse"] == 1 + 2
    remove_worker_gauges(tmp_path, 1)
    samples = _worker(tmp_path, 2)
    assert samples["xzepr_events_total", "true"] == 1 + 2 + 2 + 2, "counters of a dead worker are kept"
    assert samples["xzepr_connections", "sse"] == 2
    assert ("xzepr_relay_state", "following", "route") not in samples, "gauges of a dead worker are removed"


async def _succeed(_: Request) -> Response:
    return Response("yes")


async def _fail(_: Request) -> Response:
    raise ValueError("broken")


def test_requests_are_counted_by_known_route() -> None:
    metrics = Metrics("1")
    app = Starlette(routes=[Route("/events/{id}", _succeed), Route("/broken", _fail)])
    shell = Shell(app, Concerns(finished=[request_count(metrics)]), max_bytes=10, timeout_seconds=10)
    client = TestClient(shell, raise_server_exceptions=False)
    for path in ("/events/1", "/events/2", "/nothing/3", "/broken"):
        client.get(path)
    client.request("BREW", "/events/1")
    assert value(metrics, "xzepr_http_requests_total", method="GET", route="/events/{id}", status="200") == 2
    assert value(metrics, "xzepr_http_requests_total", method="GET", route="none", status="404") == 1
    assert value(metrics, "xzepr_http_requests_total", method="GET", route="/broken", status="500") == 1
    assert value(metrics, "xzepr_http_requests_total", method="other", status="405") == 1
    assert value(metrics, "xzepr_http_request_duration_seconds_count", route="/events/{id}") == 3


def test_event_stream_is_timed_until_it_begins() -> None:
    metrics = Metrics("1")
    waits: list[float] = []

    async def wait() -> AsyncGenerator[str]:
        yield ":\n\n"
        began = perf_counter()
        await asyncio.sleep(0.2)
        waits.append(perf_counter() - began)

    async def stream(_: Request) -> Response:
        return StreamingResponse(wait(), media_type="text/event-stream")

    async def download(_: Request) -> Response:
        return StreamingResponse(wait(), media_type="text/plain")

    app = Starlette(routes=[Route("/stream", stream), Route("/download", download)])
    client = TestClient(Shell(app, Concerns(finished=[request_count(metrics)]), max_bytes=10, timeout_seconds=10))
    for path in ("/stream", "/download"):
        assert client.get(path).status_code == 200
    streamed, downloaded = (
        value(metrics, "xzepr_http_request_duration_seconds_sum", route=path) for path in ("/stream", "/download")
    )
    assert streamed is not None
    assert downloaded is not None
    assert downloaded >= waits[1]
    assert streamed < waits[0]


def test_counters_have_no_series_of_their_creation() -> None:
    metrics = Metrics("1")
    metrics.events_recorded(1, 1)
    metrics.batch_committed(1, 0.1)
    assert b"_created" not in metrics.render()
