<%text>"""</%text>${message}

Problem: what is wrong or missing today.
Phase: expand (safe while the code of the last release runs) or contract (one release after its expand, at the earliest).
Locks: each lock taken, on which table, for how long.
Cost at 10 M rows: seconds, WAL, disk.
Goes back: what `downgrade` does, and what it loses.

Rules, each of which has hurt somebody:
- Import nothing of the package: this file must mean the same in ten years. No shared helpers either.
- The id is the next number of four digits, and migrations/LEDGER gets a line.
- Names are not qualified: the environment sets the search path. Tables start with sessionstore_, constraints have names.
- PostgreSQL: keep the timeouts below, here too, because a team may run this in its own Alembic history.
- New columns are nullable or have a constant default. No rename, no type change: add, move the readers, drop later.
- NOT NULL and CHECK: ADD ... NOT VALID, then VALIDATE in the next revision. Foreign keys likewise.
- An index on a filled table: in `with op.get_context().autocommit_block():` DROP INDEX CONCURRENTLY IF EXISTS, since a
  failed build leaves an INVALID one, then CREATE INDEX CONCURRENTLY, in a revision of its own that can run twice.
- SQLite: op.batch_alter_table copies the table; count the rows before and after, and raise if they differ. Views that
  read the table are dropped before and made anew after it.
- No rows are moved here: data moves in bounded, committed, resumable batches outside the revision.
- The last statement writes sessionstore_schema; downgrade writes back the values of the revision before.
- Once released, never edited.

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}
<%text>"""</%text>

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision: Final = ${repr(up_revision).replace("'", '"')}
down_revision: Final[str | None] = ${repr(down_revision).replace("'", '"')}
branch_labels: Final[str | None] = ${repr(branch_labels)}
depends_on: Final[str | None] = ${repr(depends_on)}
phase: Final = "expand"


def upgrade() -> None:
    """Say what comes."""
    _set_timeouts()
    ${upgrades if upgrades else "..."}
    op.execute("UPDATE sessionstore_schema SET revision = '${up_revision}' WHERE id = 1")  # and compatible_from, in a contract


def downgrade() -> None:
    """Say what goes."""
    _set_timeouts()
    ${downgrades if downgrades else "..."}
    op.execute("UPDATE sessionstore_schema SET revision = '${down_revision}' WHERE id = 1")


def _set_timeouts() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '4s'")
        op.execute("SET LOCAL statement_timeout = '30s'")
