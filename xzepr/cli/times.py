"""Times and durations as people write them: `5m`, `yesterday`, a date, or RFC 3339."""

import re
from datetime import date, datetime, time, timedelta

import typer

from xzepr.core.clock import now

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_LONGEST_SECONDS = 100 * 366 * 86_400


def parse_duration(text: str) -> float:
    """Returns a duration in seconds: `30` or `30s`, `5m`, `2h`, `7d`, `2w`. Raises typer.BadParameter.

    The longest duration is 100 years.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else None
    if seconds is None or seconds > _LONGEST_SECONDS:
        raise typer.BadParameter(f"{text!r} is not a duration: write it as 90, 90s, 5m, 2h or 7d")
    return seconds


def parse_past(text: str) -> str:
    """Returns a time as RFC 3339. A duration, as in `5m` or `5m ago`, counts back from now. Raises typer.BadParameter.

    A day (`yesterday`, `2026-11-30`) is its midnight in the local time zone. A time with `T` is left to the hub.
    """
    return _parse(text, -1)


def parse_future(text: str) -> str:
    """Returns a time as RFC 3339, as `parse_past` does, but a duration counts forward. Raises typer.BadParameter."""
    return _parse(text, 1)


def _parse(text: str, direction: int) -> str:
    word = text.strip().lower()
    if word == "now":
        return _format(now())
    if word in _DAYS:
        return _midnight(now().astimezone().date() + timedelta(days=_DAYS[word]))
    if _DATE.fullmatch(word):
        try:
            return _midnight(date.fromisoformat(word))
        except (ValueError, OverflowError):
            raise _no_time(text) from None
    if re.match(r"\d{4}-\d{2}-\d{2}[Tt ]", text.strip(), re.ASCII):
        return text.strip()  # the hub reads it, and names what is wrong with it
    duration = word.removesuffix("ago").strip() if direction < 0 else word
    match = _DURATION.fullmatch(duration)
    if match is None or not match[2]:
        raise _no_time(text)
    return _format(now() + timedelta(seconds=direction * parse_duration(duration)))


def _midnight(day: date) -> str:
    return _format(datetime.combine(day, time()).astimezone())


def _format(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def _no_time(text: str) -> typer.BadParameter:
    return typer.BadParameter(
        f"{text!r} is not a time: write it as 2026-11-20T21:15:27Z, as a date (2026-11-20), as today or yesterday, "
        "or as a duration from now (5m, 2h, 7d)"
    )
