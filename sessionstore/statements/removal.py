"""Deleting whole sessions: eviction, prune, and erasing a user or a tenant, all in one shape.

A statement chooses **victims**; they are deleted where their version, recency and update time are still what was
seen, with their children by the keys that were really deleted. Where a concurrent writer was faster the session
survives. That recheck is what makes one statement right under READ COMMITTED: its view of other rows is as old as its
start, but a victim that changed since is no victim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from sqlalchemy import Select, and_, delete, func, or_, select

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.constructs import TextList, any_of, greatest, param
from sessionstore.schema import Instant
from sessionstore.statements.common import (
    EVENTS,
    MESSAGES,
    METADATA,
    ONE,
    SESSIONS,
    TENANT,
    ZERO,
    d,
    e,
    fixed,
    m,
    number,
    s,
    text,
)
from sessionstore.statements.events import buried, burying

_SEEN: Final = (s.id, s.version, s.last_accessed_at, s.updated_at, (s.next_position - s.first_position).label("length"))
_NEWEST_FIRST: Final = (s.activity_bucket.desc(), s.updated_at.desc(), s.id)
_NOT_SINCE: Final = s.last_accessed_at <= param("started", Instant)


class Victims(NamedTuple):
    """A choice of sessions to delete, as the statement that lists them and the one that deletes them."""

    choose: Statement
    """Gives (id, length) of the victims."""
    remove: Statement
    """Deletes them with their children; gives how many were chosen and how many deleted. `modifying_ctes` only."""
    tombstone: str | None
    """The kind of the tombstones they leave; None where nothing may be left behind."""


def _victims(name: str, candidates: Select[Any], *, tombstone: str | None = "deleted") -> Victims:
    """Bound the candidates to a batch: so many sessions, and so many messages or one session."""
    batch = candidates.limit(number("batch")).subquery("candidates")
    running = func.sum(batch.c.length).over(order_by=batch.c.id)
    place = func.row_number().over(order_by=batch.c.id)
    counted = select(batch, running.label("running"), place.label("place")).subquery("counted")
    chosen = select(counted).where(or_(counted.c.running <= number("batch_messages"), counted.c.place == ONE))
    return _statements(name, chosen, tombstone)


def _statements(name: str, chosen: Select[Any], tombstone: str | None) -> Victims:
    listed = chosen.subquery("listed")
    return Victims(
        choose=fixed(f"choose_{name}", select(listed.c.id, listed.c.length)),
        remove=Statement(f"remove_{name}", lambda db: _remove(db, chosen, leaving=tombstone is not None)),
        tombstone=tombstone,
    )


def _remove(db: Dialect, chosen: Select[Any], *, leaving: bool) -> Any:
    victims = chosen.cte("victims")
    unchanged = and_(
        s.tenant_id == TENANT,
        s.id == victims.c.id,
        s.version == victims.c.version,
        s.last_accessed_at == victims.c.last_accessed_at,
        s.updated_at == victims.c.updated_at,
    )
    gone = delete(SESSIONS).where(unchanged).returning(s.id, s.generation, s.next_event).cte("gone")
    ids = select(gone.c.id)
    messages = delete(MESSAGES).where(m.tenant_id == TENANT, m.session_id.in_(ids)).cte("gone_messages")
    metadata = delete(METADATA).where(d.tenant_id == TENANT, d.session_id.in_(ids)).cte("gone_metadata")
    events = delete(EVENTS).where(e.tenant_id == TENANT, e.session_id.in_(ids)).cte("gone_events")
    left = [burying(db, buried(gone.c)).cte("left")] if leaving else []
    count: Callable[[Any], Any] = lambda table: select(func.count()).select_from(table).scalar_subquery()  # noqa: E731
    return select(count(victims), count(gone)).add_cte(messages, metadata, events, *left)


_EXCESS: Final = select(func.count()).select_from(SESSIONS).where(s.tenant_id == TENANT).correlate(
    None
).scalar_subquery() - number("cap")

LEAST_RECENT: Final = _statements(
    "least_recent",
    select(*_SEEN)
    .where(s.tenant_id == TENANT, s.id != text("kept"))
    .order_by(s.last_accessed_at, s.id)
    .limit(greatest(_EXCESS, ZERO)),
    "evicted",
)
"""The sessions over the cap, the one just made excepted."""

BY_AGE: Final = _victims(
    "by_age",
    select(*_SEEN)
    .where(
        s.tenant_id == TENANT,
        s.activity_bucket <= number("bucket"),
        s.updated_at < param("cutoff", Instant),
        _NOT_SINCE,
    )
    .order_by(s.activity_bucket),
)

BY_IDLE: Final = _victims(
    "by_idle",
    select(*_SEEN).where(s.tenant_id == TENANT, s.last_accessed_at < param("cutoff", Instant), _NOT_SINCE),
)


def _beyond(*, per_user: bool) -> Select[Any]:
    """Sessions after the newest `keep`, of the tenant or of each user."""
    among = and_(
        s.tenant_id == TENANT,
        s.updated_at >= param("changed_since", Instant),
        s.last_accessed_at >= param("used_since", Instant),
    )
    if per_user:
        place = func.row_number().over(partition_by=s.user_id, order_by=_NEWEST_FIRST)
        ranked = select(*_SEEN, place.label("rank")).where(among).subquery("ranked")
        return select(ranked).where(
            ranked.c.rank > number("keep"), ranked.c.last_accessed_at <= param("started", Instant)
        )
    ranked = select(*_SEEN).where(among).order_by(*_NEWEST_FIRST).offset(number("keep")).subquery("ranked")
    return select(ranked).where(ranked.c.last_accessed_at <= param("started", Instant))


BY_NUMBER: Final = _victims("by_number", _beyond(per_user=False))

BY_NUMBER_PER_USER: Final = _victims("by_number_per_user", _beyond(per_user=True))

OF_USER: Final = _victims(
    "of_user", select(*_SEEN).where(s.tenant_id == TENANT, s.user_id == text("user")), tombstone=None
)

OF_TENANT: Final = _victims("of_tenant", select(*_SEEN).where(s.tenant_id == TENANT), tombstone=None)

_IDS: Final = param("ids", TextList)

DELETE_SESSIONS: Final = fixed("delete_sessions", delete(SESSIONS).where(s.tenant_id == TENANT, any_of(s.id, _IDS)))
DELETE_MESSAGES: Final = fixed(
    "delete_messages", delete(MESSAGES).where(m.tenant_id == TENANT, any_of(m.session_id, _IDS))
)
DELETE_METADATA: Final = fixed(
    "delete_metadata", delete(METADATA).where(d.tenant_id == TENANT, any_of(d.session_id, _IDS))
)
DELETE_EVENTS: Final = fixed("delete_events", delete(EVENTS).where(e.tenant_id == TENANT, any_of(e.session_id, _IDS)))
