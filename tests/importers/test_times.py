from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError
from sessionstore.importers.times import find_time, format_time, parse_time, time_order


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2025, 1, 31, 12, tzinfo=UTC), "2025-01-31T12:00:00Z"),
        (datetime(2025, 1, 31, 12, 0, 0, 120_000, tzinfo=UTC), "2025-01-31T12:00:00.120Z"),
        (datetime(2025, 1, 31, 12, 0, 0, 1, tzinfo=UTC), "2025-01-31T12:00:00.000001Z"),
        (datetime(2025, 1, 31, 12, tzinfo=timezone(timedelta(hours=2))), "2025-01-31T10:00:00Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
    ],
)
def test_the_shortest_exact_text(moment: datetime, text: str) -> None:
    assert format_time(moment) == text
    assert parse_time(text, "t") == moment


@given(st.datetimes(timezones=st.just(UTC)))
def test_there_and_back(moment: datetime) -> None:
    assert parse_time(format_time(moment), "t") == moment


def test_below_a_microsecond_is_cut_off() -> None:
    assert format_time(parse_time("2025-01-31T12:00:00.123456999Z", "t")) == "2025-01-31T12:00:00.123456Z"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("yesterday", "t is no time like 2025-01-31T12:00:00Z"),
        ("2025-01-31T12:00:00", "t must have a time zone"),
        ("2025-13-31T12:00:00Z", "t is no time like 2025-01-31T12:00:00Z"),
        (1738324800, "t must be text like 2025-01-31T12:00:00Z, not int"),
        ("0001-01-01T00:00:00+01:00", "t must be within the years 1 to 9999 in UTC"),
    ],
)
def test_what_is_no_time(value: object, reason: str) -> None:
    with pytest.raises(InvalidArgumentError, match=f"^{reason}$"):
        parse_time(value, "t")


def test_a_missing_time() -> None:
    assert find_time(None, "t") is None


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2025-01-31T12:00:00.123456788Z", "2025-01-31T12:00:00.123456789Z"),
        ("2025-01-31T12:00:00.123456Z", "2025-01-31T12:00:00.123456001Z"),
        ("2025-01-31T12:00:00.999999999Z", "2025-01-31T12:00:01Z"),
        ("2025-01-31T13:00:00+02:00", "2025-01-31T12:00:00Z"),
    ],
)
def test_order_below_a_microsecond(earlier: str, later: str) -> None:
    first, second = (time_order(text, parse_time(text, "t")) for text in (earlier, later))
    assert first < second


def test_equal_below_a_microsecond() -> None:
    texts = ("2025-01-31T12:00:00.1234567Z", "2025-01-31T12:00:00.123456700Z")
    first, second = (time_order(text, parse_time(text, "t")) for text in texts)
    assert first == second
