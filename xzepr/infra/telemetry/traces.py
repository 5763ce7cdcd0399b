"""OpenTelemetry traces of requests, installed only if enabled: they cost 160 µs and three spans per request."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette

from xzepr.core.errors import CannotStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

_ADDRESSES = frozenset({"http.url", "http.target", "url.full", "url.original"})
_NOT_INSTALLED = (
    "tracing is enabled and its libraries are not installed: "
    "pip install 'xzepr[tracing]', or set telemetry.tracing_enabled to false"
)


def instrument(
    app: Starlette, *, service_name: str, version: str, otlp_endpoint: str, processor: "SpanProcessor | None" = None
) -> Callable[[], None]:
    """Sends traces of the requests of `app` to `otlp_endpoint` (OTLP over HTTP), or to `processor`.

    Log lines of a request get its `trace_id`. Call this before the application serves requests. Returns a function that
    sends the last spans and stops tracing; it blocks for at most the time-out of the exporter. Raises CannotStart if
    the extra `tracing` is not installed.
    """
    try:
        from opentelemetry.instrumentation.starlette import StarletteInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise CannotStart(_NOT_INSTALLED) from error
    provider = TracerProvider(
        resource=Resource.create({"service.name": service_name, "service.version": version}), shutdown_on_exit=False
    )
    provider.add_span_processor(processor or _otlp(otlp_endpoint))
    StarletteInstrumentor.instrument_app(app, server_request_hook=_bind_trace_id, tracer_provider=provider)
    return provider.shutdown


def _otlp(endpoint: str) -> "SpanProcessor":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise CannotStart(_NOT_INSTALLED) from error
    return BatchSpanProcessor(OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=5))


def _bind_trace_id(span: "Span", scope: dict[str, Any]) -> None:
    if scope.get("query_string"):
        _remove_query(span)
    # Each request runs in a separate task with its own context, so the variable need not be unbound.
    structlog.contextvars.bind_contextvars(trace_id=format(span.get_span_context().trace_id, "032x"))


def _remove_query(span: "Span") -> None:
    """Removes query strings from the attributes of a span: they hold stream tickets, variables and mistakes."""
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name, value in list(attributes.items()):
        if name == "url.query":
            span.set_attribute(name, "")
        elif isinstance(value, str) and "?" in value and name in _ADDRESSES:
            span.set_attribute(name, value.partition("?")[0])
