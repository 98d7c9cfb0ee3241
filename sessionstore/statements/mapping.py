"""Rows into values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from sessionstore import codec
from sessionstore.checks import check_instant, stored_instant
from sessionstore.codec import Json
from sessionstore.dialects.base import Row, Rows
from sessionstore.errors import CorruptStoreError
from sessionstore.values import SESSION_FIELDS, Message, Session, SessionEvent, SessionSummary, maker

_WIDTH = len(SESSION_FIELDS)


def micros(raw: int | datetime) -> int:
    """A moment as a driver gives it, in microseconds since 1970."""
    return check_instant(stored_instant(raw), "a stored time") if isinstance(raw, datetime) else raw


def session(row: Row, metadata: Rows = ()) -> Session:
    """A row of a session's columns, and the rows of its metadata."""
    return session_with(row, decoded(row[0], metadata))


_session: Final = maker(Session)
_FIRST_TIME: Final = SESSION_FIELDS.index("created_at")


def session_with(row: Row, metadata: dict[str, Json]) -> Session:
    """A row of a session's columns, the last of which are its times, and its metadata."""
    return _session((*row[:_FIRST_TIME], *map(stored_instant, row[_FIRST_TIME:_WIDTH]), metadata))


def joined_session(rows: Rows) -> Session:
    """The rows of a session joined with its metadata: one for each key, or one with NULL for a key."""
    found = [] if rows[0][_WIDTH] is None else [row[_WIDTH:] for row in rows]
    return session(rows[0], found)


def decoded(session_id: str, rows: Iterable[Row]) -> dict[str, Json]:
    """The rows of a session's metadata."""
    return {key: json_value(raw, plain, f"metadata of session {session_id!r}") for key, raw, plain in rows}


def json_value(raw: bytes, plain: Any, what: str) -> Json:
    """A stored JSON value.

    Raises:
        CorruptStoreError: it is no longer JSON.
    """
    try:
        return codec.decode(raw, bool(plain))
    except ValueError:
        raise CorruptStoreError(f"the {what} is not JSON") from None


def messages(session_id: str, rows: Rows) -> list[Message]:
    """Rows of messages."""
    return [Message(session_id, row) for row in rows]


def event(session_id: str, row: Row) -> SessionEvent:
    """A row of an event."""
    number, kind, generation, first, following, payload, plain, created_at = row
    what = f"payload of event {number} of session {session_id!r}"
    value = None if payload is None else json_value(payload, plain, what)
    return SessionEvent(session_id, number, kind, generation, first, following, stored_instant(created_at), value)


def events(session_id: str, rows: Rows) -> list[SessionEvent]:
    """Rows of events."""
    return [event(session_id, row) for row in rows]


_summary: Final = maker(SessionSummary)


def summary(row: Row) -> SessionSummary:
    """A row of a listing."""
    id_, user_id, title, parent_id, length, seed_id, created_at, updated_at, _, project, plain = row
    if project is not None:
        try:
            project = codec.decode(project, bool(plain))
        except ValueError:
            project = None  # a damaged value fails the read of its own session, not a listing
        if not isinstance(project, str):
            project = None
    times = stored_instant(created_at), stored_instant(updated_at)
    return _summary((id_, user_id, title, parent_id, length, seed_id, project, *times))
