"""Units on forks."""

from __future__ import annotations

from typing import Any

from sessionstore.dialects.base import Dialect, Row
from sessionstore.errors import SessionExistsError, SessionNotFoundError
from sessionstore.limits import ANCESTORS_MAX
from sessionstore.statements import events, mapping, messages, metadata, sessions
from sessionstore.statements.sessions import FIRST, NEXT
from sessionstore.units.events import NewEvent, changing, own
from sessionstore.units.messages import accessed
from sessionstore.units.removal import evict_after
from sessionstore.units.sessions import Opened, empty
from sessionstore.units.unit import Kind, RunInstead, Stamp, Steps, Unit, bucket_of
from sessionstore.values import SESSION_FIELDS, Lineage

_INHERITED = (*sessions.CHANGEABLE, "first_position")


def fork(
    tenant: str, session_id: str, new_id: str, *, keep: int | None, replace: bool, cap: int | None
) -> Unit[Opened]:
    """Copy a prefix of a session into a new one, or over the history of `new_id`.

    The source's row is locked first: rows copied under a header that was read before the lock could be fewer or more
    than it says.
    """

    def steps(db: Dialect) -> Steps[Opened]:
        if replace:
            yield sessions.LOCK_MANY(tenant=tenant, ids=[session_id, new_id])
        row = yield from accessed(tenant, session_id)
        source = dict(zip(SESSION_FIELDS, row, strict=True))
        head = row[NEXT] if keep is None else min(row[FIRST] + keep, row[NEXT])
        event = own("forked", parent_id=session_id, fork_position=head)
        created = yield from _header(db, tenant, new_id, source, event, head=head)
        if not created:
            if not replace:
                raise SessionExistsError(new_id)
            yield from _overwrite(tenant, new_id, source, event, head=head, again=unit)
        yield messages.COPY(tenant=tenant, session=session_id, child=new_id, high=head)
        yield metadata.COPY(tenant=tenant, session=session_id, child=new_id)
        rows = yield sessions.GET(tenant=tenant, session=new_id)
        return Opened(mapping.joined_session(rows), created)

    def then(opened: Opened) -> Unit[None] | None:
        return evict_after(tenant, new_id, cap, created=opened.created)

    unit = Unit("fork", Kind.TRANSACTION, steps, touches=(tenant, new_id), then=then)
    return unit


def _header(
    db: Dialect, tenant: str, new_id: str, source: dict[str, Any], event: NewEvent, *, head: int
) -> Steps[bool]:
    stamp = Stamp.of_now()
    rows = yield from changing(
        db,
        sessions.CREATE,
        event,
        tenant=tenant,
        session=new_id,
        **{name: source[name] for name in _INHERITED},
        parent_id=source["id"],
        fork_position=head,
        next_position=head,
        version=0,
        next_event=1,
        created=stamp.now,
        updated=stamp.now,
        **stamp.rewritten,
    )
    return bool(rows)


def _overwrite(
    tenant: str, new_id: str, source: dict[str, Any], event: NewEvent, *, head: int, again: Unit[Any]
) -> Steps[None]:
    rows = yield sessions.LOCK(tenant=tenant, session=new_id)
    if not rows:
        raise RunInstead(again)  # it was deleted since
    target = dict(zip(SESSION_FIELDS, rows[0], strict=True))
    now = Stamp.of_now().now
    updated = max(mapping.micros(target["updated_at"]), now)
    yield sessions.OVERWRITE(
        tenant=tenant,
        session=new_id,
        **{name: source[name] for name in _INHERITED},
        parent_id=target["parent_id"],
        fork_position=target["fork_position"],
        next_position=head,
        generation=max(target["generation"] + 1, now),
        created=mapping.micros(target["created_at"]),
        updated=updated,
        bucket=bucket_of(updated),
        now=now,
        events=1,
    )
    yield events.RECORD(tenant=tenant, session=new_id, **event.params, back=1, now=now)
    yield from empty(tenant, new_id)


def lineage(tenant: str, session_id: str) -> Unit[Lineage]:
    """Read where a session stands among its forks."""

    def steps(_db: Dialect) -> Steps[Lineage]:
        chain = yield sessions.ANCESTORS(tenant=tenant, session=session_id, most=ANCESTORS_MAX)
        if not chain:
            raise SessionNotFoundError(session_id)
        children = yield sessions.CHILDREN(tenant=tenant, session=session_id)
        return Lineage(
            parent_id=chain[1][0] if len(chain) > 1 else None,
            child_ids=tuple(row[0] for row in children),
            root_id=_root(list(chain)),
        )

    return Unit("lineage", Kind.SNAPSHOT, steps)


def _root(chain: list[Row]) -> str:
    """The last ancestor before the end of the chain, or before it comes round again."""
    seen: dict[str, None] = {}
    for row in chain:
        if row[0] in seen:
            break
        seen[row[0]] = None
    return next(reversed(seen))
