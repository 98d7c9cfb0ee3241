"""Units on one session as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sessionstore import codec
from sessionstore.checks import to_datetime
from sessionstore.codec import Encoded, Json
from sessionstore.dialects.base import Dialect, Row
from sessionstore.errors import (
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    VersionConflictError,
)
from sessionstore.limits import INT64_MAX, PURGE_SLICE_MICROS
from sessionstore.statements import events, mapping, messages, metadata, sessions
from sessionstore.units.events import changing, metadata_changed, own, purge_old, updated
from sessionstore.units.removal import evict_after
from sessionstore.units.unit import Kind, RunInstead, Stamp, Steps, Unit
from sessionstore.values import Session


class MetadataValue(NamedTuple):
    """One metadata key as the bulk statement takes it."""

    key: str
    value: str
    plain: bool
    value_key: str | None


_UNUSED: Final[dict[str, Any]] = {
    **dict.fromkeys(("summary", "active_seed_id", "active_persona_id", "parent_id", "fork_position")),
    **dict.fromkeys(("first_position", "next_position", "version"), 0),
    "next_event": 1,
}
"""Columns that say nothing yet, but that the session was created."""

CREATED: Final = own("created")


class NewSession(NamedTuple):
    """The columns that a caller gives a new session."""

    user_id: str = ""
    model: str = ""
    max_turns: int = 0
    system_message: str | None = None
    title: str | None = None
    metadata: tuple[MetadataValue, ...] = ()

    @property
    def columns(self) -> dict[str, Any]:
        """Parameters of the INSERT."""
        return _UNUSED | {
            "user_id": self.user_id,
            "model": self.model,
            "max_turns": self.max_turns,
            "system_message": self.system_message,
            "title": self.title,
        }


class Opened(NamedTuple):
    """A session, and whether it is new."""

    session: Session
    created: bool


def create(tenant: str, session_id: str, new: NewSession, *, cap: int | None) -> Unit[Opened]:
    """Create a session, then evict over the cap."""

    def steps(db: Dialect) -> Steps[Opened]:
        opened = yield from insert_session(db, tenant, session_id, new)
        if opened is None:
            raise SessionExistsError(session_id)
        return opened

    return _creating("create", (tenant, session_id), steps, new, cap=cap)


def open_(tenant: str, session_id: str, new: NewSession, *, cap: int | None) -> Unit[Opened]:
    """Get a session and touch it, or create it."""

    def steps(_db: Dialect) -> Steps[Opened]:
        touched = yield sessions.ACCESS_AS(tenant=tenant, session=session_id, owner=new.user_id, now=Stamp.of_now().now)
        rows = yield sessions.GET(tenant=tenant, session=session_id)
        if not rows:
            raise RunInstead(creating)
        session = mapping.joined_session(rows)
        if not touched and new.user_id and session.user_id not in {"", new.user_id}:
            raise SessionOwnerError(session_id)
        return Opened(session, created=False)

    def insert(db: Dialect) -> Steps[Opened]:
        opened = yield from insert_session(db, tenant, session_id, new)
        if opened is None:
            raise RunInstead(opening)
        return opened

    creating = _creating("open", (tenant, session_id), insert, new, cap=cap)
    opening = Unit("open", Kind.WRITE, steps, touches=creating.touches, then=creating.then)
    return opening


def _creating(name: str, key: tuple[str, str], steps: Any, new: NewSession, *, cap: int | None) -> Unit[Opened]:
    def then(opened: Opened) -> Unit[None] | None:
        return evict_after(*key, cap, created=opened.created)

    return Unit(name, Kind.TRANSACTION if new.metadata else Kind.WRITE, steps, touches=key, then=then)


def insert_session(db: Dialect, tenant: str, session_id: str, new: NewSession) -> Steps[Opened | None]:
    """Insert a session with its metadata; None if there is one of that id."""
    stamp = Stamp.of_now()
    columns = {**new.columns, "generation": stamp.now}
    params = {"tenant": tenant, "session": session_id, "created": stamp.now, "updated": stamp.now}
    inserted = yield from changing(db, sessions.CREATE, CREATED, **params, **stamp.changed, **columns)
    if not inserted:
        return None
    if new.metadata:
        yield metadata.SET(new.metadata, tenant=tenant, session=session_id)
    moment = to_datetime(stamp.now)
    decoded = {entry.key: codec.decode(entry.value.encode(), entry.plain) for entry in sorted(new.metadata)}
    session = Session(
        id=session_id, metadata=decoded, created_at=moment, updated_at=moment, last_accessed_at=moment, **columns
    )
    return Opened(session, created=True)


def find(tenant: str, session_id: str) -> Unit[Session | None]:
    """Read a session with its metadata."""

    def steps(_db: Dialect) -> Steps[Session | None]:
        rows = yield sessions.GET(tenant=tenant, session=session_id)
        return mapping.joined_session(rows) if rows else None

    return Unit("find", Kind.READ, steps)


def head(tenant: str, session_id: str) -> Unit[Row | None]:
    """Read (first position, next position, version, generation)."""

    def steps(_db: Dialect) -> Steps[Row | None]:
        rows = yield sessions.HEAD(tenant=tenant, session=session_id)
        return rows[0] if rows else None

    return Unit("head", Kind.READ, steps)


def change(
    tenant: str,
    session_id: str,
    columns: Mapping[str, Any] | None,
    *,
    expected: int | None,
    values: tuple[MetadataValue, ...] = (),
    remove: list[str] | None = None,
) -> Unit[Session]:
    """Change columns of a session, or without any its metadata."""
    given = columns or {}
    event = metadata_changed([value.key for value in values], remove or []) if columns is None else updated(given)

    def steps(db: Dialect) -> Steps[Session]:
        setting = {f"set_{name}": name in given for name in sessions.CHANGEABLE}
        new = {name: given.get(name) for name in sessions.CHANGEABLE}
        params = {"tenant": tenant, "session": session_id, "expected": expected, **Stamp.of_now().changed}
        rows = yield from changing(db, sessions.CHANGE, event, **params, **setting, **new)
        row = rows[0] if rows else (yield from refused(tenant, session_id, expected))
        if values:
            yield metadata.SET(values, tenant=tenant, session=session_id)
        if remove:
            yield metadata.REMOVE(tenant=tenant, session=session_id, keys=remove)
        return (yield from with_metadata(tenant, row))

    return Unit("change", Kind.TRANSACTION, steps, touches=(tenant, session_id))


def refused(tenant: str, session_id: str, expected: int | None) -> Steps[Any]:
    """Tell why a change found no row: no session, or another version than expected."""
    rows = yield sessions.HEAD(tenant=tenant, session=session_id)
    if not rows or expected is None:
        raise SessionNotFoundError(session_id)
    raise VersionConflictError(session_id, expected=expected, actual=rows[0][2])


def check_version(row: Row, expected: int | None) -> None:
    """Refuse to go on with a locked session of another version than expected."""
    if expected is not None and expected != row[sessions.VERSION]:
        raise VersionConflictError(row[0], expected=expected, actual=row[sessions.VERSION])


def with_metadata(tenant: str, row: Row) -> Steps[Session]:
    """Complete a row of a session's columns."""
    return mapping.session(row, (yield sessions.METADATA_OF(tenant=tenant, session=row[0])))


def reset(tenant: str, session_id: str) -> Unit[Session]:
    """Empty history, summary and metadata."""

    def steps(db: Dialect) -> Steps[Session]:
        key = {"tenant": tenant, "session": session_id}
        rows = yield from changing(db, sessions.RESET, own("reset"), **key, **Stamp.of_now().rewritten)
        if not rows:
            raise SessionNotFoundError(session_id)
        yield from empty(tenant, session_id)
        yield events.CLEAR(**key, before=rows[0][sessions.NEXT_EVENT] - 1)
        no_metadata: dict[str, Json] = {}
        return mapping.session_with(rows[0], no_metadata)

    return Unit("reset", Kind.TRANSACTION, steps, touches=(tenant, session_id))


def empty(tenant: str, session_id: str) -> Steps[None]:
    """Delete messages and metadata of a session whose row is locked or gone."""
    yield messages.DELETE_RANGE(tenant=tenant, session=session_id, low=0, high=INT64_MAX)
    yield metadata.CLEAR(tenant=tenant, session=session_id)


def delete(tenant: str, session_id: str) -> Unit[bool]:
    """Delete a session and what belongs to it.

    The parent first, then the children in statements of their own: together in one statement, what a concurrent append
    added while the DELETE waited for its lock would be as invisible to the second half as it was at the start.
    """

    def steps(_db: Dialect) -> Steps[bool]:
        key = {"tenant": tenant, "session": session_id}
        rows = yield sessions.DELETE(**key)
        if not rows:
            return False
        yield from empty(tenant, session_id)
        yield events.CLEAR(**key, before=INT64_MAX)
        _, generation, number = rows[0]
        moment = Stamp.of_now().now
        yield events.BURY_ONE(**key, generation=generation, number=number, tombstone="deleted", now=moment)
        return True

    def then(deleted: bool) -> Unit[None] | None:
        return purge_old(tenant, PURGE_SLICE_MICROS) if deleted else None

    return Unit("delete", Kind.TRANSACTION, steps, touches=(tenant, session_id), then=then)


def metadata_value(key: str, value: Json, encoded: Encoded) -> MetadataValue:
    """Make the row of a metadata key."""
    return MetadataValue(key, encoded.text, encoded.plain, codec.scalar_key(encoded, value))
