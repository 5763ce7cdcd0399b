"""Counts and times every request by the route that handled it."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xzepr.infra.telemetry.metrics import Metrics


class MeasureRequests:
    """Middleware that reports each request to the metrics. Outermost, so that rejected requests count, too."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one ASGI request."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.perf_counter(), 500

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note_status)
        finally:
            # Without a route, a middleware rejected the request or no route matches. Clients invent paths, so a path is
            # never a label.
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request_answered(scope["method"], route, status, time.perf_counter() - started)
