"""Times are read and written in RFC 3339 only, as `format: date-time` of JSON Schema reads them."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import jsonschema_rs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xzepr.core.clock import json_time, read_time, write_time

READ = {
    "2026-11-20T21:15:27Z": "2026-11-20T21:15:27.000000Z",
    "2026-11-20T21:15:27z": "2026-11-20T21:15:27.000000Z",
    "2026-11-20t21:15:27Z": "2026-11-20T21:15:27.000000Z",
    "2026-11-20T21:15:27.1Z": "2026-11-20T21:15:27.100000Z",
    "2026-11-20T21:15:27.1234567891Z": "2026-11-20T21:15:27.123456Z",
    "2026-11-20T21:15:27+01:00": "2026-11-20T20:15:27.000000Z",
    "2026-11-20T21:15:27-23:59": "2026-11-21T21:14:27.000000Z",
    "2026-11-20T21:15:27-00:00": "2026-11-20T21:15:27.000000Z",
    "2016-12-31T23:59:60Z": "2016-12-31T23:59:59.999999Z",
    "2016-12-31T23:59:60.5z": "2016-12-31T23:59:59.999999Z",
    "2016-12-31T15:59:60-08:00": "2016-12-31T23:59:59.999999Z",
    "2017-01-01T00:59:60.25+01:00": "2016-12-31T23:59:59.999999Z",
}
REFUSED = [
    "",
    "20261120T211527Z",
    "2026-W47-5T21:15:27Z",
    "2026-11-20X21:15:27Z",
    "2026-11-20 21:15:27Z",
    "2026-11-20T21Z",
    "2026-11-20T21:15Z",
    "2026-11-20T21:15:27,5Z",
    "2026-11-20T21:15:27.Z",
    "2026-11-20T21:15:27+01",
    "2026-11-20T21:15:27+0100",
    "2026-11-20T21:15:27+01:00:30",
    "2026-11-20T21:15:27+24:00",
    "2026-11-20T21:15:27+01:60",
    "2026-11-20T24:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-11-20T12:00:60Z",
    "2026-11-20T23:59:60+01:00",
    "2026-11-20T21:15:61Z",
    "2026-11-20T21:15:27Z\n",
    "\uff12026-11-20T21:15:27Z",
    "2026-11-20T21:15:27Zz",
]
OUTSIDE = ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"]
FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001 hypothesis adds no zone to them
DATE_TIME = jsonschema_rs.validator_for({"format": "date-time"}, validate_formats=True)


def test_times_are_read() -> None:
    assert {text: write_time(read_time(text)) for text in READ} == READ
    assert all(read_time(text).tzinfo is UTC for text in READ)


@pytest.mark.parametrize("text", REFUSED)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a time: write it as 2026-11-20T21:15:27Z \(RFC 3339\)"):
        read_time(text)


def test_time_without_zone_is_refused_as_such() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        read_time("2026-11-20T21:15:27.5")


@pytest.mark.parametrize("text", OUTSIDE)
def test_time_outside_the_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is outside the years 1 to 9999 in UTC"):
        read_time(text)


def test_format_date_time_reads_the_same_texts() -> None:
    assert [text for text in READ if not DATE_TIME.is_valid(text)] == []
    assert [text for text in REFUSED if DATE_TIME.is_valid(text)] == []


@given(st.datetimes(min_value=FIRST, max_value=LAST), st.integers(-1439, 1439))
def test_written_time_is_read_back(naive: datetime, minutes: int) -> None:
    time = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    assert read_time(write_time(time)) == time == read_time(time.isoformat())


def test_texts_have_the_order_of_their_times() -> None:
    start = datetime(2026, 11, 20, tzinfo=UTC)
    times = [start + timedelta(microseconds=number) for number in (0, 1, 100_000, 1_000_000, 1_000_001)]
    texts = [write_time(time) for time in times]
    assert texts == sorted(texts)
    assert {len(text) for text in texts} == {27}


def test_json_has_the_written_time() -> None:
    for microsecond in (0, 1, 170202):
        for zone in (UTC, ZoneInfo("UTC"), ZoneInfo("America/New_York")):
            time = datetime(2026, 11, 20, 21, 15, 27, microsecond, tzinfo=zone)
            text = orjson.dumps(json_time(time), option=orjson.OPT_UTC_Z)
            assert text == orjson.dumps(write_time(time))
