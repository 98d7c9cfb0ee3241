"""Rows into values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sessionstore import codec
from sessionstore.checks import check_instant, stored_instant
from sessionstore.codec import Json
from sessionstore.dialects.base import Row, Rows
from sessionstore.errors import CorruptStoreError
from sessionstore.values import SESSION_FIELDS, Message, Session, SessionSummary

_WIDTH = len(SESSION_FIELDS)


def micros(raw: int | datetime) -> int:
    """A moment as a driver gives it, in microseconds since 1970."""
    return check_instant(stored_instant(raw), "a stored time") if isinstance(raw, datetime) else raw


def session(row: Row, metadata: Rows = ()) -> Session:
    """A row of a session's columns, and the rows of its metadata."""
    return session_with(row, decoded(row[0], metadata))


def session_with(row: Row, metadata: dict[str, Json]) -> Session:
    """A row of a session's columns, and its metadata."""
    columns: dict[str, Any] = dict(zip(SESSION_FIELDS, row, strict=False))
    for name in ("created_at", "updated_at", "last_accessed_at"):
        columns[name] = stored_instant(columns[name])
    return Session(**columns, metadata=metadata)


def joined_session(rows: Rows) -> Session:
    """The rows of a session joined with its metadata: one for each key, or one with NULL for a key."""
    found = ((row[_WIDTH], row[_WIDTH + 1], row[_WIDTH + 2]) for row in rows)
    return session(rows[0], [entry for entry in found if entry[0] is not None])


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


def summary(row: Row) -> SessionSummary:
    """A row of a listing."""
    try:
        project = None if row[9] is None else codec.decode(row[9], bool(row[10]))
    except ValueError:
        project = None  # a damaged value fails the read of its own session, not a listing
    return SessionSummary(
        id=row[0],
        user_id=row[1],
        title=row[2],
        parent_id=row[3],
        message_count=row[4],
        active_seed_id=row[5],
        project_id=project if isinstance(project, str) else None,
        created_at=stored_instant(row[6]),
        updated_at=stored_instant(row[7]),
    )
