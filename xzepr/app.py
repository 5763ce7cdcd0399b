"""Builds the web application of a hub: its routes, and the concerns of every request."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from xzepr import __version__
from xzepr.api.console.playground import playground_routes
from xzepr.api.drain import Drain
from xzepr.api.errors import MethodNotAllowed, problem_response
from xzepr.api.graphql import schema
from xzepr.api.graphql.context import Context
from xzepr.api.graphql.errors import schema_field_name
from xzepr.api.graphql.stream import shared_key
from xzepr.api.graphql_server.documents import DocumentLimits, Documents
from xzepr.api.graphql_server.http import GraphQLOverHTTP
from xzepr.api.graphql_server.limits import ConnectionLimiter, ConnectionLimits, SocketLimits
from xzepr.api.graphql_server.operations import GraphQLService
from xzepr.api.graphql_server.plans.execution import core_schema
from xzepr.api.graphql_server.plans.rendered import RenderedObjects
from xzepr.api.graphql_server.sessions import Sessions
from xzepr.api.graphql_server.websocket import GraphQLOverWebSocket
from xzepr.api.health import Health, State, health_routes
from xzepr.api.hosts import AllowedHosts, AllowedOrigins, host_check
from xzepr.api.shell import Concerns, Shell, length_check, request_count
from xzepr.core.errors import NotFound, Problem
from xzepr.features.processes.service import Clients
from xzepr.features.relay.model import RelayState
from xzepr.hub import Core, Hub
from xzepr.settings import StreamSettings

_GRAPHQL = "/graphql"
_DEGRADED_LAG_SECONDS = 60.0  # Kafka counts as degraded if a message has been waiting for it longer


def create_app(hub: Hub, drain: Drain | None = None) -> Shell:
    """Returns the application of an open hub whose background loops run (see `server/loops.py`).

    The application opens nothing itself. Once `drain` begins, it starts no new work and sends its clients elsewhere.
    """
    drain = drain or Drain()
    over_http, over_websocket = _graphql(hub, drain)
    health = _health_routes(hub, drain, lambda: hub.recorder.has_disk_space)
    routes = [
        Route(_GRAPHQL, over_http),
        WebSocketRoute(_GRAPHQL, over_websocket),
        *playground_routes(),
        *health,
        Route("/", _service_info),
    ]
    return _shell(hub, routes, drain, http={_GRAPHQL: over_http}, websockets={_GRAPHQL: over_websocket})


def create_work_app(core: Core) -> Shell:
    """Returns the application of a process that only relays: health checks and metrics."""
    drain = Drain()
    return _shell(core, _health_routes(core, drain), drain)


def _shell(core: Core, routes: Sequence[BaseRoute], drain: Drain, **direct: Mapping[str, ASGIApp]) -> Shell:
    """Returns the routes inside the shell, with the concerns of every request."""
    server = core.settings.server
    hosts = AllowedHosts([server.host, *server.allowed_hosts], public_url=server.public_url)
    app = Starlette(routes=routes, exception_handlers={HTTPException: _http_error, Problem: _problem})
    # A redirect from `/graphql/` would name the scheme of this connection, which is plain HTTP behind a TLS proxy.
    app.router.redirect_slashes = False
    return Shell(
        app,
        Concerns(
            checks=[host_check(hosts), length_check(server.max_request_bytes)],
            decorate=[drain.close_connection],
            finished=[request_count(core.metrics)],
        ),
        max_bytes=server.max_request_bytes,
        timeout_seconds=server.request_timeout_seconds,
        **direct,
    )


def _graphql(hub: Hub, drain: Drain) -> tuple[GraphQLOverHTTP, GraphQLOverWebSocket]:
    stream = hub.settings.stream
    service, sessions = _graphql_service(hub, drain), Sessions(hub.auth.authenticate, hub.auth)
    limiter = ConnectionLimiter(_connection_limits(stream), hub.metrics)
    hub.process.clients = lambda: Clients(*limiter.counts())
    over_http = GraphQLOverHTTP(
        service=service,
        sessions=sessions,
        limiter=limiter,
        max_bytes=hub.settings.server.max_request_bytes,
        heartbeat_seconds=stream.ping_seconds,
        stalled_seconds=stream.stalled_seconds,
    )
    over_websocket = GraphQLOverWebSocket(
        service=service,
        origins=AllowedOrigins(hub.settings.security.cors.allowed_origins),
        sessions=sessions,
        limiter=limiter,
        limits=_socket_limits(stream),
    )
    return over_http, over_websocket


def _graphql_service(hub: Hub, drain: Drain) -> GraphQLService:
    limits = hub.settings.graphql
    graphql_schema = core_schema(schema.build())
    documents = Documents(
        graphql_schema,
        DocumentLimits(limits.max_document_chars, limits.max_tokens, limits.max_depth, limits.max_aliases),
        limits.document_cache_size,
    )
    return GraphQLService(
        schema=graphql_schema,
        documents=documents,
        authenticate=hub.auth.authenticate,
        new_context=partial(Context.new, hub),
        public_mutations=schema.PUBLIC_MUTATIONS,
        durable_mutations=schema.DURABLE_MUTATIONS,
        field_name=schema_field_name,
        shared_key=shared_key,
        observe=hub.metrics.operation_executed,
        fell_back=hub.metrics.operation_fell_back,
        rendered=RenderedObjects(schema.IMMUTABLE_TYPES),
        drain=drain,
        request_in_flight=hub.scheduler.request_in_flight,
    )


def _socket_limits(stream: StreamSettings) -> SocketLimits:
    return SocketLimits(
        init_timeout_seconds=stream.connection_init_timeout_seconds,
        ping_seconds=stream.ping_seconds,
        stalled_seconds=stream.stalled_seconds,
        max_frame_bytes=stream.max_frame_bytes,
        max_operations=stream.max_operations,
    )


def _connection_limits(stream: StreamSettings) -> ConnectionLimits:
    return ConnectionLimits(
        max_connections=stream.max_connections,
        max_subscriptions=stream.max_subscriptions,
        max_subscriptions_per_actor=stream.max_subscriptions_per_actor,
        max_connections_per_actor=stream.max_connections_per_actor,
    )


def _health_routes(core: Core, drain: Drain, has_disk_space: Callable[[], bool] = lambda: True) -> Sequence[BaseRoute]:
    def kafka() -> State | None:
        if not core.settings.kafka.brokers:
            return None
        lag = core.process.lags.relay
        lagging = lag is not None and lag.lag_seconds > _DEGRADED_LAG_SECONDS
        healthy = core.relay.status.state in (RelayState.FOLLOWING, RelayState.STANDBY) and not lagging
        return State.HEALTHY if healthy else State.DEGRADED

    metrics = core.metrics if core.settings.telemetry.metrics_enabled else None
    return health_routes(Health(core.stream.head, kafka, drain, has_disk_space), metrics)


async def _http_error(request: Request, error: Exception) -> Response:
    """Returns 404 and 405 in the same JSON shape as every other problem."""
    allow = (error.headers or {}).get("Allow") if isinstance(error, HTTPException) else None
    if allow is not None:
        return problem_response(MethodNotAllowed(f"{request.method} is not allowed here", allow=allow))
    return problem_response(NotFound("page", request.url.path))


async def _problem(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, Problem), "Starlette calls this for problems"
    return problem_response(problem)


async def _service_info(_: Request) -> Response:
    return JSONResponse(
        {
            "service": "xzepr",
            "version": __version__,
            "graphql": _GRAPHQL,
            "playground": "/graphql/playground",
            "health": "/health",
            "metrics": "/metrics",
        }
    )
