"""Statements on the rows of events, and of sessions that are gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import LargeBinary, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.constructs import TextList, any_of, json_bytes, json_of_bytes, later, none_of, param
from sessionstore.schema import Instant
from sessionstore.statements.common import (
    CHANGED,
    EVENTS,
    ITS_EVENTS,
    NOW,
    ONE,
    SESSION,
    SESSIONS,
    TENANT,
    THIS_SESSION,
    TOMBSTONES,
    e,
    fixed,
    flag,
    number,
    s,
    statement,
    t,
    text,
)

EVENT_COLUMNS: Final = (
    *(e.number, e.kind, e.generation, e.first_position, e.next_position),
    *(json_bytes(e.payload), e.plain, e.created_at),
)
"""In the order that `mapping.event` expects."""

HEAD_COLUMNS: Final = (s.generation, s.first_position, s.next_position, s.next_event)
"""Where a session stands."""


def _event(row: Any, event_number: Any) -> dict[str, Any]:
    """The columns of an event, from the session's row as it is after it."""
    return {
        "tenant_id": TENANT,
        "session_id": SESSION,
        "number": event_number,
        "kind": text("kind"),
        **{name: row[name] for name in ("generation", "first_position", "next_position")},
        "payload": json_of_bytes(param("payload", LargeBinary)),
        "plain": flag("payload_plain"),
        "created_at": NOW,
    }


def _inserted(source: Any, values: dict[str, Any], *conditions: Any) -> Any:
    chosen = select(*values.values()).select_from(source).where(*conditions)
    return insert(EVENTS).inline().from_select(list(values), chosen)


def recorded(name: str, change: Callable[[Dialect], Any]) -> Statement:
    """Make a change of a session's row, which moves its `next_event`, record the event that it is.

    In one statement where the database can; elsewhere `RECORD` must follow. `change` returns at least where the
    session stands. Right because all that the event's row says comes from the caller and from the changed row.
    """

    def build(db: Dialect) -> Any:
        construct = change(db)
        if not db.modifying_ctes:
            return construct
        changed = construct.cte("changed")
        event = _inserted(changed, _event(changed.c, changed.c.next_event - ONE))
        return select(changed).add_cte(event.cte("event"))

    return Statement(name, build)


RECORD: Final = fixed("record", _inserted(SESSIONS, _event(s, s.next_event - number("back")), THIS_SESSION))
"""Insert the event that a change before this one, in the same transaction, has counted: the last one, or `back`."""

_COUNTED: Final = update(SESSIONS).where(THIS_SESSION).values(CHANGED | {s.next_event: s.next_event + ONE})

HAPPEN: Final = recorded("happen", lambda _: _COUNTED.returning(*HEAD_COLUMNS))
"""An event of the caller's own."""

AFTER: Final = fixed(
    "events_after",
    select(*EVENT_COLUMNS).where(ITS_EVENTS, e.number > number("after")).order_by(e.number).limit(number("limit")),
)

UNSEEN: Final = fixed(
    "events_unseen",
    select(*EVENT_COLUMNS)
    .where(ITS_EVENTS, or_(e.number > number("after"), e.generation > number("generation")))
    .order_by(e.number)
    .limit(number("limit")),
)
"""Events that a cursor has not passed, also of a session that was deleted and made anew."""

OTHER_KINDS: Final = fixed(
    "events_of_other_kinds",
    select(*EVENT_COLUMNS).where(ITS_EVENTS, none_of(e.kind, param("kinds", TextList))).order_by(e.number),
)
"""All events but those of some kinds."""

CLEAR: Final = fixed("clear_events", delete(EVENTS).where(ITS_EVENTS, e.number < number("before")))

_EXPIRED: Final = param("expired", Instant)

# --- sessions that are gone ---------------------------------------------------------------------


def buried(gone: Any, *conditions: Any) -> Any:
    """The columns of tombstones, from rows of sessions."""
    columns = (TENANT, gone.id, gone.generation, gone.next_event, text("tombstone"), NOW)
    return select(*columns).where(*conditions)


@statement("bury")
def BURY(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Leave tombstones of sessions that are about to be deleted. Their rows must be locked."""
    chosen = buried(s, s.tenant_id == TENANT, any_of(s.id, param("ids", TextList)))
    return burying(db, chosen)


def burying(db: Dialect, chosen: Any) -> Any:
    """Insert what `buried` chooses; a tombstone that is there stays."""
    inserting: Any = postgresql.insert if db.modifying_ctes else sqlite.insert
    return inserting(TOMBSTONES).inline().from_select([c.name for c in TOMBSTONES.c], chosen).on_conflict_do_nothing()


@statement("bury_one")
def BURY_ONE(db: Dialect) -> Any:  # noqa: N802  # as BURY
    """Leave the tombstone of a session that is gone."""
    inserting: Any = postgresql.insert if db.modifying_ctes else sqlite.insert
    values = {t.tenant_id: TENANT, t.session_id: SESSION, t.kind: text("tombstone"), t.deleted_at: NOW}
    values |= {t.generation: number("generation"), t.number: number("number")}
    return inserting(TOMBSTONES).inline().values(values).on_conflict_do_nothing()


_ALL: Final = TOMBSTONES.alias("others").c
_OLDEST: Final = select(func.min(_ALL.deleted_at)).where(_ALL.tenant_id == TENANT).scalar_subquery()

PURGE: Final = fixed(
    "purge_tombstones",
    delete(TOMBSTONES).where(
        t.tenant_id == TENANT, t.deleted_at < _EXPIRED, t.deleted_at <= later(_OLDEST, number("slice"))
    ),
)
"""Delete the oldest tombstones of a tenant, if they are old enough, and those of a `slice` of time after them.

One at least, where a deletion leaves one, and no more than what went within the slice: a bounded range of the index."""

PURGE_ALL: Final = fixed("purge_all_tombstones", delete(TOMBSTONES).where(t.deleted_at < _EXPIRED))

CLEAR_TOMBSTONES: Final = fixed("clear_tombstones", delete(TOMBSTONES).where(t.tenant_id == TENANT))

TOMBSTONE: Final = fixed(
    "tombstone",
    select(t.generation, t.number, t.kind, t.deleted_at)
    .where(t.tenant_id == TENANT, t.session_id == SESSION, t.generation >= number("generation"))
    .order_by(t.generation.desc())
    .limit(ONE),
)
"""The newest of a session, if it is of that generation or a later one."""
