"""How the hub is, for orchestrators and people: `/health`, `/health/live`, `/health/ready`, `/metrics`."""

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
    """How something is. Degraded: it serves, and something beside it does not."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


DRAINING = "draining"
"""The status of a process that stops, whatever its parts are like: it is to be sent nothing more."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is asked when somebody asks how the hub is."""

    database: Callable[[], Awaitable[object]]
    """Returns when the database answers; raises, or takes longer than the time-out, when it does not."""
    kafka: Callable[[], State | None]
    """What the relay last saw of its brokers; None where no broker is named. Never waits."""
    drain: Drain
    has_room: Callable[[], bool] = lambda: True
    """Whether the disk under the database takes what is written. Never waits."""
    timeout_seconds: float = 2.0

    async def components(self) -> dict[str, State]:
        """How each part is."""
        states = {"database": await self._database()}
        if not self.has_room():
            states["storage"] = State.DEGRADED
        kafka = self.kafka()
        return states if kafka is None else states | {"kafka": kafka}

    async def _database(self) -> State:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self.database()
        except Exception:
            # Whatever it was, whoever uses the database logs it; here only its being away counts.
            return State.UNHEALTHY
        return State.HEALTHY


def overall(components: dict[str, State]) -> State:
    """Without its database the hub can do nothing; without anything else it serves on."""
    if components["database"] is not State.HEALTHY:
        return State.UNHEALTHY
    return State.HEALTHY if set(components.values()) == {State.HEALTHY} else State.DEGRADED


def health_routes(health: Health, metrics: Metrics | None) -> list[Route]:
    """The routes, without `/metrics` when `metrics` is None."""

    async def show(_: Request) -> Response:
        if health.drain.begun:
            return _answer({"status": DRAINING, "service": "xzepr", "version": xzepr.__version__}, serving=False)
        components = await health.components()
        state = overall(components)
        body = {"status": state, "service": "xzepr", "version": xzepr.__version__, "components": components}
        return _answer(body, serving=state is not State.UNHEALTHY)

    async def live(_: Request) -> Response:
        return _answer({"status": "alive"}, serving=True)

    async def ready(_: Request) -> Response:
        if health.drain.begun:
            return _answer({"status": DRAINING}, serving=False)
        components = await health.components()
        serving = overall(components) is not State.UNHEALTHY
        return _answer({"status": "ready" if serving else "not ready", "components": components}, serving=serving)

    routes = [Route("/health", show), Route("/health/live", live), Route("/health/ready", ready)]
    return routes if metrics is None else [*routes, _metrics_route(metrics)]


def _metrics_route(metrics: Metrics) -> Route:
    async def show(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    return Route("/metrics", show)


def _answer(body: Mapping[str, object], *, serving: bool) -> Response:
    return Response(
        orjson.dumps(body),
        status_code=200 if serving else 503,
        headers={"cache-control": "no-store"},
        media_type="application/json",
    )
