"""Statements of those who watch sessions: what is new in one, and which of many have changed at all."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import ARRAY, BigInteger, Text, and_, column, func, literal_column, null, or_, select, union_all

from sessionstore.dialects.base import Dialect
from sessionstore.dialects.constructs import TextList, any_of, greatest, param
from sessionstore.schema import Instant
from sessionstore.statements.common import (
    MESSAGE_COLUMNS,
    MESSAGES,
    SESSIONS,
    TENANT,
    THIS_SESSION,
    ZERO,
    fixed,
    m,
    number,
    s,
    statement,
    t,
    text,
)
from sessionstore.statements.events import HEAD_COLUMNS

HEAD_WIDTH: Final = len(HEAD_COLUMNS)

_ITS_NEW: Final = and_(m.tenant_id == s.tenant_id, m.session_id == s.id, m.position >= number("position"))

FOLLOW: Final = fixed(
    "follow",
    select(*HEAD_COLUMNS, *MESSAGE_COLUMNS)
    .select_from(SESSIONS.outerjoin(MESSAGES, _ITS_NEW))
    .where(THIS_SESSION)
    .order_by(m.position)
    .limit(number("limit")),
)
"""Where a session stands, and its messages from a position on: a row each, or one with NULL for a position."""

KEYS: Final = {"tenant": Text, "id": Text, "generation": BigInteger, "position": BigInteger, "event": BigInteger}
"""What a watcher knows of a session, in the order of the entries of `keys`. A position below 0: that it is gone."""


def _known(db: Dialect) -> Any:
    """The sessions that are watched one by one, as a table."""
    if db.array_rows:
        arrays = [param(f"known_{name}", ARRAY(kind())) for name, kind in KEYS.items()]
        columns = [column(name, kind()) for name, kind in KEYS.items()]
        return func.unnest(*arrays).table_valued(*columns, name="known").render_derived()
    each = func.json_each(param("known", TextList)).table_valued(column("value", Text()), name="given")
    entries = [
        func.json_extract(each.c.value, literal_column(f"'$[{place}]'"), type_=kind()).label(name)
        for place, (name, kind) in enumerate(KEYS.items())
    ]
    return select(*entries).subquery("known")


@statement("tick")
def TICK(db: Dialect) -> Any:  # noqa: N802  # a statement, named like the constants beside it
    """Which of the sessions that are watched one by one are no longer as known, and how those of whole tenants stand.

    Gives (what, tenant, session, generation, next position, next event), where what is one of the three below. The
    bare range on the bucket is what the index can serve; `since` then leaves out most of what it finds.
    """
    known = _known(db)
    joined = known.outerjoin(SESSIONS, and_(s.tenant_id == known.c.tenant, s.id == known.c.id))
    gone = and_(s.id.is_(None), known.c.position >= ZERO)
    moved = or_(s.generation != known.c.generation, s.next_position != known.c.position, s.next_event != known.c.event)
    nothing = [null().cast(BigInteger) for _ in range(3)]
    one = select(_what(CHANGED), known.c.tenant, known.c.id, *nothing).select_from(joined).where(or_(gone, moved))
    whole = select(_what(STANDS), s.tenant_id, s.id, s.generation, s.next_position, s.next_event).where(
        any_of(s.tenant_id, param("whole", TextList)),
        s.activity_bucket >= number("bucket"),
        s.updated_at >= param("since", Instant),
    )
    buried = select(_what(GONE), t.tenant_id, t.session_id, t.generation, t.number, t.number).where(
        any_of(t.tenant_id, param("whole", TextList)), t.deleted_at >= param("since", Instant)
    )
    return union_all(one, whole, buried)


CHANGED: Final = 0
STANDS: Final = 1
GONE: Final = 2


def _what(number_: int) -> Any:
    return literal_column(str(number_), BigInteger)


SWEEP: Final = fixed(
    "sweep",
    select(s.id, s.generation, s.next_position, s.next_event, greatest(s.updated_at, s.last_accessed_at))
    .where(s.tenant_id == TENANT, s.id > text("after_id"))
    .order_by(s.id)
    .limit(number("limit")),
)
"""How the sessions of a tenant stand, a page by id at a time, and up to when they can have changed.

A save keeps the times of its transcript, however old, but it does move the recency."""

LAID: Final = fixed(
    "laid",
    select(t.session_id, t.generation, t.number, t.kind, t.deleted_at)
    .where(t.tenant_id == TENANT, t.deleted_at >= param("since", Instant))
    .order_by(t.deleted_at, t.session_id, t.generation),
)
"""The sessions of a tenant that went since a moment."""
