"""Logging with structlog, for the hub and its libraries: JSON lines, or readable text on a terminal."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import Processor

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request. Tasks that it starts have it, too."""

# These repeat the same message while a server is unreachable.
REPETITIVE_LOGGERS = ("psycopg.pool",)
# These write different messages while a server is unreachable: aiokafka about 33 per second.
CHATTY_LOGGERS = ("aiokafka",)
REPEAT_INTERVAL_SECONDS = 10.0
_MAX_KEYS = 256  # messages for which the filter keeps a time and a count


def configure(level: str, json: bool | None, stream: TextIO | None = None) -> None:
    """Writes all log messages of at least `level` to `stream` (by default standard error).

    They are JSON lines if `json` is true, or if it is None and the stream is not a terminal. The id of the request and
    values bound with `structlog.contextvars` (such as the trace id) are part of all messages of a request. A later call
    replaces the configuration of an earlier one.
    """
    target = stream or sys.stderr
    as_json = not target.isatty() if json is None else json
    handler = _Handler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(as_json, target)],
            foreign_pre_chain=[*_shared(), _note_repeats],
        )
    )
    handler.addFilter(RepeatFilter(REPETITIVE_LOGGERS, CHATTY_LOGGERS, REPEAT_INTERVAL_SECONDS))
    root = logging.getLogger()
    for earlier in [other for other in root.handlers if isinstance(other, _Handler)]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(level.upper())
    _configure_libraries(level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


class _Handler(logging.StreamHandler[TextIO]):
    """The hub's handler, distinguishable from other handlers of the root logger."""


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        _add_request_id,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _add_request_id(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Adds the id of the request. Requests set one variable, and only those that log pay for the rest."""
    if (request_id := REQUEST_ID.get()) is not None:
        event.setdefault("request_id", request_id)
    return event


def _renderers(as_json: bool, stream: TextIO) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]


def _dumps(event: dict[str, Any], default: Callable[[Any], Any], **_: Any) -> str:
    try:
        return orjson.dumps(event, default, orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A lone surrogate or an integer beyond 64 bits. An escaped message is better than none.
        return orjson.dumps({str(key): ascii(value) for key, value in event.items()}).decode()


def _configure_libraries(level: str) -> None:
    """Sends messages of libraries to the root logger; those below warnings only if the level is debug.

    uvicorn's messages below warnings are never shown: they contain addresses with their queries, and all headers.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    library_level = (
        logging.NOTSET if level == "debug" else max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    )
    for name in ("aiokafka", "alembic", "httpx2", "httpcore2", "opentelemetry"):
        logging.getLogger(name).setLevel(library_level)


def _note_repeats(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    repeats = getattr(event["_record"], "repeats", 0)
    if repeats:
        event["not_shown_before"] = repeats
    return event


class RepeatFilter(logging.Filter):
    """Passes repeated messages only once in `seconds`; the next one has the number of those suppressed.

    Under the loggers of `repetitive`, equal messages count as repeated; under `chatty`, all messages of one logger and
    level do.
    """

    def __init__(
        self,
        repetitive: Sequence[str],
        chatty: Sequence[str],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._repetitive = repetitive
        self._chatty = chatty
        self._seconds = seconds
        self._clock = clock
        # The time of the last passed message, and the number of messages suppressed since.
        self._passed: dict[tuple[str, str | int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether to write the message. Sets `record.repeats` to the number of suppressed ones before it."""
        if _under(self._chatty, record.name):
            key: tuple[str, str | int] = (record.name, record.levelno)
        elif _under(self._repetitive, record.name):
            key = (record.name, record.getMessage())
        else:
            return True
        now = self._clock()
        passed_at, suppressed = self._passed.get(key, (-self._seconds, 0))
        if now - passed_at < self._seconds:
            self._passed[key] = (passed_at, suppressed + 1)
            return False
        self._passed.pop(key, None)
        while len(self._passed) >= _MAX_KEYS:
            del self._passed[next(iter(self._passed))]
        self._passed[key] = (now, 0)
        record.repeats = suppressed
        return True


def _under(names: Sequence[str], logger: str) -> bool:
    return any(logger == name or logger.startswith(f"{name}.") for name in names)
