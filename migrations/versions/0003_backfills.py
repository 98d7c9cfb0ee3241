"""A table of how far backfills are: work on rows that a revision must not do itself.

Problem: rows that must change when a column is added, or that somebody has changed by hand, are too many for one
transaction. A backfill works through them in batches, and has to remember where it was when it is killed.
Phase: expand. Code of 0002 does not know the table and is not changed by it.
Locks: none that anybody else could hold; the table is new.
Cost at 10 M rows: none; milliseconds.
Goes back: `downgrade` drops the table. What backfills have changed stays; an unfinished one starts again from the
beginning when the table is back, which changes nothing twice.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: Final = "0003"
down_revision: Final[str | None] = "0002"
branch_labels: Final[str | None] = None
depends_on: Final[str | None] = None
phase: Final = "expand"

NAME: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
INSTANT: Final = sa.BigInteger().with_variant(postgresql.TIMESTAMP(timezone=True), "postgresql")


def upgrade() -> None:
    """Make the table."""
    _set_timeouts()
    op.create_table(
        "sessionstore_backfills",
        sa.Column("job", NAME, nullable=False, comment="name of the backfill"),
        sa.Column(
            "after_key",
            NAME,
            comment="key of the last row it has seen, as JSON; NULL before the first and when finished",
        ),
        sa.Column("total", sa.BigInteger(), comment="rows there were when it started, about"),
        sa.Column("seen", sa.BigInteger(), nullable=False, comment="rows it has looked at"),
        sa.Column("changed", sa.BigInteger(), nullable=False, comment="rows it has changed"),
        sa.Column(
            "unreadable",
            sa.BigInteger(),
            nullable=False,
            comment="rows it had to leave: what they hold is not JSON",
        ),
        sa.Column("started_at", INSTANT, nullable=False, comment="by the database's clock"),
        sa.Column("updated_at", INSTANT, nullable=False, comment="of the last batch, by the database's clock"),
        sa.Column("finished_at", INSTANT, comment="NULL while it is unfinished"),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_sessionstore_backfills")),
        comment="One row a backfill: how far it has come.",
    )
    op.execute("UPDATE sessionstore_schema SET revision = '0003' WHERE id = 1")


def downgrade() -> None:
    """Drop the table."""
    _set_timeouts()
    op.drop_table("sessionstore_backfills")
    op.execute("UPDATE sessionstore_schema SET revision = '0002' WHERE id = 1")


def _set_timeouts() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '4s'")
        op.execute("SET LOCAL statement_timeout = '30s'")
