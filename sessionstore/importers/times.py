"""Times as text: ISO 8601 with a time zone in, the shortest exact UTC out."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from sessionstore.checks import check_instant
from sessionstore.errors import InvalidArgumentError

_BELOW_MICROSECOND: Final = re.compile(r"[.,]\d{6}(\d+)")


def parse_time(value: object, what: str) -> datetime:
    """Read a time; what is below a microsecond is cut off.

    Raises:
        InvalidArgumentError: it is no text of a time, or has no time zone.
    """
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{what} must be text like 2025-01-31T12:00:00Z, not {type(value).__name__}")
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InvalidArgumentError(f"{what} is no time like 2025-01-31T12:00:00Z") from None
    check_instant(moment, what)
    return moment


def find_time(value: object, what: str) -> datetime | None:
    """Read a time that may be missing."""
    return None if value is None else parse_time(value, what)


def time_order(text: str, moment: datetime) -> tuple[datetime, str]:
    """Return what orders texts of times also where they differ below a microsecond."""
    below = _BELOW_MICROSECOND.search(text)
    return moment, below[1].rstrip("0") if below else ""


def format_time(moment: datetime) -> str:
    """Write a time in UTC, with no, three or six digits of a second, whichever is exact."""
    naive = moment.astimezone(UTC).replace(tzinfo=None)
    spec = "microseconds" if naive.microsecond % 1000 else "milliseconds" if naive.microsecond else "seconds"
    return naive.isoformat(timespec=spec) + "Z"
