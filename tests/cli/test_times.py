"""Times and durations as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from xzepr.cli import times


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("0.2", 0.2), ("90s", 90), ("5m", 300), ("2 h", 7200), ("1d", 86400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert times.parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "5 minutes", "m", "1e9", "99999999w", "٣s"])
def test_other_durations_are_rejected(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        times.parse_duration(text)


def test_times_are_relative_to_now(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
    monkeypatch.setattr(times, "now", lambda: moment)
    for text in ("5m", "5m ago", "5mago"):
        assert datetime.fromisoformat(times.parse_past(text)) == moment - timedelta(minutes=5)
    assert datetime.fromisoformat(times.parse_future("90d")) == moment + timedelta(days=90)
    assert datetime.fromisoformat(times.parse_past("now")) == moment
    midnight = moment.astimezone().replace(hour=0, minute=0)
    assert datetime.fromisoformat(times.parse_past("Yesterday")) == midnight - timedelta(days=1)
    assert datetime.fromisoformat(times.parse_past("2026-11-30")) == midnight


def test_time_of_rfc_3339_is_left_to_the_hub() -> None:
    assert times.parse_past(" 2026-11-20T21:15:27Z ") == "2026-11-20T21:15:27Z"


@pytest.mark.parametrize("text", ["", "90", "yesteryear", "2026-02-30", "-5m", "5m later"])
def test_other_times_are_rejected(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time"):
        times.parse_past(text)
