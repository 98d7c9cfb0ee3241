"""The parts that statements are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    ClauseElement,
    ColumnElement,
    Text,
    and_,
    literal_column,
    or_,
)

from sessionstore.dialects.base import Dialect, Statement
from sessionstore.dialects.constructs import greatest, json_bytes, param
from sessionstore.schema import Base, EventRow, Instant, MessageRow, MetadataRow, SessionRow, TombstoneRow
from sessionstore.values import SESSION_FIELDS

SESSIONS: Final = Base.metadata.tables[SessionRow.__tablename__]
MESSAGES: Final = Base.metadata.tables[MessageRow.__tablename__]
METADATA: Final = Base.metadata.tables[MetadataRow.__tablename__]
EVENTS: Final = Base.metadata.tables[EventRow.__tablename__]
TOMBSTONES: Final = Base.metadata.tables[TombstoneRow.__tablename__]

s: Final = SESSIONS.c
m: Final = MESSAGES.c
d: Final = METADATA.c
e: Final = EVENTS.c
t: Final = TOMBSTONES.c

TENANT: Final = param("tenant", Text)
SESSION: Final = param("session", Text)
NOW: Final = param("now", Instant)
BUCKET: Final = param("bucket", BigInteger)

ZERO: Final = literal_column("0", BigInteger)
ONE: Final = literal_column("1", BigInteger)

SESSION_COLUMNS: Final = tuple(s[name] for name in SESSION_FIELDS)
"""In the order of the fields of `Session`."""

MESSAGE_COLUMNS: Final = (m.position, m.role, json_bytes(m.body), m.plain, m.message_id, m.created_at)
"""In the order that `Message` expects."""

METADATA_COLUMNS: Final = (d.key, json_bytes(d.value), d.plain)

THIS_SESSION: Final = and_(s.tenant_id == TENANT, s.id == SESSION)
ITS_MESSAGES: Final = and_(m.tenant_id == TENANT, m.session_id == SESSION)
ITS_METADATA: Final = and_(d.tenant_id == TENANT, d.session_id == SESSION)
ITS_EVENTS: Final = and_(e.tenant_id == TENANT, e.session_id == SESSION)


def number(name: str) -> Any:
    """Name a BIGINT parameter."""
    return param(name, BigInteger)


def text(name: str) -> Any:
    """Name a TEXT parameter."""
    return param(name, Text)


def flag(name: str) -> Any:
    """Name a BOOLEAN parameter."""
    return param(name, Boolean)


def statement(name: str, *columns: str) -> Callable[[Callable[[Dialect], ClauseElement]], Statement]:
    """Make the decorated builder a statement of that name."""

    def made(build: Callable[[Dialect], ClauseElement]) -> Statement:
        return Statement(name, build, columns)

    return made


def fixed(name: str, construct: ClauseElement) -> Statement:
    """Make a statement that is the same construct for every database."""
    return Statement(name, lambda _: construct)


def unless_expected(column: ColumnElement[Any], expected: str) -> ColumnElement[bool]:
    """Hold if nothing was expected of a column, or just what it has."""
    return or_(number(expected).is_(None), column == number(expected))


# Never back, whatever the clock of this process says; only save sets older times.
CHANGED: Final[dict[Any, Any]] = {
    s.updated_at: greatest(s.updated_at, NOW),
    s.activity_bucket: greatest(s.activity_bucket, BUCKET),
    s.last_accessed_at: greatest(s.last_accessed_at, NOW),
    s.version: s.version + ONE,
}
"""What every change sets."""

REWRITTEN: Final[dict[Any, Any]] = {**CHANGED, s.generation: greatest(s.generation + ONE, number("generation"))}
"""What a change of history that a reader may have seen sets as well."""

ACCESSED: Final[dict[Any, Any]] = {s.last_accessed_at: greatest(s.last_accessed_at, NOW)}
