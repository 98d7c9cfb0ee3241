"""Views without contents, for analysts who may know how much is said but not what.

Problem: the tables hold titles, summaries and bodies beside the columns that reports need, and rights on single columns
are forgotten with the next column. A role that may read two views and nothing else needs no such care.
Phase: expand. Code of 0001 does not know the views and is not changed by them.
Locks: ACCESS SHARE on the two tables while the views are made, which waits for nobody but ALTER TABLE and the like.
Cost at 10 M rows: none; milliseconds.
Goes back: `downgrade` drops the views, and with them the rights that were granted on them. No rows are lost.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0002"
down_revision: Final[str | None] = "0001"
branch_labels: Final[str | None] = None
depends_on: Final[str | None] = None
phase: Final = "expand"

VIEWS: Final = {
    "postgresql": {
        "sessionstore_session_facts": (
            "SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, "
            "fork_position, first_position, next_position, next_position - first_position AS length, generation, "
            "version, created_at, updated_at, last_accessed_at FROM sessionstore_sessions"
        ),
        "sessionstore_message_facts": (
            "SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, "
            "evaluation_passed, created_at, octet_length(body::text) AS bytes FROM sessionstore_messages"
        ),
    },
    "sqlite": {
        "sessionstore_session_facts": (
            "SELECT tenant_id, id, user_id, model, max_turns, active_seed_id, active_persona_id, parent_id, "
            "fork_position, first_position, next_position, next_position - first_position AS length, generation, "
            "version, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, "
            "strftime('%Y-%m-%d %H:%M:%f', updated_at / 1000000.0, 'unixepoch') AS updated_at, "
            "strftime('%Y-%m-%d %H:%M:%f', last_accessed_at / 1000000.0, 'unixepoch') AS last_accessed_at "
            "FROM sessionstore_sessions"
        ),
        "sessionstore_message_facts": (
            "SELECT tenant_id, session_id, position, message_id, role, plain, seed_id, phase_reached, "
            "evaluation_passed, strftime('%Y-%m-%d %H:%M:%f', created_at / 1000000.0, 'unixepoch') AS created_at, "
            "length(CAST(body AS BLOB)) AS bytes FROM sessionstore_messages"
        ),
    },
}
COMMENTS: Final = {
    "sessionstore_session_facts": "Sessions without contents: no title, summary or system message.",
    "sessionstore_message_facts": (
        "Messages without contents: no body, but the columns that copy parts of it for filtering."
    ),
}
COLUMN_COMMENTS: Final = {
    "sessionstore_session_facts": {
        **dict.fromkeys(
            (
                *("tenant_id", "id", "user_id", "model", "max_turns", "active_seed_id", "active_persona_id"),
                *("parent_id", "fork_position", "first_position", "next_position", "generation", "version"),
            ),
            "as in sessionstore_sessions",
        ),
        "length": "how many messages are kept",
        "created_at": "UTC",
        "updated_at": "last change, UTC",
        "last_accessed_at": "last use, UTC",
    },
    "sessionstore_message_facts": {
        **dict.fromkeys(
            (
                *("tenant_id", "session_id", "position", "message_id", "role", "plain"),
                *("seed_id", "phase_reached", "evaluation_passed"),
            ),
            "as in sessionstore_messages",
        ),
        "created_at": "UTC",
        "bytes": "size of the encoded body",
    },
}


def upgrade() -> None:
    """Make the views."""
    _set_timeouts()
    dialect = op.get_context().dialect.name
    for name, select in VIEWS[dialect].items():
        op.execute(f"CREATE VIEW {name} AS {select}")
        if dialect == "postgresql":
            op.execute(f"COMMENT ON VIEW {name} IS '{COMMENTS[name]}'")
            for column, comment in COLUMN_COMMENTS[name].items():
                op.execute(f"COMMENT ON COLUMN {name}.{column} IS '{comment}'")
    op.execute("UPDATE sessionstore_schema SET revision = '0002' WHERE id = 1")


def downgrade() -> None:
    """Drop the views."""
    _set_timeouts()
    op.execute("DROP VIEW sessionstore_message_facts")
    op.execute("DROP VIEW sessionstore_session_facts")
    op.execute("UPDATE sessionstore_schema SET revision = '0001' WHERE id = 1")


def _set_timeouts() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '4s'")
        op.execute("SET LOCAL statement_timeout = '30s'")
