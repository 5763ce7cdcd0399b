"""Logs: structlog for our own lines and for those of libraries, as JSON or, on a terminal, for reading."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import Processor

REPETITIVE_LOGGERS = ("psycopg.pool",)
"""Libraries that say the same again and again while a server is away."""
CHATTY_LOGGERS = ("aiokafka",)
"""Those that then say it in ever other words: aiokafka about 33 times a second."""
REPEAT_INTERVAL_SECONDS = 10.0
_REMEMBERED = 256


def configure(level: str, json: bool | None, stream: TextIO | None = None) -> None:
    """Sends all log lines from `level` up to `stream` (standard error). JSON when told, or when it is no terminal.

    What was bound with `structlog.contextvars` (request id, trace id) is in every line of that request. Once a process;
    again replaces what was before.
    """
    to = stream or sys.stderr
    as_json = not to.isatty() if json is None else json
    handler = _Handler(to)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(as_json, to)],
            foreign_pre_chain=[*_shared(), _note_repeats],
        )
    )
    handler.addFilter(RepeatFilter(REPETITIVE_LOGGERS, CHATTY_LOGGERS, REPEAT_INTERVAL_SECONDS))
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    _tame_libraries(level)
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
    """Ours, to be told from those that others put on the root logger."""


def _shared() -> list[Processor]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]


def _renderers(as_json: bool, stream: TextIO) -> list[Processor]:
    if as_json:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_dumps)]
    return [structlog.dev.ConsoleRenderer(colors=stream.isatty())]


def _dumps(event: dict[str, Any], default: Callable[[Any], Any], **_: Any) -> str:
    try:
        return orjson.dumps(event, default, orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A lone surrogate or an integer beyond 64 bits; a line in other words is better than none.
        return orjson.dumps({str(key): ascii(value) for key, value in event.items()}).decode()


def _tame_libraries(level: str) -> None:
    """Libraries speak through the root logger, and below warnings only when everything is wanted."""
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    wanted = logging.NOTSET if level == "debug" else max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()])
    for name in ("aiokafka", "alembic", "httpx2", "httpcore2", "opentelemetry"):
        logging.getLogger(name).setLevel(wanted)


def _note_repeats(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    repeats = getattr(event["_record"], "repeats", 0)
    if repeats:
        event["not_shown_before"] = repeats
    return event


class RepeatFilter(logging.Filter):
    """Lets each message of the loggers under `repeating`, and of those under `talkative` one of each logger and level,
    through once in `seconds`; the next counts those held back."""

    def __init__(
        self,
        repeating: Sequence[str],
        talkative: Sequence[str],
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._repeating = repeating
        self._talkative = talkative
        self._seconds = seconds
        self._clock = clock
        self._seen: dict[tuple[str, str | int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; `record.repeats` is how many like it were not."""
        if _under(self._talkative, record.name):
            key: tuple[str, str | int] = (record.name, record.levelno)
        elif _under(self._repeating, record.name):
            key = (record.name, record.getMessage())
        else:
            return True
        now = self._clock()
        shown, held = self._seen.get(key, (-self._seconds, 0))
        if now - shown < self._seconds:
            self._seen[key] = (shown, held + 1)
            return False
        self._seen.pop(key, None)
        while len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (now, 0)
        record.repeats = held
        return True


def _under(names: Sequence[str], logger: str) -> bool:
    return any(logger == name or logger.startswith(f"{name}.") for name in names)
