"""Tracing instruments the application, names a missing package and exports spans to a collector."""

import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from xzepr.api.shell import Concerns, Shell, length_check
from xzepr.infra.telemetry.traces import instrument
from xzepr.server.http_server import traced
from xzepr.settings import Settings


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


def test_spans_have_no_query_string() -> None:
    app, spans = _app(), InMemorySpanExporter()
    end = instrument(app, service_name="hub", version="1", otlp_endpoint="", processor=SimpleSpanProcessor(spans))
    TestClient(app).get("/events/1?ticket=xzepr_ticket_secret&query=x")
    end()
    exported = "".join(span.to_json() for span in spans.get_finished_spans())
    assert "/events/1" in exported
    assert "query=x" not in exported
    assert "secret" not in exported


def test_no_trace_id_is_bound_without_tracing() -> None:
    assert TestClient(_app()).get("/events/1").json() == {}


@contextmanager
def collector(received: list[tuple[str, str | None, bytes]]) -> Generator[str]:
    """Runs a collector and yields its URL. `received` gets the path, media type and body of each export."""

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append((self.path, self.headers["Content-Type"], body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_spans_are_exported_as_otlp_over_http() -> None:
    received: list[tuple[str, str | None, bytes]] = []
    with collector(received) as url:
        app = _app()
        end = instrument(app, service_name="hub", version="1", otlp_endpoint=url)
        TestClient(app).get("/events/1")
        end()
    assert [export[:2] for export in received] == [("/v1/traces", "application/x-protobuf")]


def test_all_requests_of_a_shell_are_traced() -> None:
    received: list[tuple[str, str | None, bytes]] = []
    concerns = Concerns(checks=[length_check(10)])
    direct = {"/graphql": PlainTextResponse("direct")}
    app = Starlette(routes=[*_app().routes, Route("/graphql", _context)])
    shell = Shell(app, concerns, max_bytes=10, timeout_seconds=10, http=direct)
    with collector(received) as url:
        settings = Settings.model_validate({"telemetry": {"tracing_enabled": True, "otlp_endpoint": url}})
        traced_app, end = traced(shell, settings)
        client = TestClient(traced_app)
        assert client.get("/graphql").text == "direct"
        assert set(client.get("/events/1").json()) == {"trace_id"}
        assert client.post("/events/1", content=b"x" * 11).status_code == 413
        end()
    exported = b"".join(body for _, _, body in received)
    for span in (b"GET /graphql", b"GET /events/{id}", b"POST /events/{id}"):
        assert span in exported


def test_shell_is_served_as_it_is_without_tracing() -> None:
    shell = Shell(_app(), Concerns(), max_bytes=10, timeout_seconds=10)
    assert traced(shell, Settings())[0] is shell


def test_missing_tracing_extra_is_named() -> None:
    # A separate process can hide the libraries without affecting this one.
    program = """
import sys
from starlette.applications import Starlette
from xzepr.core.errors import CannotStart
from xzepr.api.shell import Concerns, Shell, length_check
from xzepr.infra.telemetry.traces import instrument
from xzepr.server.http_server import traced
from xzepr.settings import Settings
assert not any(name.startswith("opentelemetry") for name in sys.modules), "imported although tracing is off"
sys.modules["opentelemetry"] = None
try:
    instrument(Starlette(), service_name="hub", version="1", otlp_endpoint="http://localhost:4318")
except CannotStart as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "pip install 'xzepr[tracing]'" in result.stdout
