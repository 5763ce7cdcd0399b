"""OpenTelemetry traces of requests, installed only if enabled: they cost 160 µs and three spans per request."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette

from xzepr.core.errors import CannotStart

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import SpanProcessor
    from opentelemetry.trace import Span

_TICKET = re.compile(r"ticket=[^&\s]*")
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
    if b"ticket=" in scope.get("query_string", b""):
        _hide_tickets(span)
    # Each request runs in a separate task with its own context, so the variable need not be unbound.
    structlog.contextvars.bind_contextvars(trace_id=format(span.get_span_context().trace_id, "032x"))


def _hide_tickets(span: "Span") -> None:
    """Masks stream tickets in the attributes of a span: they are the only credential in URLs, which are attributes."""
    attributes: Mapping[str, Any] = getattr(span, "attributes", None) or {}
    for name, value in list(attributes.items()):
        if isinstance(value, str) and "ticket=" in value:
            span.set_attribute(name, _TICKET.sub("ticket=***", value))
