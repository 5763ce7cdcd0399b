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
    metrics.operation_fell_back("error")
    metrics.events_recorded(1, 1)
    metrics.gate_messages_published("gate.completed")
    metrics.set_relay_lag("default", 1, 1.0)
    metrics.messages_relayed("default", 1)
    metrics.set_connections("sse", 1)
    metrics.set_dead_letters("default", 1)
    metrics.set_relay_state("default", "following")
    metrics.subscription_started("sse")
    metrics.login_attempted("ok")
    served = {
        (
            f"{family.name}_total" if family.type == "counter" else family.name,
            frozenset(family.samples[0].labels) - {"le"},
        )
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name.startswith("xzepr_")
    }
    rows: list[tuple[str, str]] = re.findall(r"^\| `(xzepr_\w+)` \| ([\w, ]*) ?\|", PAGE.read_text(), re.MULTILINE)
    documented = {(name, frozenset(labels.replace(",", " ").split())) for name, labels in rows}
    assert documented == served
