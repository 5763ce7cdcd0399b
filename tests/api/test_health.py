"""Health endpoints while the hub's components work, hang or fail."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import xzepr
from xzepr.api.drain import Drain
from xzepr.api.health import Health, State, health_routes
from xzepr.core.errors import Unavailable
from xzepr.infra.telemetry.metrics import Metrics


async def reachable() -> None:
    """A database check that succeeds."""


async def unreachable() -> None:
    """A database check that fails."""
    raise Unavailable("the database cannot be reached")


async def hanging() -> None:
    """A database check that never returns."""
    await asyncio.Event().wait()


def client(
    database: Callable[[], Awaitable[None]] = reachable, kafka: State | None = None, metrics: Metrics | None = None
) -> TestClient:
    """Returns a client of an application that has only the health routes."""
    health = Health(database, lambda: kafka, Drain(), timeout_seconds=0.05)
    return TestClient(Starlette(routes=health_routes(health, metrics)))


def test_health_response_has_documented_shape() -> None:
    response = client().get("/health")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "status": "healthy",
        "service": "xzepr",
        "version": xzepr.__version__,
        "components": {"database": "healthy"},
    }


@pytest.mark.parametrize("database", [unreachable, hanging])
def test_hub_without_database_is_unhealthy_but_alive(
    database: Callable[[], Awaitable[None]],
) -> None:
    hub = client(database, kafka=State.HEALTHY)
    health, ready = hub.get("/health"), hub.get("/health/ready")
    assert (health.status_code, ready.status_code) == (503, 503)
    assert health.json()["status"] == "unhealthy"
    assert health.json()["components"] == {"database": "unhealthy", "kafka": "healthy"}
    assert ready.json()["status"] == "not ready"
    assert hub.get("/health/live").status_code == 200


def test_hub_with_full_disk_is_degraded() -> None:
    health = Health(reachable, lambda: None, Drain(), lambda: False)
    response = TestClient(Starlette(routes=health_routes(health, None))).get("/health")
    assert response.status_code == 200
    assert response.json()["status"] == "degraded"
    assert response.json()["components"] == {"database": "healthy", "storage": "degraded"}


@pytest.mark.parametrize("kafka", [State.DEGRADED, State.UNHEALTHY])
def test_hub_without_kafka_is_degraded_but_ready(kafka: State) -> None:
    hub = client(kafka=kafka)
    assert hub.get("/health").json()["status"] == "degraded"
    assert (hub.get("/health").status_code, hub.get("/health/ready").status_code) == (200, 200)
    assert hub.get("/health").json()["components"]["kafka"] == kafka


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/metrics"])
def test_head_responds_like_get(path: str) -> None:
    hub = client(metrics=Metrics("1"))
    head, get = hub.head(path), hub.get(path)
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert hub.post(path).status_code == 405


def test_metrics_are_served_only_when_enabled() -> None:
    response = client(metrics=Metrics("1.2.3")).get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'xzepr_build_info{version="1.2.3"} 1.0' in response.text
    assert client().get("/metrics").status_code == 404
