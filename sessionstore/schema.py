"""The tables, as ORM classes: the one declaration that migrations, statements and DBAs' comments agree with.

Migrations build databases; these classes never do (a test compares the two catalogs). Column types carry no
processors: rows travel as the driver gives them, and `statements/mapping.py` turns them into values. `info["for"]` of
an index says what it is there for: docs/schema.md is written from it and from the comments.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    MetaData,
    SmallInteger,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator, TypeEngine, UserDefinedType

REVISION: Final = "0004"
"""The newest revision this code knows, and the oldest it can work with: see `sessionstore_schema`."""


class _PostgresJson(UserDefinedType[Any]):
    """PostgreSQL's `json`: the text as it was put in, checked to be JSON. No processors, unlike SQLAlchemy's."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "JSON"


class Instant(TypeDecorator[Any]):
    """A moment: TIMESTAMPTZ on PostgreSQL, microseconds since 1970 as INTEGER on SQLite."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        """Choose the type of a database."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))  # type: ignore[no-any-return]
        return dialect.type_descriptor(BigInteger())  # type: ignore[no-any-return]


Name: Final = Text().with_variant(Text(collation="C"), "postgresql")
"""Ids, names and keys: compared bytewise on both databases, so that order and paging are the same."""

JsonText: Final = Text().with_variant(_PostgresJson(), "postgresql")
"""Encoded JSON, kept as text. SQLAlchemy's JSON type would have numeric affinity on SQLite: 1.0 comes back as 1."""


class Base(DeclarativeBase):
    """The tables of the store."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )


class SessionRow(Base):
    """One conversation."""

    __tablename__ = "sessionstore_sessions"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="isolation boundary; '' if only one")
    id: Mapped[str] = mapped_column(Name, primary_key=True, comment="the caller's id, opaque, compared bytewise")
    user_id: Mapped[str] = mapped_column(Name, comment="whose session it is; '' if nobody's")
    model: Mapped[str] = mapped_column(Text, comment="model the session runs on; '' if unset")
    max_turns: Mapped[int] = mapped_column(BigInteger, comment="turn limit of the agent; 0 if unset")
    system_message: Mapped[str | None] = mapped_column(Text, comment="system prompt")
    title: Mapped[str | None] = mapped_column(Text, comment="title for people")
    summary: Mapped[str | None] = mapped_column(Text, comment="summary of the history")
    active_seed_id: Mapped[str | None] = mapped_column(Text, comment="seed in use")
    active_persona_id: Mapped[str | None] = mapped_column(Text, comment="persona in use")
    parent_id: Mapped[str | None] = mapped_column(Name, comment="session it was forked from; it may be gone")
    fork_position: Mapped[int | None] = mapped_column(BigInteger, comment="its next_position at the fork")
    first_position: Mapped[int] = mapped_column(BigInteger, comment="position of the oldest kept message")
    next_position: Mapped[int] = mapped_column(BigInteger, comment="next position to assign; length = next - first")
    generation: Mapped[int] = mapped_column(BigInteger, comment="version of the history; grows when it is rewritten")
    version: Mapped[int] = mapped_column(BigInteger, comment="grows by one with every change")
    next_event: Mapped[int] = mapped_column(BigInteger, comment="number of the next event")
    created_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970)")
    updated_at: Mapped[Any] = mapped_column(Instant, comment="last change, UTC (SQLite: microseconds since 1970)")
    last_accessed_at: Mapped[Any] = mapped_column(Instant, comment="last use, UTC (SQLite: microseconds since 1970)")
    activity_bucket: Mapped[int] = mapped_column(BigInteger, comment="updated_at in quarters of an hour since 1970")

    __table_args__ = (
        CheckConstraint("first_position >= 0 AND next_position >= first_position", name="positions"),
        CheckConstraint("version >= 0 AND max_turns >= 0 AND next_event >= 0", name="counters"),
        # updated_at and last_accessed_at stay out of every index: an index on either ends HOT updates for appends.
        Index(
            "ix_sessionstore_sessions_activity",
            "tenant_id",
            text("activity_bucket DESC"),
            info={"for": "pages of a tenant, prune by age"},
        ),
        Index(
            "ix_sessionstore_sessions_user_activity",
            "tenant_id",
            "user_id",
            text("activity_bucket DESC"),
            info={"for": "pages of a user"},
        ),
        Index(
            "ix_sessionstore_sessions_parent",
            "tenant_id",
            "parent_id",
            "id",
            postgresql_where=text("parent_id IS NOT NULL"),
            sqlite_where=text("parent_id IS NOT NULL"),
            info={"for": "children of a session, in order"},
        ),
        {"comment": "One row a conversation.", "postgresql_with": {"fillfactor": 85}},
    )


class MessageRow(Base):
    """One immutable message."""

    __tablename__ = "sessionstore_messages"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="as in sessionstore_sessions")
    session_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="the session it belongs to")
    position: Mapped[int] = mapped_column(BigInteger, primary_key=True, comment="0-based place, dense in a session")
    role: Mapped[str] = mapped_column(Text, comment="who the message is from")
    body: Mapped[Any] = mapped_column(JsonText, nullable=False, comment="the caller's JSON object, verbatim")
    plain: Mapped[bool] = mapped_column(Boolean, comment="safe for SQL JSON functions: check it before using them")
    message_id: Mapped[str | None] = mapped_column(Name, comment="the caller's id, unique in a session: safe retries")
    created_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970)")
    seed_id: Mapped[str | None] = mapped_column(Text, comment="copy of body.seed_id if it is a string")
    phase_reached: Mapped[str | None] = mapped_column(Text, comment="copy of body.phase_reached if it is a string")
    evaluation_passed: Mapped[bool | None] = mapped_column(Boolean, comment="copy of body.evaluation_passed if boolean")

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("position >= 0", name="position"),
        Index(
            "uq_sessionstore_messages_message_id",
            "tenant_id",
            "session_id",
            "message_id",
            unique=True,
            postgresql_where=text("message_id IS NOT NULL"),
            sqlite_where=text("message_id IS NOT NULL"),
            info={"for": "one message an id, which makes retries safe"},
        ),
        {"comment": "The messages; kept positions of a session are the range [first_position, next_position)."},
    )


class MetadataRow(Base):
    """One metadata key of a session."""

    __tablename__ = "sessionstore_metadata"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="as in sessionstore_sessions")
    session_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="the session it belongs to")
    key: Mapped[str] = mapped_column(Name, primary_key=True, comment="the caller's key")
    value: Mapped[Any] = mapped_column(JsonText, nullable=False, comment="any JSON value, verbatim")
    plain: Mapped[bool] = mapped_column(Boolean, comment="safe for SQL JSON functions: check it before using them")
    value_key: Mapped[str | None] = mapped_column(Name, comment="first 128 characters of an encoded scalar")

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            ondelete="CASCADE",
        ),
        Index(
            "ix_sessionstore_metadata_value",
            "tenant_id",
            "key",
            "value_key",
            "session_id",
            info={"for": "sessions by metadata"},
        ),
        {"comment": "Metadata of sessions, one row a key."},
    )


class EventRow(Base):
    """One thing that happened to a session and is not a message."""

    __tablename__ = "sessionstore_events"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="as in sessionstore_sessions")
    session_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="the session it happened to")
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, comment="0-based, in the order of commits")
    kind: Mapped[str] = mapped_column(Name, comment="what happened: the store's word, or the caller's own")
    generation: Mapped[int] = mapped_column(BigInteger, comment="of the session, just after it")
    first_position: Mapped[int] = mapped_column(BigInteger, comment="of the session, just after it")
    next_position: Mapped[int] = mapped_column(BigInteger, comment="of the session, just after it: the event's place")
    payload: Mapped[Any | None] = mapped_column(JsonText, comment="any JSON value, verbatim; NULL if there is none")
    plain: Mapped[bool] = mapped_column(Boolean, comment="safe for SQL JSON functions: check it before using them")
    created_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970)")

    __table_args__ = (
        ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            ondelete="CASCADE",
        ),
        CheckConstraint("number >= 0", name="number"),
        {"comment": "What happened to sessions beside their messages; a message is an event of its own."},
    )


class TombstoneRow(Base):
    """That there was a session."""

    __tablename__ = "sessionstore_tombstones"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="as in sessionstore_sessions")
    session_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="the session that is gone")
    generation: Mapped[int] = mapped_column(BigInteger, primary_key=True, comment="of the session, when it went")
    number: Mapped[int] = mapped_column(BigInteger, comment="of this event among those of the session")
    kind: Mapped[str] = mapped_column(Name, comment="'deleted' or 'evicted'")
    deleted_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970); kept for a day")

    __table_args__ = (
        CheckConstraint("kind IN ('deleted', 'evicted')", name="kind"),
        Index(
            "ix_sessionstore_tombstones_deleted_at",
            "tenant_id",
            "deleted_at",
            info={"for": "what went lately, and which tombstones are a day old"},
        ),
        {"comment": "Sessions that were deleted within a day, for those who watch them; nothing of their contents."},
    )


class DocumentRow(Base):
    """One document of the small document store."""

    __tablename__ = "sessionstore_documents"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="isolation boundary; '' if only one")
    category: Mapped[str] = mapped_column(Name, primary_key=True, comment="group of documents, may contain slashes")
    name: Mapped[str] = mapped_column(Name, primary_key=True, comment="name in its category")
    format: Mapped[str] = mapped_column(Name, primary_key=True, comment="'json' or 'markdown'")
    body: Mapped[Any] = mapped_column(JsonText, nullable=False, comment="the value; markdown is one JSON string")
    plain: Mapped[bool] = mapped_column(Boolean, comment="safe for SQL JSON functions: check it before using them")
    created_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970)")
    updated_at: Mapped[Any] = mapped_column(Instant, comment="UTC (SQLite: microseconds since 1970)")

    __table_args__ = (
        CheckConstraint("format IN ('json', 'markdown')", name="format"),
        {"comment": "Documents by category and name; JSON and markdown of one name coexist."},
    )


class MaintenanceRow(Base):
    """When a shared job last ran."""

    __tablename__ = "sessionstore_maintenance"

    tenant_id: Mapped[str] = mapped_column(Name, primary_key=True, comment="as in sessionstore_sessions")
    job: Mapped[str] = mapped_column(Name, primary_key=True, comment="name of the job")
    last_run_at: Mapped[Any] = mapped_column(Instant, comment="by the database's clock")

    __table_args__ = ({"comment": "One row a job: of many processes, one runs it in a cooldown."},)


class BackfillRow(Base):
    """How far a backfill is."""

    __tablename__ = "sessionstore_backfills"

    job: Mapped[str] = mapped_column(Name, primary_key=True, comment="name of the backfill")
    after_key: Mapped[str | None] = mapped_column(
        Name, comment="key of the last row it has seen, as JSON; NULL before the first and when finished"
    )
    total: Mapped[int | None] = mapped_column(BigInteger, comment="rows there were when it started, about")
    seen: Mapped[int] = mapped_column(BigInteger, comment="rows it has looked at")
    changed: Mapped[int] = mapped_column(BigInteger, comment="rows it has changed")
    unreadable: Mapped[int] = mapped_column(BigInteger, comment="rows it had to leave: what they hold is not JSON")
    started_at: Mapped[Any] = mapped_column(Instant, comment="by the database's clock")
    updated_at: Mapped[Any] = mapped_column(Instant, comment="of the last batch, by the database's clock")
    finished_at: Mapped[Any | None] = mapped_column(Instant, comment="NULL while it is unfinished")

    __table_args__ = ({"comment": "One row a backfill: how far it has come."},)


class SchemaRow(Base):
    """What the tables are: written by every revision, checked by the code at opening."""

    __tablename__ = "sessionstore_schema"

    id: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False, comment="always 1")
    revision: Mapped[str] = mapped_column(Name, comment="newest revision that ran")
    compatible_from: Mapped[str] = mapped_column(Name, comment="oldest code, named by its revision, that may use it")

    __table_args__ = (
        CheckConstraint("id = 1", name="one_row"),
        {"comment": "One row: the revision of these tables, and the oldest code that may use them."},
    )


TENANT_TABLES: Final = tuple(sorted(name for name, table in Base.metadata.tables.items() if "tenant_id" in table.c))
"""The tables whose rows belong to a tenant."""

TENANT_SETTING: Final = "sessionstore.tenant"
"""The setting of PostgreSQL that says whose rows a transaction may see, where row-level security is on."""

TENANT_POLICY: Final = "sessionstore_tenant"
"""The policy on each of these tables that compares a row's tenant with it."""

TENANT_CONDITION: Final = f"(tenant_id = NULLIF(current_setting('{TENANT_SETTING}'::text, true), ''::text))"
"""What it compares, as PostgreSQL gives it back.

Where a transaction has named a tenant, PostgreSQL leaves an empty text behind for the next one that names none.
"""

# ruff: noqa: S608  # what is put into the views' SQL are names that stand here


class View(NamedTuple):
    """A view for DBAs: safe on any row, unlike JSON functions on the tables.

    Attributes:
        comment: what it is for.
        columns: the comment of each column, in order.
        selects: what it selects on each database.
    """

    comment: str
    columns: dict[str, str]
    selects: dict[str, str]


_AS_SESSIONS: Final = "as in sessionstore_sessions"
_AS_MESSAGES: Final = "as in sessionstore_messages"
_UTC: Final = "UTC"


def _at(column: str) -> str:
    """A moment for people, on SQLite."""
    return f"strftime('%Y-%m-%d %H:%M:%f', {column} / 1000000.0, 'unixepoch') AS {column}"


_MESSAGE_TEXTS: Final = View(
    "One row a message, for reading with SQL: safe on any body, unlike JSON functions on the table.",
    {
        "tenant_id": _AS_SESSIONS,
        "session_id": "the session it belongs to",
        "position": "0-based place, dense in a session",
        "message_id": "the caller's id, unique in a session",
        "role": "who the message is from",
        "text": "body.content as text; NULL where it has none, or plain is false",
        "plain": "whether SQL JSON functions can read the body",
        "created_at": _UTC,
        "bytes": "size of the encoded body",
    },
    {
        "postgresql": (
            "SELECT tenant_id, session_id, position, message_id, role, "
            "CASE WHEN plain THEN body ->> 'content' END AS text, plain, "
            "created_at, octet_length(body::text) AS bytes FROM sessionstore_messages"
        ),
        # json_valid guards the whole query against one damaged row.
        "sqlite": (
            "SELECT tenant_id, session_id, position, message_id, role, "
            "CASE WHEN plain AND json_valid(body) THEN json_extract(body, '$.content') END AS text, plain, "
            f"{_at('created_at')}, length(CAST(body AS BLOB)) AS bytes "
            "FROM sessionstore_messages"
        ),
    },
)

_SESSION_FACTS: Final = View(
    "Sessions without contents: no title, summary or system message.",
    {
        **dict.fromkeys(("tenant_id", "id", "user_id", "model", "max_turns"), _AS_SESSIONS),
        **dict.fromkeys(("active_seed_id", "active_persona_id", "parent_id", "fork_position"), _AS_SESSIONS),
        **dict.fromkeys(("first_position", "next_position"), _AS_SESSIONS),
        "length": "how many messages are kept",
        **dict.fromkeys(("generation", "version"), _AS_SESSIONS),
        "created_at": _UTC,
        "updated_at": "last change, UTC",
        "last_accessed_at": "last use, UTC",
    },
    {
        "postgresql": (
            "SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, "
            "fork_position, first_position, next_position, next_position - first_position AS length, generation, "
            "version, created_at, updated_at, last_accessed_at FROM sessionstore_sessions"
        ),
        "sqlite": (
            "SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, "
            "fork_position, first_position, next_position, next_position - first_position AS length, generation, "
            f"version, {_at('created_at')}, {_at('updated_at')}, {_at('last_accessed_at')} "
            "FROM sessionstore_sessions"
        ),
    },
)

_MESSAGE_FACTS: Final = View(
    "Messages without contents: no body, but the columns that copy parts of it for filtering.",
    {
        **dict.fromkeys(("tenant_id", "session_id", "position", "message_id", "role", "plain"), _AS_MESSAGES),
        **dict.fromkeys(("seed_id", "phase_reached", "evaluation_passed"), _AS_MESSAGES),
        "created_at": _UTC,
        "bytes": "size of the encoded body",
    },
    {
        "postgresql": (
            "SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, "
            "evaluation_passed, created_at, octet_length(body::text) AS bytes FROM sessionstore_messages"
        ),
        "sqlite": (
            "SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, "
            f"evaluation_passed, {_at('created_at')}, "
            "length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages"
        ),
    },
)

VIEWS: Final = {
    "sessionstore_message_texts": _MESSAGE_TEXTS,
    "sessionstore_session_facts": _SESSION_FACTS,
    "sessionstore_message_facts": _MESSAGE_FACTS,
}
"""The views, by name. One body with U+0000 or a lone surrogate would fail a whole query without their guards."""

VERSION_TABLE: Final = "sessionstore_alembic_version"
"""Alembic's own, beside that of the service. Where a team runs our revisions in its own history, there is none."""

FACTS_VIEWS: Final = ("sessionstore_session_facts", "sessionstore_message_facts")
"""Those without contents."""
