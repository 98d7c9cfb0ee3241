"""Statements that look at everything a tenant stores, a page by keys at a time.

A page of rows that must agree with one another is read as of one moment, so that what others do meanwhile is never
taken for damage. Moments that no datetime can hold come as NULL: the drivers could not give them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import and_, case, func, or_, select, tuple_, union_all

from sessionstore.checks import check_instant
from sessionstore.dialects.constructs import byte_length, json_bytes
from sessionstore.statements.common import EVENTS as _EVENTS
from sessionstore.statements.common import MESSAGES, METADATA, SESSIONS, TENANT, d, e, fixed, m, number, s, text
from sessionstore.statements.common import THIS_SESSION as _THIS_SESSION
from sessionstore.statements.documents import DOCUMENTS as _DOCUMENTS

_c: Final = _DOCUMENTS.c

_FIRST: Final = check_instant(datetime.min.replace(tzinfo=UTC), "the first moment")
_LAST: Final = check_instant(datetime.max.replace(tzinfo=UTC), "the last moment")


def moment(column: Any) -> Any:
    """A moment, or NULL where no datetime can hold it.

    The very first and the very last are looked for apart: to PostgreSQL they may be its infinities.
    """
    possible = or_(column == _FIRST, column == _LAST, column.between(_FIRST + 1, _LAST - 1))
    return case((possible, column)).label(column.name)


_NEXT_OF: Final = [
    select(func.min(table.c.tenant_id).label("tenant")).where(table.c.tenant_id > text("after_tenant"))
    for table in (SESSIONS, MESSAGES, METADATA, _EVENTS, _DOCUMENTS)
]

NEXT_TENANT: Final = fixed("next_tenant", select(func.min(union_all(*_NEXT_OF).subquery("tenants").c.tenant)))
"""The tenant after another, whatever it has rows of; NULL after the last."""

_HEADER: Final = (
    *(s.id, s.first_position, s.next_position, s.generation, s.version, s.next_event, s.max_turns),
    *(moment(s.created_at), moment(s.updated_at), moment(s.last_accessed_at), s.activity_bucket),
    *(s.parent_id, s.fork_position),
)

HEADER: Final = fixed("verify_header", select(*_HEADER).where(_THIS_SESSION))

HEADERS: Final = fixed(
    "verify_headers",
    select(*_HEADER).where(s.tenant_id == TENANT, s.id > text("after_id")).order_by(s.id).limit(number("limit")),
)

_place: Final = tuple_(m.session_id, m.position)
AFTER_PLACE: Final = and_(m.tenant_id == TENANT, _place > tuple_(text("after_id"), number("after")))

PLACES: Final = fixed(
    "verify_places",
    select(m.session_id, m.position, byte_length(m.body))
    .where(AFTER_PLACE)
    .order_by(m.session_id, m.position)
    .limit(number("limit")),
)
"""Where the next messages are, and how large they are."""

# A second bound would be cheaper to write, but PostgreSQL then reads a long session from its beginning.
HISTORY: Final = fixed(
    "verify_history",
    select(
        *(m.session_id, m.position, m.role, json_bytes(m.body), m.plain, moment(m.created_at)),
        *(m.seed_id, m.phase_reached, m.evaluation_passed),
    )
    .where(AFTER_PLACE)
    .order_by(m.session_id, m.position)
    .limit(number("limit")),
)
"""So many of those messages."""

MESSAGE_IDS: Final = fixed(
    "verify_message_ids",
    select(m.session_id, m.message_id, func.count().label("times"))
    .where(
        m.tenant_id == TENANT,
        m.message_id.is_not(None),
        tuple_(m.session_id, m.message_id) > tuple_(text("after_id"), text("after_key")),
    )
    .group_by(m.session_id, m.message_id)
    .order_by(m.session_id, m.message_id)
    .limit(number("limit")),
)

_ITS_SESSION: Final = and_(s.tenant_id == d.tenant_id, s.id == d.session_id)

VALUES: Final = fixed(
    "verify_metadata",
    select(d.session_id, d.key, json_bytes(d.value), d.plain, d.value_key, s.id)
    .select_from(METADATA.outerjoin(SESSIONS, _ITS_SESSION))
    .where(d.tenant_id == TENANT, tuple_(d.session_id, d.key) > tuple_(text("after_id"), text("after_key")))
    .order_by(d.session_id, d.key)
    .limit(number("limit")),
)
"""Metadata, and the id of its session where there is one."""

_AFTER_EVENT: Final = and_(
    e.tenant_id == TENANT, tuple_(e.session_id, e.number) > tuple_(text("after_id"), number("after"))
)

EVENT_PLACES: Final = fixed(
    "verify_event_places",
    select(e.session_id, e.number, func.coalesce(byte_length(e.payload), 0))
    .where(_AFTER_EVENT)
    .order_by(e.session_id, e.number)
    .limit(number("limit")),
)

EVENTS: Final = fixed(
    "verify_events",
    select(e.session_id, e.number, json_bytes(e.payload), e.plain, moment(e.created_at), s.next_event)
    .select_from(_EVENTS.outerjoin(SESSIONS, and_(s.tenant_id == e.tenant_id, s.id == e.session_id)))
    .where(_AFTER_EVENT)
    .order_by(e.session_id, e.number)
    .limit(number("limit")),
)
"""Events, and how many their session has counted; NULL where there is no such session."""

_DOCUMENT: Final = (_c.category, _c.name, _c.format)
_after_document: Final = and_(
    _c.tenant_id == TENANT,
    tuple_(*_DOCUMENT) > tuple_(text("after_category"), text("after_name"), text("after_format")),
)

DOCUMENT_PLACES: Final = fixed(
    "verify_document_places",
    select(*_DOCUMENT, byte_length(_c.body)).where(_after_document).order_by(*_DOCUMENT).limit(number("limit")),
)

DOCUMENTS: Final = fixed(
    "verify_documents",
    select(*_DOCUMENT, json_bytes(_c.body), _c.plain, moment(_c.created_at), moment(_c.updated_at))
    .where(_after_document)
    .order_by(*_DOCUMENT)
    .limit(number("limit")),
)
