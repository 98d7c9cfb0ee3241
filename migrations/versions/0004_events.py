"""Tables of events, and of sessions that are gone: what those who watch sessions have to learn beside messages.

Problem: whoever follows a session sees new messages by their positions, but not that it was trimmed, rewritten or
deleted, nor in which order; and a session that is gone and made anew looks as if nothing had happened.
Phase: expand. Code of 0003 does not know the tables: what it changes has no event, and a watcher of newer code learns
of a rewritten history from its generation. A session it deletes takes its events along by the foreign key.
Locks: the foreign key takes SHARE ROW EXCLUSIVE on `sessionstore_sessions` for the moment of the commit, waited for at
most 4 s; both tables are new and empty.
Cost at 10 M rows: none; milliseconds. Sessions made before have no `created` event.
Goes back: `downgrade` drops both tables; all events are lost, the caller's own among them. `next_event` goes on.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: Final = "0004"
down_revision: Final[str | None] = "0003"
branch_labels: Final[str | None] = None
depends_on: Final[str | None] = None
phase: Final = "expand"

NAME: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT: Final = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")
JSON_TEXT: Final = sa.Text().with_variant(postgresql.JSON(), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    _set_timeouts()
    op.create_table(
        "sessionstore_events",
        sa.Column("tenant_id", NAME, nullable=False, comment="as in sessionstore_sessions"),
        sa.Column("session_id", NAME, nullable=False, comment="the session it happened to"),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="0-based, in the order of commits"),
        sa.Column("kind", NAME, nullable=False, comment="what happened: the store's word, or the caller's own"),
        sa.Column("generation", sa.BigInteger(), nullable=False, comment="of the session, just after it"),
        sa.Column("first_position", sa.BigInteger(), nullable=False, comment="of the session, just after it"),
        sa.Column(
            "next_position",
            sa.BigInteger(),
            nullable=False,
            comment="of the session, just after it: the event's place",
        ),
        sa.Column("payload", JSON_TEXT, comment="any JSON value, verbatim; NULL if there is none"),
        sa.Column(
            "plain",
            sa.Boolean(),
            nullable=False,
            comment="safe for SQL JSON functions: check it before using them",
        ),
        sa.Column("created_at", INSTANT, nullable=False, comment="UTC (SQLite: microseconds since 1970)"),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "number", name=op.f("pk_sessionstore_events")),
        sa.ForeignKeyConstraint(
            ["tenant_id", "session_id"],
            ["sessionstore_sessions.tenant_id", "sessionstore_sessions.id"],
            name=op.f("fk_sessionstore_events_sessionstore_sessions"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint("number >= 0", name=op.f("ck_sessionstore_events_number")),
        comment="What happened to sessions beside their messages; a message is an event of its own.",
    )
    op.create_table(
        "sessionstore_tombstones",
        sa.Column("tenant_id", NAME, nullable=False, comment="as in sessionstore_sessions"),
        sa.Column("session_id", NAME, nullable=False, comment="the session that is gone"),
        sa.Column("generation", sa.BigInteger(), nullable=False, comment="of the session, when it went"),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="of this event among those of the session"),
        sa.Column("kind", NAME, nullable=False, comment="'deleted' or 'evicted'"),
        sa.Column(
            "deleted_at",
            INSTANT,
            nullable=False,
            comment="UTC (SQLite: microseconds since 1970); kept for a day",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "session_id", "generation", name=op.f("pk_sessionstore_tombstones")),
        sa.CheckConstraint("kind IN ('deleted', 'evicted')", name=op.f("ck_sessionstore_tombstones_kind")),
        comment="Sessions that were deleted within a day, for those who watch them; nothing of their contents.",
    )
    op.create_index("ix_sessionstore_tombstones_deleted_at", "sessionstore_tombstones", ["tenant_id", "deleted_at"])
    op.execute("UPDATE sessionstore_schema SET revision = '0004' WHERE id = 1")


def downgrade() -> None:
    """Drop the tables."""
    _set_timeouts()
    op.drop_table("sessionstore_tombstones")
    op.drop_table("sessionstore_events")
    op.execute("UPDATE sessionstore_schema SET revision = '0003' WHERE id = 1")


def _set_timeouts() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '4s'")
        op.execute("SET LOCAL statement_timeout = '30s'")
