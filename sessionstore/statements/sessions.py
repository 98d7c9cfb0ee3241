"""Statements on the rows of sessions."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import BigInteger, case, delete, null, select, update
from sqlalchemy.dialects import postgresql, sqlite

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.constructs import TextList, any_of, param
from sessionstore.schema import Instant
from sessionstore.statements.common import (
    ACCESSED,
    BUCKET,
    CHANGED,
    ITS_METADATA,
    METADATA,
    METADATA_COLUMNS,
    NOW,
    ONE,
    REWRITTEN,
    SESSION,
    SESSION_COLUMNS,
    SESSIONS,
    TENANT,
    THIS_SESSION,
    ZERO,
    d,
    fixed,
    flag,
    number,
    s,
    text,
    unless_expected,
)
from sessionstore.statements.events import HEAD_COLUMNS, recorded
from sessionstore.values import SESSION_FIELDS

_WITH_METADATA: Final = SESSIONS.outerjoin(METADATA, (d.tenant_id == s.tenant_id) & (d.session_id == s.id))

GET: Final = fixed(
    "get", select(*SESSION_COLUMNS, *METADATA_COLUMNS).select_from(_WITH_METADATA).where(THIS_SESSION).order_by(d.key)
)
"""A row for each metadata key, or one with NULL for a key."""

EXISTS: Final = fixed("exists", select(ONE).where(THIS_SESSION))

HEAD: Final = fixed("head", select(s.first_position, s.next_position, s.version, s.generation).where(THIS_SESSION))

LOCK: Final = fixed("lock", select(*SESSION_COLUMNS).where(THIS_SESSION).with_for_update())
"""The session's columns, and its row locked until the transaction ends."""

LOCK_MANY: Final = fixed(
    "lock_many",
    select(s.id).where(s.tenant_id == TENANT, any_of(s.id, param("ids", TextList))).order_by(s.id).with_for_update(),
)
"""Locks in the order of the ids, so that two of these cannot deadlock."""

ACCESS: Final = fixed("access", update(SESSIONS).where(THIS_SESSION).values(ACCESSED).returning(*SESSION_COLUMNS))
"""Touch the recency, and lock the row where a transaction is open."""

ACCESS_AS: Final = fixed(
    "access_as",
    update(SESSIONS)
    .where(THIS_SESSION, (text("owner") == "") | (s.user_id == "") | (s.user_id == text("owner")))
    .values(ACCESSED)
    .returning(s.id),
)


def _new(name: str) -> Any:
    """Name a parameter for the new value of a column, without the column's collation."""
    return number(name) if isinstance(s[name].type, BigInteger) else text(name)


CHANGEABLE: Final = (
    *("user_id", "model", "max_turns", "system_message", "title"),
    *("summary", "active_seed_id", "active_persona_id"),
)
"""The columns that are the caller's to change."""


def _changing(name: str, changes: dict[Any, Any], *conditions: Any) -> Statement:
    """Make a change of a session that is an event; it gives the session's columns as they are then."""
    values = changes | {s.next_event: s.next_event + ONE}
    construct = update(SESSIONS).where(THIS_SESSION, *conditions).values(values).returning(*SESSION_COLUMNS)
    return recorded(name, lambda _: construct)


_AS_EXPECTED: Final = unless_expected(s.version, "expected")

CHANGE: Final = _changing(
    "change",
    CHANGED | {s[name]: case((flag(f"set_{name}"), _new(name)), else_=s[name]) for name in CHANGEABLE},
    _AS_EXPECTED,
)

RESET: Final = _changing("reset", REWRITTEN | {s.first_position: ZERO, s.next_position: ZERO, s.summary: null()})

REPLACE: Final = _changing(
    "replace", REWRITTEN | {s.first_position: ZERO, s.next_position: number("count")}, _AS_EXPECTED
)

TRIM: Final = _changing("trim", CHANGED | {s.first_position: number("first")})

TRUNCATE: Final = _changing("truncate", REWRITTEN | {s.next_position: number("next"), s.summary: null()})

POP: Final = _changing("pop", REWRITTEN | {s.next_position: number("next")})

COMPACT: Final = _changing("compact", REWRITTEN | {s.first_position: number("first")})

DELETE: Final = fixed("delete", delete(SESSIONS).where(THIS_SESSION).returning(s.id, s.generation, s.next_event))

_CREATED: Final[dict[Any, Any]] = {
    s.tenant_id: TENANT,
    s.id: SESSION,
    s.created_at: param("created", Instant),
    s.updated_at: param("updated", Instant),
    s.last_accessed_at: NOW,
    s.activity_bucket: BUCKET,
} | {
    s[name]: _new(name)
    for name in (
        *("user_id", "model", "max_turns", "system_message", "title", "summary", "active_seed_id"),
        *("active_persona_id", "parent_id", "fork_position", "first_position", "next_position"),
        *("generation", "version", "next_event"),
    )
}


def _create(db: Dialect) -> Any:
    insert = postgresql.insert if db.modifying_ctes else sqlite.insert
    return insert(SESSIONS).inline().values(_CREATED).on_conflict_do_nothing().returning(*HEAD_COLUMNS)


CREATE: Final = recorded("create", _create)
"""Insert a session unless there is one; gives where it stands if it was inserted."""


OVERWRITE: Final = fixed(
    "overwrite",
    update(SESSIONS)
    .where(THIS_SESSION)
    .values(
        {
            column: value
            for column, value in _CREATED.items()
            if column.name not in {"tenant_id", "id", "next_event", "version"}
        }
        | ACCESSED
        | {s.version: s.version + ONE, s.next_event: s.next_event + number("events")}
    )
    .returning(s.version),
)
"""Set every column of a session but its keys; the version grows by one, the event counter by `events`."""

METADATA_OF: Final = fixed("metadata_of", select(*METADATA_COLUMNS).where(ITS_METADATA).order_by(d.key))

CHILDREN: Final = fixed("children", select(s.id).where(s.tenant_id == TENANT, s.parent_id == SESSION).order_by(s.id))


def _ancestors() -> Any:
    """Walk up from a session, at most `most` steps: parents are names, and names may form a circle."""
    start = select(s.id, s.parent_id, ZERO.label("depth")).where(THIS_SESSION)
    up = start.cte("up", recursive=True)
    parent = SESSIONS.alias("parent")
    step = select(parent.c.id, parent.c.parent_id, up.c.depth + ONE).where(
        parent.c.tenant_id == TENANT, parent.c.id == up.c.parent_id, up.c.depth < number("most")
    )
    up = up.union_all(step)
    return select(up.c.id, up.c.parent_id).order_by(up.c.depth)


ANCESTORS: Final = fixed("ancestors", _ancestors())
"""The session itself, then its ancestors, nearest first."""

FIRST: Final = SESSION_FIELDS.index("first_position")
NEXT: Final = SESSION_FIELDS.index("next_position")
VERSION: Final = SESSION_FIELDS.index("version")
GENERATION: Final = SESSION_FIELDS.index("generation")
NEXT_EVENT: Final = SESSION_FIELDS.index("next_event")
"""Places in a row of a session's columns."""
