"""Checks of arguments, made before any I/O. An error names the argument and the reason, never the value.

A subclass of str counts as its plain text; an enum member counts as nothing, also where it is a str.
"""

from __future__ import annotations

import math
import re
import uuid
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, NoReturn

import uuid_utils

from sessionstore import limits
from sessionstore.codec import InvalidValue
from sessionstore.errors import InvalidArgumentError
from sessionstore.kinds import STORE_KINDS

_USUAL_ID: Final = re.compile(rf"[!-~](?:[ -~]{{0,{limits.ID_CHARS - 2}}}[!-~])?")
"""What nearly every id looks like: printable ASCII. ID_CHARS of it are under ID_BYTES."""

_UNSAFE: Final = re.compile(
    "["
    r"\x00-\x1f\x7f-\x9f"  # control characters
    r"\ud800-\udfff"  # lone surrogates
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidi controls
    r"\u00ad\u034f\u17b4\u17b5\u180e\u200b-\u200d\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # zero-width characters
    r"\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"  # zero-width: shorthand, music, tags
    r"\u2028\u2029"  # line and paragraph separator: line breaks to many readers
    "]"
)
"""What no id may hold. Variation selectors are left out, although zero-width: half of all emoji need one.

Named one by one, not by category: categories change with the Unicode version, and an id must not stop being one.
"""

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FLOAT_END: Final = 2**32 * 1_000_000
"""Until here, in the year 2106, a float of seconds is within a quarter of a microsecond, and rounds to the right one.
Three times faster than adding to the epoch, and a listing makes two datetimes a row."""
_FIRST_INSTANT: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND
_LAST_INSTANT: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MICROSECOND


def mint_id() -> str:
    """Return a new id: a UUIDv7, so that ids sort by their time of creation."""
    return str(uuid_utils.uuid7())


def check_id(value: object, what: str = "session id") -> str:
    """Return an id as plain text.

    An id is opaque text of 1 to 255 characters and at most 512 UTF-8 bytes, without blanks at the ends and without
    characters that cannot be seen: control characters, lone surrogates, bidi controls, zero-width characters.

    Args:
        value: a str, or a UUID, which counts as its text.
        what: the argument, for the error.

    Raises:
        InvalidArgumentError: it is no id, or None.
    """
    if type(value) is str and _USUAL_ID.fullmatch(value):
        return value
    if isinstance(value, uuid.UUID | uuid_utils.UUID):
        return str(value)
    text = _plain_text(value, what)
    if not text:
        raise InvalidArgumentError(f"{what} must not be empty")
    if reason := _too_long(text):
        raise InvalidArgumentError(f"{what} {reason}")
    if unsafe := _UNSAFE.search(text):
        raise InvalidArgumentError(f"{what} must not hold the character {_code_point(unsafe[0])}")
    if text.isspace():
        raise InvalidArgumentError(f"{what} must not be blank")
    for end in (text[0], text[-1]):
        if end.isspace():
            raise InvalidArgumentError(f"{what} must not begin or end with the blank {_code_point(end)}")
    return text


def check_event_kind(value: object) -> str:
    """Check the kind of an event of the caller's own.

    Raises:
        InvalidArgumentError: it is no id, or a kind of the store's.
    """
    kind = check_id(value, "kind")
    if kind in STORE_KINDS:
        raise InvalidArgumentError(f"events of kind {kind!r} are the store's own")
    return kind


def check_tenant(value: object) -> str:
    """Return a tenant: an id, or "" where there is only one."""
    return _id_or_empty(value, "tenant")


def check_user_id(value: object) -> str:
    """Return a user id: an id, or "" for nobody's."""
    return _id_or_empty(value, "user id")


def check_document_category(value: object) -> str:
    """Return the category of a document: an id that may have parts, as in `memory/facts`.

    It is data, not a path; what would lead astray as one is refused all the same.
    """
    what = "document category"
    category = check_id(value, what)
    if "\\" in category:
        raise InvalidArgumentError(f"{what} must not hold a backslash")
    for part in category.split("/"):
        if not part:
            raise InvalidArgumentError(f"{what} must not begin or end with a slash, or hold two in a row")
        if part == "..":
            raise InvalidArgumentError(f"{what} must not have the part '..'")
    return category


def check_document_name(value: object) -> str:
    """Return the name of a document: an id without slashes and backslashes that is not `..`."""
    what = "document name"
    name = check_id(value, what)
    if "/" in name or "\\" in name:
        raise InvalidArgumentError(f"{what} must not hold a slash or backslash")
    if name == "..":
        raise InvalidArgumentError(f"{what} must not be '..'")
    return name


def check_role(value: object) -> str:
    """Return a role: any text that is not empty, of up to 255 characters and 512 UTF-8 bytes, as an id.

    Raises:
        InvalidValue: it is no role; roles are part of messages, whose errors have another class.
    """
    kind = type(value)
    if value is None:
        raise InvalidValue("$.role", "is required")
    if not issubclass(kind, str) or issubclass(kind, Enum):
        raise InvalidValue("$.role", f"must be a string, not {kind.__name__}")
    role = str.__str__(value)
    if not role:
        raise InvalidValue("$.role", "must not be empty")
    if reason := _too_long(role) or _unstorable(role):
        raise InvalidValue("$.role", reason)
    return role


def check_text(value: object, what: str, *, max_bytes: int) -> str:
    """Return the text of a column: anything but U+0000 and lone surrogates, which PostgreSQL's text cannot hold."""
    text = _plain_text(value, what)
    if reason := _too_large(text, max_bytes) or _unstorable(text):
        raise InvalidArgumentError(f"{what} {reason}")
    return text


def check_optional_text(value: object, what: str, *, max_bytes: int) -> str | None:
    """Return the text of a column, as `check_text`, or None."""
    return None if value is None else check_text(value, what, max_bytes=max_bytes)


def check_count(value: object, what: str, *, minimum: int = 0, maximum: int = limits.INT64_MAX) -> int:
    """Return a position or number of things. Nothing but an int will do: databases would round 1.5 and parse "7"."""
    if type(value) is not int:
        _refuse_type(value, what, "an integer")
    if value < minimum:
        raise InvalidArgumentError(f"{what} must be at least {minimum}")
    if value > maximum:
        raise InvalidArgumentError(f"{what} must be at most {maximum}")
    return value


def check_seconds(value: object, what: str) -> float:
    """Return a duration in seconds: a finite number, at least 0."""
    if isinstance(value, bool | Enum) or not isinstance(value, int | float):
        _refuse_type(value, what, "a number of seconds")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise InvalidArgumentError(f"{what} must be finite")
    if seconds < 0:
        raise InvalidArgumentError(f"{what} must not be negative")
    return seconds


def check_instant(value: object, what: str) -> int:
    """Return a moment as microseconds since 1970 in UTC; `to_datetime` turns it back.

    Raises:
        InvalidArgumentError: it is not a datetime, has no time zone, or leaves the years 1 to 9999 in UTC.
    """
    if not isinstance(value, datetime):
        _refuse_type(value, what, "a datetime")
    if value.utcoffset() is None:
        raise InvalidArgumentError(f"{what} must have a time zone")
    micros = (value - _EPOCH) // _MICROSECOND
    if not _FIRST_INSTANT <= micros <= _LAST_INSTANT:
        raise InvalidArgumentError(f"{what} must be within the years 1 to 9999 in UTC")
    return micros


def to_datetime(micros: int) -> datetime:
    """Return the UTC datetime of microseconds since 1970, exactly."""
    if 0 <= micros < _FLOAT_END:
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    return _EPOCH + timedelta(microseconds=micros)


def stored_instant(raw: int | datetime) -> datetime:
    """Return a moment as a driver gives it: microseconds, or a datetime of PostgreSQL's.

    asyncpg takes the very first and the very last datetime for PostgreSQL's infinities, which it gives back naive.
    """
    if not isinstance(raw, datetime):
        return to_datetime(raw)
    return raw if raw.tzinfo is not None else raw.replace(tzinfo=UTC)


def check_micros(value: object, what: str) -> int:
    """Return microseconds since 1970 that are a datetime."""
    return check_count(value, what, minimum=_FIRST_INSTANT, maximum=_LAST_INSTANT)


def check_metadata_key(value: object) -> str:
    """Return a metadata key as plain text: opaque like an id, but with any characters that both databases can store."""
    key = _plain_text(value, "metadata key")
    reason = _too_long(key) or _unstorable(key) if key.strip() else "must not be empty or blank"
    if reason is not None:
        raise InvalidArgumentError(f"metadata key {reason}")
    return key


def _id_or_empty(value: object, what: str) -> str:
    empty = isinstance(value, str) and not str.__len__(value) and not isinstance(value, Enum)
    return "" if empty else check_id(value, what)


def _plain_text(value: object, what: str) -> str:
    kind = type(value)
    if kind is str:
        return str(value)
    if not issubclass(kind, str) or issubclass(kind, Enum):
        _refuse_type(value, what, "a string")
    return str.__str__(value)


def _refuse_type(value: object, what: str, wanted: str) -> NoReturn:
    if value is None:
        raise InvalidArgumentError(f"{what} is required")
    raise InvalidArgumentError(f"{what} must be {wanted}, not {type(value).__name__}")


def _too_long(text: str) -> str | None:
    if len(text) > limits.ID_CHARS:
        return f"is too long: {len(text)} characters, the limit is {limits.ID_CHARS}"
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limits.ID_BYTES:
        return f"is too long: {size} bytes, the limit is {limits.ID_BYTES}"
    return None


def _too_large(text: str, max_bytes: int) -> str | None:
    # No text has fewer bytes than characters: a huge one is refused before it is encoded.
    if len(text) > max_bytes and not text.isascii():
        return f"has at least {len(text)} bytes, over the limit of {max_bytes}"
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return f"has {size} bytes, over the limit of {max_bytes}" if size > max_bytes else None


def _unstorable(text: str) -> str | None:
    """Say what a text column cannot hold, if there is any of it."""
    if "\0" in text:
        return "must not hold the character U+0000"
    if not text.isascii() and (surrogate := _SURROGATE.search(text)):
        return f"must not hold the lone surrogate {_code_point(surrogate[0])}"
    return None


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"
