"""Counts and times every request, by the route that answered it."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xzepr.infra.telemetry.metrics import Metrics


class MeasureRequests:
    """Tells the metrics of each request once it is answered; goes outside whatever may refuse one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, status = time.perf_counter(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            # Without a route it was refused on the way or asked for nothing of ours; what clients make up is no label.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request_answered(scope["method"], route, status, time.perf_counter() - begun)
