"""Tracing instruments the application, names a missing package and exports spans to a collector."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xzepr.infra.telemetry.traces import instrument


async def _context(_: Request) -> JSONResponse:
    return JSONResponse(structlog.contextvars.get_contextvars())


def _app() -> Starlette:
    return Starlette(routes=[Route("/events/{id}", _context)])


def test_traced_request_logs_its_trace_id() -> None:
    app, spans = _app(), InMemorySpanExporter()
    end = instrument(app, service_name="hub", version="1", otlp_endpoint="", processor=SimpleSpanProcessor(spans))
    bound = TestClient(app).get("/events/1").json()
    end()
    server = next(span for span in spans.get_finished_spans() if span.name == "GET /events/{id}")
    assert server.context is not None
    assert bound == {"trace_id": format(server.context.trace_id, "032x")}
    assert server.resource.attributes["service.name"] == "hub"


def test_ticket_in_url_is_masked_in_spans() -> None:
    app, spans = _app(), InMemorySpanExporter()
    end = instrument(app, service_name="hub", version="1", otlp_endpoint="", processor=SimpleSpanProcessor(spans))
    TestClient(app).get("/events/1?ticket=xzepr_ticket_secret&query=x")
    end()
    exported = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "/events/1?ticket=***&query=x" in exported
    assert "secret" not in exported


def test_no_trace_id_is_bound_without_tracing() -> None:
    assert TestClient(_app()).get("/events/1").json() == {}


def test_spans_are_exported_as_otlp_over_http() -> None:
    received: list[tuple[str, str | None]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Content-Type"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        app = _app()
        end = instrument(app, service_name="hub", version="1", otlp_endpoint=f"http://127.0.0.1:{server.server_port}")
        TestClient(app).get("/events/1")
        end()
        server.shutdown()
    assert received == [("/v1/traces", "application/x-protobuf")]


def test_missing_tracing_extra_is_named() -> None:
    # A separate process can hide the libraries without affecting this one.
    program = """
import sys
from starlette.applications import Starlette
from xzepr.core.errors import CannotStart
from xzepr.infra.telemetry.traces import instrument
assert not any(name.startswith("opentelemetry") for name in sys.modules), "imported although tracing is off"
sys.modules["opentelemetry"] = None
try:
    instrument(Starlette(), service_name="hub", version="1", otlp_endpoint="http://localhost:4318")
except CannotStart as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'xzepr[tracing]'" in result.stdout
