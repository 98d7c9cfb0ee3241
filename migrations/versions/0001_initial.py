"""The first tables: sessions, messages, metadata, documents, maintenance, the schema row and the view of messages.

Problem: there is nothing yet.
Phase: expand (new tables only: no code that runs beside it knows them).
Locks: none that anybody else could hold; every object is new. CREATE INDEX without CONCURRENTLY is safe on an empty
table that no other transaction can see.
Cost at 10 M rows: none; it runs before the first row. Milliseconds.
Goes back: `downgrade` drops everything, rows included. There is no way to keep them below this revision.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: Final = "0001"
down_revision: Final[str | None] = None
branch_labels: Final[str | None] = None
depends_on: Final[str | None] = None
phase: Final = "expand"

# Bytewise comparison on both databases: SQLite's default, PostgreSQL's "C".
NAME: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
# Encoded JSON kept as text: SQLAlchemy's JSON type has numeric affinity on SQLite and turns 1.0 into 1.
JSON_TEXT: Final = sa.Text().with_variant(postgresql.JSON(), "postgresql")
INSTANT: Final = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")

BOUNDARY: Final = "isolation boundary; '' if only one"
AS_SESSIONS: Final = "as in sessionstore_sessions"
GUARD: Final = "safe for SQL JSON functions: check it before using them"
UTC: Final = "UTC (SQLite: microseconds since 1970)"

VIEW: Final = {
    "postgresql": (
        "CREATE VIEW sessionstore_message_texts AS "
        "SELECT tenant_id, session_id, position, message_id, role, "
        "CASE WHEN plain THEN body ->> 'content' END AS text, plain, "
        "created_at, octet_length(body::text) AS bytes FROM sessionstore_messages"
    ),
    "sqlite": (
        "CREATE VIEW sessionstore_message_texts AS "
        "SELECT tenant_id, session_id, position, message_id, role, "
        "CASE WHEN plain AND json_valid(body) THEN json_extract(body, '$.content') END AS text, plain, "
        "strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, "
        "length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages"
    ),
}
VIEW_COMMENT: Final = "One row a message, for reading with SQL: safe on any body, unlike JSON functions on the table."
VIEW_COLUMN_COMMENTS: Final = {
    "tenant_id": AS_SESSIONS,
    "session_id": "the session it belongs to",
    "position": "0-based place, dense in a session",
    "message_id": "the caller's id, unique in a session",
    "role": "who the message is from",
    "text": "body.content as text; NULL where it has none, or plain is false",
    "plain": "whether SQL JSON functions can read the body",
    "created_at": "UTC",
    "bytes": "size of the encoded body",
}


def upgrade() -> None:
    """Build everything, on SQLite and PostgreSQL alike."""
    _set_timeouts()
    _create_sessions()
    _create_messages()
    _create_metadata()
    _create_documents()
    _create_maintenance()
    _create_view()
    _create_schema_row()


def downgrade() -> None:
    """Drop everything, children first."""
    _set_timeouts()
    op.execute("DROP VIEW sessionstore_message_texts")
    for table in ("schema", "maintenance", "documents", "metadata", "messages", "sessions"):
        op.drop_table(f"sessionstore_{table}")


def _set_timeouts() -> None:
    # Here too, because a team that runs these revisions in its own Alembic history brings its own env.py.
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '4s'")
        op.execute("SET LOCAL statement_timeout = '30s'")


def _create_sessions() -> None:
    op.create_table(
        "sessionstore_sessions",
        sa.Column("tenant_id", NAME, nullable=False, comment=BOUNDARY),
        sa.Column("id", NAME, nullable=False, comment="the caller's id, opaque, compared bytewise"),
        sa.Column("user_id", NAME, nullable=False, comment="whose session it is; '' if nobody's"),
        sa.Column("model", sa.Text(), nullable=False, comment="model the session runs on; '' if unset"),
        sa.Column("max_turns", sa.BigInteger(), nullable=False, comment="turn limit of the agent; 0 if unset"),
        sa.Column("system_message", sa.Text(), comment="system prompt"),
        sa.Column("title", sa.Text(), comment="title for people"),
        sa.Column("summary", sa.Text(), comment="summary of the history"),
        sa.Column("active_seed_id", sa.Text(), comment="seed in use"),
        sa.Column("active_persona_id", sa.Text(), comment="persona in use"),
        sa.Column("parent_id", NAME, comment="session it was forked from; it may be gone"),
        sa.Column("fork_position", sa.BigInteger(), comment="its next_position at the fork"),
        sa.Column("first_position", sa.BigInteger(), nullable=False, comment="position of the oldest kept message"),
        sa.Column(
            "next_position",
            sa.BigInteger(),
            nullable=False,
            comment="next position to assign; length = next - first",
        ),
        sa.Column(
            "generation",
            sa.BigInteger(),
            nullable=False,
            comment="version of the history; grows when it is rewritten",
        ),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="grows by one with every change"),
        sa.Column("next_event", sa.BigInteger(), nullable=False, comment="number of the next event"),
        sa.Column("created_at", INSTANT, nullable=False, comment=UTC),
        sa.Column("updated_at", INSTANT, nullable=False, comment=f"last change, {UTC}"),
        sa.Column("last_accessed_at", INSTANT, nullable=False, comment=f"last use, {UTC}"),
        sa.Column(
            "activity_bucket",
            sa.BigInteger(),
            nullable=False,
            comment="updated_at in quarters of an hour since 1970",
        ),
        *_primary_key_here("sessionstore_sessions", "tenant_id", "id"),
        sa.CheckConstraint(
            "first_position >= 0 AND next_position >= first_position",
            name=op.f("ck_sessionstore_sessions_positions"),
        ),
        sa.CheckConstraint(
            "version >= 0 AND max_turns >= 0 AND next_event >= 0",
            name=op.f("ck_sessionstore_sessions_counters"),
        ),
        comment="One row a conversation.",
        postgresql_with={"fillfactor": 85},
    )
    _index_sessions()
    _primary_key_last("sessionstore_sessions", "tenant_id", "id")


def _primary_key_here(table: str, *columns: str) -> list[sa.PrimaryKeyConstraint]:
    """Make the primary key with its table, where it cannot be added later: on SQLite."""
    if op.get_context().dialect.name == "postgresql":
        return []
    return [sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))]


def _primary_key_last(table: str, *columns: str) -> None:
    """Make the primary key after the other indexes, on PostgreSQL.

    Until a table has statistics, all indexes that begin with tenant_id cost the planner the same, and of equals it
    takes the one made last. A plan that was kept from then read every session of the tenant for each append.
    """
    if op.get_context().dialect.name == "postgresql":
        op.create_primary_key(op.f(f"pk_{table}"), table, list(columns))


def _index_sessions() -> None:
    # updated_at and last_accessed_at stay out of every index: an index on either ends HOT updates for appends.
    op.create_index(
        "ix_sessionstore_sessions_activity",
        "sessionstore_sessions",
        ["tenant_id", sa.text("activity_bucket DESC")],
    )
    op.create_index(
        "ix_sessionstore_sessions_user_activity",
        "sessionstore_sessions",
        ["tenant_id", "user_id", sa.text("activity_bucket DESC")],
    )
    op.create_index(
        "ix_sessionstore_sessions_parent",
        "sessionstore_sessions",
        ["tenant_id", "parent_id", "id"],
        postgresql_where=sa.text("parent_id IS NOT NULL"),
        sqlite_where=sa.text("parent_id IS NOT NULL"),
    )


def _create_messages() -> None:
    op.create_table(
        "sessionstore_messages",
        sa.Column("tenant_id", NAME, nullable=False, comment=AS_SESSIONS),
        sa.Column("session_id", NAME, nullable=False, comment="the session it belongs to"),
        sa.Column("position", sa.BigInteger(), nullable=False, comment="0-based place, dense in a session"),
        sa.Column("role", sa.Text(), nullable=False, comment="who the message is from"),
        sa.Column("body", JSON_TEXT, nullable=False, comment="the caller's JSON object, verbatim"),
        sa.Column("plain", sa.Boolean(), nullable=False, comment=GUARD),
        sa.Column("message_id", NAME, comment="the caller's id, unique in a session: safe retries"),
        sa.Column("created_at", INSTANT, nullable=False, comment=UTC),
        sa.Column("seed_id", sa.Text(), comment="copy of body.seed_id if it is a string"),
        sa.Column("phase_reached", sa.Text(), comment="copy of body.phase_reached if it is a string"),
        sa.Column("evaluation_passed", sa.Boolean(), comment="copy of body.evaluation_passed if boolean"),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "position", name=op.f("pk_sessionstore_messages")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            name=op.f("fk_sessionstore_messages_sessionstore_sessions"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("position >= 0", name=op.f("ck_sessionstore_messages_position")),
        comment="The messages; kept positions of a session are the range [first_position, next_position).",
    )
    op.create_index(
        "uq_sessionstore_messages_message_id",
        "sessionstore_messages",
        ["tenant_id", "session_id", "message_id"],
        unique=True,
        postgresql_where=sa.text("message_id IS NOT NULL"),
        sqlite_where=sa.text("message_id IS NOT NULL"),
    )


def _create_metadata() -> None:
    op.create_table(
        "sessionstore_metadata",
        sa.Column("tenant_id", NAME, nullable=False, comment=AS_SESSIONS),
        sa.Column("session_id", NAME, nullable=False, comment="the session it belongs to"),
        sa.Column("key", NAME, nullable=False, comment="the caller's key"),
        sa.Column("value", JSON_TEXT, nullable=False, comment="any JSON value, verbatim"),
        sa.Column("plain", sa.Boolean(), nullable=False, comment=GUARD),
        sa.Column("value_key", NAME, comment="first 128 characters of an encoded scalar"),
        *_primary_key_here("sessionstore_metadata", "tenant_id", "session_id", "key"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            name=op.f("fk_sessionstore_metadata_sessionstore_sessions"),
            ondelete="CASCADE",
        ),
        comment="Metadata of sessions, one row a key.",
    )
    op.create_index(
        "ix_sessionstore_metadata_value",
        "sessionstore_metadata",
        ["tenant_id", "key", "value_key", "session_id"],
    )
    _primary_key_last("sessionstore_metadata", "tenant_id", "session_id", "key")


def _create_documents() -> None:
    op.create_table(
        "sessionstore_documents",
        sa.Column("tenant_id", NAME, nullable=False, comment=BOUNDARY),
        sa.Column("category", NAME, nullable=False, comment="group of documents, may contain slashes"),
        sa.Column("name", NAME, nullable=False, comment="name in its category"),
        sa.Column("format", NAME, nullable=False, comment="'json' or 'markdown'"),
        sa.Column("body", JSON_TEXT, nullable=False, comment="the value; markdown is one JSON string"),
        sa.Column("plain", sa.Boolean(), nullable=False, comment=GUARD),
        sa.Column("created_at", INSTANT, nullable=False, comment=UTC),
        sa.Column("updated_at", INSTANT, nullable=False, comment=UTC),
        sa.PrimaryKeyConstraint("tenant_id", "category", "name", "format", name=op.f("pk_sessionstore_documents")),
        sa.CheckConstraint("format IN ('json', 'markdown')", name=op.f("ck_sessionstore_documents_format")),
        comment="Documents by category and name; JSON and markdown of one name coexist.",
    )


def _create_maintenance() -> None:
    op.create_table(
        "sessionstore_maintenance",
        sa.Column("tenant_id", NAME, nullable=False, comment=AS_SESSIONS),
        sa.Column("job", NAME, nullable=False, comment="name of the job"),
        sa.Column("last_run_at", INSTANT, nullable=False, comment="by the database's clock"),
        sa.PrimaryKeyConstraint("tenant_id", "job", name=op.f("pk_sessionstore_maintenance")),
        comment="One row a job: of many processes, one runs it in a cooldown.",
    )


def _create_view() -> None:
    dialect = op.get_context().dialect.name
    op.execute(VIEW[dialect])
    if dialect == "postgresql":
        op.execute(f"COMMENT ON VIEW sessionstore_message_texts IS '{VIEW_COMMENT}'")
        for column, comment in VIEW_COLUMN_COMMENTS.items():
            quoted = comment.replace("'", "''")
            op.execute(f"COMMENT ON COLUMN sessionstore_message_texts.{column} IS '{quoted}'")


def _create_schema_row() -> None:
    op.create_table(
        "sessionstore_schema",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False, comment="always 1"),
        sa.Column("revision", NAME, nullable=False, comment="newest revision that ran"),
        sa.Column(
            "compatible_from",
            NAME,
            nullable=False,
            comment="oldest code, named by its revision, that may use it",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessionstore_schema")),
        sa.CheckConstraint("id = 1", name=op.f("ck_sessionstore_schema_one_row")),
        comment="One row: the revision of these tables, and the oldest code that may use them.",
    )
    op.execute("INSERT INTO sessionstore_schema (id, revision, compatible_from) VALUES (1, '0001', '0001')")
