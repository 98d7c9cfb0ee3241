"""Units on what happens to a session beside its messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from sessionstore import codec
from sessionstore.codec import Encoded, Json
from sessionstore.dialects.base import Dialect, Rows, Statement
from sessionstore.errors import SessionNotFoundError
from sessionstore.limits import METADATA_BYTES, PURGE_SLICE_MICROS, TOMBSTONE_MICROS
from sessionstore.statements import events, mapping, sessions
from sessionstore.statements.removal import Victims
from sessionstore.units.unit import Kind, Stamp, Steps, Unit
from sessionstore.values import SessionEvent


class NewEvent(NamedTuple):
    """An event to be recorded, as the statements take it."""

    kind: str
    payload: bytes | None = None
    payload_plain: bool = True

    @property
    def params(self) -> dict[str, Any]:
        """Parameters of the statement."""
        return self._asdict()

    @classmethod
    def of(cls, kind: str, payload: Encoded | None) -> NewEvent:
        """Make one of an encoded payload."""
        return cls(kind) if payload is None else cls(kind, payload.text.encode(), payload.plain)


def own(kind: str, **payload: Json) -> NewEvent:
    """Make one of the store's own, with facts that are nothing of the conversation."""
    if not payload:
        return NewEvent(kind)
    return NewEvent.of(kind, codec.encode(payload, max_bytes=1024 * METADATA_BYTES, max_depth=3))


def updated(columns: Iterable[str]) -> NewEvent:
    """Make the event of changed columns."""
    return own("updated", columns=list(columns))


def metadata_changed(keys: list[str], removed: list[str]) -> NewEvent:
    """Make the event of metadata that was set and removed."""
    return own("metadata_changed", keys=[*keys], removed=[*removed])


def changing(db: Dialect, statement: Statement, event: NewEvent, **params: Any) -> Steps[Rows]:
    """Run a statement that changes a session's row, and record the event that the change is, if there was a row."""
    rows = yield statement(**params, **event.params)
    if rows and not db.modifying_ctes:
        yield events.RECORD(**params, **event.params, back=1)
    return rows


def record(tenant: str, session_id: str, event: NewEvent, *, size: int) -> Unit[int]:
    """Record an event of the caller's own; gives its number."""

    def steps(db: Dialect) -> Steps[int]:
        params = {"tenant": tenant, "session": session_id, **Stamp.of_now().changed}
        rows = yield from changing(db, events.HAPPEN, event, **params)
        if not rows:
            raise SessionNotFoundError(session_id)
        return int(rows[0][-1] - 1)

    return Unit("record_event", Kind.WRITE, steps, size=size, touches=(tenant, session_id))


def read(tenant: str, session_id: str, *, after: int, limit: int) -> Unit[list[SessionEvent]]:
    """Read events after a number, in order."""

    def steps(_db: Dialect) -> Steps[list[SessionEvent]]:
        rows = yield events.AFTER(tenant=tenant, session=session_id, after=after, limit=limit)
        if not rows and not (yield sessions.EXISTS(tenant=tenant, session=session_id)):
            raise SessionNotFoundError(session_id)
        return mapping.events(session_id, rows)

    return Unit("events", Kind.READ, steps)


def burial(victims: Victims) -> dict[str, Any]:
    """Parameters of the tombstones that victims leave."""
    return {"tombstone": victims.tombstone, "now": Stamp.of_now().now}


def purge(db: Dialect, tenant: str, slice_: int = PURGE_SLICE_MICROS) -> Steps[None]:
    """Delete some tombstones that are a day old: each deletion cleans up after those of the day before.

    After a commit, and never in a transaction of the caller: all deletions of a tenant begin with its oldest ones, and
    would wait for each other as long as he likes.
    """
    if not db.joined:
        yield events.PURGE(tenant=tenant, expired=_expired(), slice=slice_)


def _expired() -> int:
    return Stamp.of_now().now - TOMBSTONE_MICROS


def purge_old(tenant: str, slice_: int = TOMBSTONE_MICROS) -> Unit[None]:
    """Delete the tombstones of a tenant that are a day old, of a day at most."""
    return Unit("purge_tombstones", Kind.WRITE, lambda db: purge(db, tenant, slice_), repeatable=True)


def purge_all() -> Unit[None]:
    """Delete all tombstones that are a day old, of every tenant."""

    def steps(_db: Dialect) -> Steps[None]:
        yield events.PURGE_ALL(expired=_expired())

    return Unit("purge_all_tombstones", Kind.WRITE, steps, repeatable=True, tenantless=True)


def forget(tenant: str) -> Unit[None]:
    """Delete all tombstones of a tenant."""

    def steps(_db: Dialect) -> Steps[None]:
        yield events.CLEAR_TOMBSTONES(tenant=tenant)

    return Unit("forget_tombstones", Kind.WRITE, steps, repeatable=True)
