"""Units that read everything a tenant stores, in pages of bounded size.

What has to agree is of one page, and a page is of one moment: a header and the messages under it, never a header of
now and messages of later. Between two pages anything may happen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from sessionstore.dialects.base import Dialect, Row, Rows, Statement
from sessionstore.limits import CHUNK_BYTES, INT64_MAX, ITER_BATCH, METADATA_BYTES
from sessionstore.statements import verification
from sessionstore.units.unit import Kind, Steps, Unit

PAGE = ITER_BATCH
"""Rows of a page, as long as their bodies fit into memory twice over: see `fitting`."""

PAGE_SESSIONS = 100
"""Headers of a page. Those that its messages do not reach are read again with the next one."""

PAGE_VALUES = CHUNK_BYTES // METADATA_BYTES
"""Metadata of a page: at its largest as much as one of messages."""


class Header(NamedTuple):
    """The columns of a session that must agree with one another. A moment is None where it is impossible."""

    id: str
    first_position: int
    next_position: int
    generation: int
    version: int
    next_event: int
    max_turns: int
    created_at: Any
    updated_at: Any
    last_accessed_at: Any
    activity_bucket: int
    parent_id: str | None
    fork_position: int | None


class Place(NamedTuple):
    """How far the messages of a tenant have been read: up to a position of a session, or beyond its last."""

    session_id: str = ""
    position: int = INT64_MAX
    whole: bool = True


class History(NamedTuple):
    """The sessions between two places, and their messages.

    Attributes:
        start: what was read before; if it ended within a session, `headers` begins with that one, if it still exists.
        end: None after the last session.
    """

    start: Place
    end: Place | None
    headers: list[Header]
    rows: Rows


def next_tenant(tenant: str) -> Unit[str | None]:
    """Find the tenant after another."""

    def steps(_db: Dialect) -> Steps[str | None]:
        return (yield verification.NEXT_TENANT(after_tenant=tenant))[0][0]  # type: ignore[no-any-return]

    return Unit("next_tenant", Kind.READ, steps)


def history(tenant: str, start: Place) -> Unit[History]:
    """Read the next sessions with their messages, or some more messages of one that is long."""
    after = {"tenant": tenant, "after_id": start.session_id, "after": start.position}

    def steps(_db: Dialect) -> Steps[History]:
        begun = () if start.whole else (yield verification.HEADER(tenant=tenant, session=start.session_id))
        ahead = yield verification.HEADERS(tenant=tenant, after_id=start.session_id, limit=PAGE_SESSIONS)
        headers = [Header(*row) for row in (*begun, *ahead)]
        # One more than a page: if it shares the place of the last one, it belongs with it.
        places = yield verification.PLACES(**after, limit=PAGE + 1)
        count = fitting(places, PAGE, CHUNK_BYTES)
        end = Place(places[count - 1][0], places[count - 1][1], whole=False) if _more(places, count) else None
        if len(ahead) == PAGE_SESSIONS and (end is None or end.session_id > ahead[-1][0]):
            end = Place(ahead[-1][0])
            count = sum(place[0] <= end.session_id for place in places[:count])
        if end is not None:
            headers = [header for header in headers if header.id <= end.session_id]
        rows = (yield verification.HISTORY(**after, limit=count)) if count else ()
        return History(start, end, headers, rows)

    return Unit("verify_history", Kind.SNAPSHOT, steps)


def fitting(places: Rows, most: int, most_bytes: int) -> int:
    """How many of the rows, keys and a size each, to read at once: one at least, and all that share a key."""
    total = count = 0
    for count, row in enumerate(places):
        total += row[-1]
        full = count >= most or total > most_bytes
        if count and full and row[:-1] != places[count - 1][:-1]:
            return count
    return len(places)


def _more(places: Rows, count: int) -> bool:
    """Whether there may be others after the first `count` places."""
    return count < len(places) or count > PAGE


class Rest(NamedTuple):
    """A page of rows by key, and the key it ended with: None after the last page."""

    rows: Rows
    end: tuple[str, ...] | None


def message_ids(tenant: str, after: tuple[str, ...]) -> Unit[Rest]:
    """Count the messages of each message id."""
    return _by_key("verify_message_ids", verification.MESSAGE_IDS, tenant, after, limit=PAGE)


def metadata(tenant: str, after: tuple[str, ...]) -> Unit[Rest]:
    """Read metadata."""
    return _by_key("verify_metadata", verification.VALUES, tenant, after, limit=PAGE_VALUES)


def _by_key(name: str, statement: Statement, tenant: str, after: tuple[str, ...], *, limit: int) -> Unit[Rest]:
    """Read the rows after a session's id and a key of it."""

    def steps(_db: Dialect) -> Steps[Rest]:
        session_id, key = after
        rows = yield statement(tenant=tenant, after_id=session_id, after_key=key, limit=limit)
        return Rest(rows, _key(rows[-1], 2) if len(rows) == limit else None)

    return Unit(name, Kind.READ, steps)


def events(tenant: str, after: tuple[str, ...]) -> Unit[Rest]:
    """Read events."""
    session_id, number_ = after
    key = {"tenant": tenant, "after_id": session_id, "after": int(number_) if number_ else -1}
    return _fitting("verify_events", verification.EVENT_PLACES, verification.EVENTS, key, width=2)


def documents(tenant: str, after: tuple[str, ...]) -> Unit[Rest]:
    """Read documents."""
    category, name, kind = after
    key = {"tenant": tenant, "after_category": category, "after_name": name, "after_format": kind}

    return _fitting("verify_documents", verification.DOCUMENT_PLACES, verification.DOCUMENTS, key, width=3)


def _fitting(name: str, places_: Statement, whole: Statement, key: dict[str, Any], *, width: int) -> Unit[Rest]:
    """Read as many rows as fit into memory after a look at how large they are."""

    def steps(_db: Dialect) -> Steps[Rest]:
        places = yield places_(**key, limit=PAGE + 1)
        count = fitting(places, PAGE, CHUNK_BYTES)
        rows = (yield whole(**key, limit=count)) if count else ()
        return Rest(rows, _key(places[count - 1], width) if _more(places, count) else None)

    return Unit(name, Kind.SNAPSHOT, steps)


def _key(row: Row, width: int) -> tuple[str, ...]:
    return tuple(map(str, row[:width]))
