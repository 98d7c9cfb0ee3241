"""Units that list sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from sessionstore.dialects.base import Dialect
from sessionstore.statements import listing, mapping
from sessionstore.units.sessions import MetadataValue
from sessionstore.units.unit import Kind, Steps, Unit, bucket_of
from sessionstore.values import SessionSummary


class After(NamedTuple):
    """Where a page ended: the update time (microseconds since 1970) and id of its last session."""

    updated_at: int
    session_id: str


@dataclass(frozen=True, slots=True)
class Listing:
    """Which sessions to list; `metadata` holds scalars that must be equal."""

    limit: int
    user_id: str | None = None
    parent_id: str | None = None
    metadata: tuple[MetadataValue, ...] = ()
    after: After | None = None


class Listed(NamedTuple):
    """A page, and where the next one goes on."""

    rows: list[SessionSummary]
    after: After | None


def page(tenant: str, wanted: Listing) -> Unit[Listed]:
    """List sessions by update time, newest first, ties by id."""
    statement = listing.page(
        user=wanted.user_id is not None,
        parent=wanted.parent_id is not None,
        filters=len(wanted.metadata),
        after=wanted.after is not None,
    )

    def steps(_db: Dialect) -> Steps[Listed]:
        rows = list((yield statement(tenant=tenant, **_params(wanted))))
        more = len(rows) > wanted.limit
        del rows[wanted.limit :]
        after = After(mapping.micros(rows[-1][7]), rows[-1][0]) if more and rows else None
        return Listed([mapping.summary(row) for row in rows], after)

    return Unit("list_sessions", Kind.READ, steps)


def _params(wanted: Listing) -> dict[str, Any]:
    params: dict[str, Any] = {"limit": wanted.limit + 1, "user": wanted.user_id, "parent": wanted.parent_id}
    for at, entry in enumerate(wanted.metadata):
        params |= {f"key_{at}": entry.key, f"value_key_{at}": entry.value_key, f"value_{at}": entry.value}
    if wanted.after is not None:
        params["after_bucket"] = bucket_of(wanted.after.updated_at)
        params["after_updated"] = wanted.after.updated_at
        params["after_id"] = wanted.after.session_id
    return params
