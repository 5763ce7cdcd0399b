"""Keeps aiokafka's log lines few: while a broker is down it writes about thirty a second."""

import logging
import time

_SECONDS = 10.0


class Thinned(logging.Handler):
    """Passes on one record of each logger and level every ten seconds, and says how many it kept back."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, int], float] = {}
        self._kept_back: dict[tuple[str, int], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Hands the record to the root logger, or counts it."""
        key = (record.name, record.levelno)
        now = time.monotonic()
        if now - self._last.get(key, -_SECONDS) < _SECONDS:
            self._kept_back[key] = self._kept_back.get(key, 0) + 1
            return
        self._last[key] = now
        if count := self._kept_back.pop(key, 0):
            record.msg, record.args = f"{record.getMessage()} [{count} more were not shown]", None
        logging.getLogger().handle(record)


def thin_out_logs() -> None:
    """Puts that handler on aiokafka's logger, once a process."""
    logger = logging.getLogger("aiokafka")
    if any(isinstance(handler, Thinned) for handler in logger.handlers):
        return
    logger.addHandler(Thinned())
    logger.propagate = False
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.WARNING)
