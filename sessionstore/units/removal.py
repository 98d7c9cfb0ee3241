"""Units that delete whole sessions in bounded batches."""

from __future__ import annotations

from typing import Any, NamedTuple

from sessionstore.dialects.base import Dialect
from sessionstore.limits import EVICT_ROUNDS, INT64_MAX, PRUNE_BATCH_MESSAGES
from sessionstore.statements import events, removal
from sessionstore.statements.removal import Victims
from sessionstore.units.events import burial, purge
from sessionstore.units.unit import Kind, Steps, Unit


class Removed(NamedTuple):
    """How many sessions a batch chose, and how many of them were still as they had been seen, and are gone."""

    chosen: int
    gone: int


def _remove(db: Dialect, tenant: str, victims: Victims, params: dict[str, Any]) -> Steps[Removed]:
    if db.modifying_ctes:
        rows = yield victims.remove(tenant=tenant, **burial(victims), **params)
        if rows[0][1] and victims.tombstone is not None:
            yield from purge(db, tenant)
        return Removed(rows[0][0], rows[0][1])
    rows = yield victims.choose(tenant=tenant, **params)
    ids = [row[0] for row in rows]
    if ids:
        if victims.tombstone is not None:
            yield events.BURY(tenant=tenant, ids=ids, **burial(victims))
            yield from purge(db, tenant)
        # With the only write lock in hand, children may go first: the cascade of their parents then finds nothing.
        children = (removal.DELETE_MESSAGES, removal.DELETE_METADATA, removal.DELETE_EVENTS)
        for statement in (*children, removal.DELETE_SESSIONS):
            yield statement(tenant=tenant, ids=ids)
    return Removed(len(ids), len(ids))


def evict(tenant: str, kept: str, cap: int) -> Unit[None]:
    """Delete the least recently accessed sessions over the cap, but not `kept`.

    Every creator evicts after its own commit, so the last one sees all. A victim that was used in the meantime
    survives, and another takes its place.
    """

    def steps(db: Dialect) -> Steps[None]:
        for _ in range(EVICT_ROUNDS):
            removed = yield from _remove(db, tenant, removal.LEAST_RECENT, {"kept": kept, "cap": cap})
            if removed.gone == removed.chosen:
                return

    return Unit("evict", Kind.WRITE, steps, repeatable=True, touches=(tenant, None))


def evict_after(tenant: str, session_id: str, cap: int | None, *, created: bool) -> Unit[None] | None:
    """Make the eviction that follows a session's creation, if it was created and there is a cap."""
    return evict(tenant, session_id, cap) if created and cap is not None else None


def batch(tenant: str, victims: Victims, params: dict[str, Any], *, batch_size: int) -> Unit[Removed]:
    """Delete one bounded batch of victims."""
    bounded = {**params, "batch": batch_size, "batch_messages": PRUNE_BATCH_MESSAGES}

    def steps(db: Dialect) -> Steps[Removed]:
        return (yield from _remove(db, tenant, victims, bounded))

    return Unit("remove_batch", Kind.WRITE, steps, rows=batch_size, touches=(tenant, None))


def preview(tenant: str, phases: list[tuple[Victims, dict[str, Any]]]) -> Unit[list[list[str]]]:
    """List what each phase would delete, as of one moment."""

    def steps(_db: Dialect) -> Steps[list[list[str]]]:
        chosen: list[list[str]] = []
        for victims, params in phases:
            rows = yield victims.choose(tenant=tenant, **params, batch=INT64_MAX, batch_messages=INT64_MAX)
            chosen.append([row[0] for row in rows])
        return chosen

    return Unit("preview", Kind.SNAPSHOT, steps)
