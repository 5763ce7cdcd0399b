"""Health checks and metrics: `/health`, `/health/live`, `/health/ready` and `/metrics`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import xzepr
from xzepr.api.drain import Drain
from xzepr.infra.telemetry.metrics import CONTENT_TYPE, Metrics


class State(StrEnum):
    """The health of the hub or of a component. DEGRADED: the hub serves, but a component does not work."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


DRAINING = "draining"  # the status of a process that is shutting down, whatever the state of its components


@dataclass(frozen=True, slots=True)
class Health:
    """The checks behind the health routes."""

    database: Callable[[], Awaitable[object]]
    """Queries the database. Raises, or takes longer than `timeout_seconds`, if the database does not respond."""
    kafka: Callable[[], State | None]
    """Returns the state of Kafka as the relay last saw it; None if no brokers are configured. Does not wait."""
    drain: Drain
    has_disk_space: Callable[[], bool] = lambda: True
    """Returns whether the disk of the database accepts writes. Does not wait."""
    timeout_seconds: float = 2.0

    async def components(self) -> dict[str, State]:
        """Returns the state of each component."""
        states = {"database": await self._database()}
        if not self.has_disk_space():
            states["storage"] = State.DEGRADED
        kafka = self.kafka()
        return states if kafka is None else states | {"kafka": kafka}

    async def _database(self) -> State:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self.database()
        except Exception:
            # The code that uses the database logs the cause. Here only the failure matters.
            return State.UNHEALTHY
        return State.HEALTHY


def overall_state(components: dict[str, State]) -> State:
    """Combines the states: UNHEALTHY without the database, DEGRADED if another component does not work."""
    if components["database"] is not State.HEALTHY:
        return State.UNHEALTHY
    return State.HEALTHY if set(components.values()) == {State.HEALTHY} else State.DEGRADED


def health_routes(health: Health, metrics: Metrics | None) -> list[Route]:
    """Returns the routes; without `/metrics` if `metrics` is None."""

    async def show(_: Request) -> Response:
        if health.drain.begun:
            return _response({"status": DRAINING, "service": "xzepr", "version": xzepr.__version__}, serving=False)
        components = await health.components()
        state = overall_state(components)
        body = {"status": state, "service": "xzepr", "version": xzepr.__version__, "components": components}
        return _response(body, serving=state is not State.UNHEALTHY)

    async def live(_: Request) -> Response:
        return _response({"status": "alive"}, serving=True)

    async def ready(_: Request) -> Response:
        if health.drain.begun:
            return _response({"status": DRAINING}, serving=False)
        components = await health.components()
        serving = overall_state(components) is not State.UNHEALTHY
        return _response({"status": "ready" if serving else "not ready", "components": components}, serving=serving)

    routes = [Route("/health", show), Route("/health/live", live), Route("/health/ready", ready)]
    return routes if metrics is None else [*routes, _metrics_route(metrics)]


def _metrics_route(metrics: Metrics) -> Route:
    async def show(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return Route("/metrics", show)


def _response(body: Mapping[str, object], *, serving: bool) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=200 if serving else 503,
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )
