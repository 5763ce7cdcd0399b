"""The page on monitoring a hub lists exactly the metrics that the hub serves."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from xzepr.infra.telemetry.metrics import Metrics

PAGE = Path(__file__).parents[2] / "docs/how_to/observe.md"


def test_every_metric_is_documented_with_its_labels() -> None:
    metrics = Metrics("1")
    metrics.request_answered("GET", "/", 200, 0.1)
    metrics.operation_executed("query", "ok", 0.1)
    metrics.events_recorded(1, 1)
    metrics.gate_announced("gate.completed")
    metrics.relay_lagged("default", 1, 1.0)
    metrics.connected("sse", 1)
    metrics.dead_letters_wait("default", 1)
    metrics.relay_became("default", "following")
    metrics.subscriber_came("sse")
    metrics.login_tried("ok")
    served = {
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            frozenset(family.samples[0].labels) - {"le"},
        )
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith("xzepr_") and not family.name.endswith("_created")
    }
    rows: list[tuple[str, str]] = re.findall(r"^\| `(xzepr_\w+)` \| ([\w, ]*) ?\|", PAGE.read_text(), re.MULTILINE)
    documented = {(name, frozenset(labels.replace(",", " ").split())) for name, labels in rows}
    assert documented == served
