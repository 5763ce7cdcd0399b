"""The content of log lines, and the suppression of repeated ones."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from xzepr.infra.telemetry.logs import RepeatFilter, configure


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The stream for log lines. The previous logging configuration is restored afterwards."""
    root = logging.getLogger()
    level, handlers, config = root.level, list(root.handlers), structlog.get_config()
    yield io.StringIO()
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.configure(**config)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    """Returns the JSON lines written to the stream."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_log_lines_are_json_without_terminal(stream: io.StringIO) -> None:
    configure("info", None, stream)
    structlog.stdlib.get_logger("xzepr.test").info("started", port=8042)
    (line,) = lines(stream)
    assert line["event"] == "started"
    assert line["port"] == 8042
    assert line["level"] == "info"
    assert line["logger"] == "xzepr.test"
    assert str(line["timestamp"]).endswith("Z")


@pytest.mark.usefixtures("stream")
def test_terminal_lines_are_text_unless_json_is_set() -> None:
    for json_setting, is_json in ((None, False), (False, False), (True, True)):
        terminal = Terminal()
        configure("info", json_setting, terminal)
        structlog.stdlib.get_logger("xzepr.test").info("started")
        assert terminal.getvalue().startswith("{") is is_json


def test_library_log_lines_carry_request_id(stream: io.StringIO) -> None:
    configure("info", True, stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.stdlib.get_logger("xzepr.test").info("hub line")
        logging.getLogger("uvicorn.error").warning("library line %d", 7)
    structlog.stdlib.get_logger("xzepr.test").info("outside")
    hub_line, library_line, outside = lines(stream)
    assert (hub_line["request_id"], library_line["request_id"]) == ("r1", "r1")
    assert library_line["event"] == "library line 7"
    assert "request_id" not in outside


def test_lines_below_log_level_are_dropped(stream: io.StringIO) -> None:
    configure("warning", True, stream)
    structlog.stdlib.get_logger("xzepr.test").info("too detailed")
    logging.getLogger("uvicorn.error").info("too detailed")
    assert stream.getvalue() == ""


def test_configuring_twice_does_not_duplicate_lines(stream: io.StringIO) -> None:
    configure("info", True, stream)
    configure("info", True, stream)
    structlog.stdlib.get_logger("xzepr.test").info("once")
    assert len(lines(stream)) == 1


def test_exception_is_logged_with_traceback(stream: io.StringIO) -> None:
    configure("info", True, stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.stdlib.get_logger("xzepr.test").exception("failed")
    assert "ValueError: broken" in str(lines(stream)[0]["exception"])


def test_unencodable_values_do_not_lose_the_line(stream: io.StringIO) -> None:
    configure("info", True, stream)
    structlog.stdlib.get_logger("xzepr.test").info("odd", text="\ud800", number=2**70, thing=object())
    assert "odd" in str(lines(stream)[0]["event"])


def test_repeated_library_message_is_logged_once(stream: io.StringIO) -> None:
    configure("info", True, stream)
    for _ in range(330):
        logging.getLogger("psycopg.pool").error('Unable connect to "%s:%s": %s', "127.0.0.1", 9092, "refused")
        logging.getLogger("xzepr.test").error("hub lines are never suppressed")
    logging.getLogger("psycopg.pool").error('Unable connect to "%s:%s": %s', "127.0.0.1", 9093, "refused")
    pool_errors = [line["event"] for line in lines(stream) if line["logger"] == "psycopg.pool"]
    assert pool_errors == [f'Unable connect to "127.0.0.1:{port}": refused' for port in (9092, 9093)]
    assert len(lines(stream)) == 332


def test_kafka_client_log_lines_are_rate_limited(stream: io.StringIO) -> None:
    configure("info", True, stream)
    for number in range(100):
        logging.getLogger("aiokafka.conn").error("no broker %d", number)
    logging.getLogger("aiokafka.conn").warning("another level")
    logging.getLogger("aiokafka.client").error("another logger")
    assert [line["event"] for line in lines(stream)] == ["no broker 0", "another level", "another logger"]


def test_next_line_counts_suppressed_lines() -> None:
    now = 0.0
    repeats = RepeatFilter((), ("aiokafka",), 10.0, lambda: now)

    def log() -> logging.LogRecord | None:
        record = logging.LogRecord("aiokafka", logging.ERROR, "", 0, "no broker", None, None)
        return record if repeats.filter(record) else None

    assert log() is not None
    assert [log() for _ in range(5)] == [None] * 5
    now = 10.0
    record = log()
    assert record is not None
    assert record.__dict__["repeats"] == 5


def test_repeat_filter_memory_is_bounded() -> None:
    repeats = RepeatFilter(("psycopg",), (), 10.0)
    for number in range(5000):
        repeats.filter(logging.LogRecord("psycopg", logging.ERROR, "", 0, f"message {number}", None, None))
    assert len(vars(repeats)["_passed"]) <= 256
