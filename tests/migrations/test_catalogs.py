"""The migrations build exactly what the ORM classes declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sessionstore.migrate import upgrade
from sessionstore.schema import VIEWS
from tests.migrations.databases import TABLES, build_from_classes, catalog, execute

if TYPE_CHECKING:
    from pathlib import Path

UNGUARDED = VIEWS["sessionstore_message_texts"].selects["postgresql"].replace("WHEN plain", "WHEN true")


async def test_a_migrated_postgresql_equals_the_classes(postgres_database: str, postgres_empty: str) -> None:
    await build_from_classes(postgres_empty)
    migrated, declared = await catalog(postgres_database), await catalog(postgres_empty)
    assert migrated == declared
    names = [row[0] for row in migrated["relations"]]
    assert set(TABLES) < set(names)


async def test_a_migrated_sqlite_equals_the_classes(tmp_path: Path) -> None:
    one, other = (f"sqlite+aiosqlite:///{tmp_path / name}" for name in ("migrated.db", "declared.db"))
    await upgrade(one)
    await build_from_classes(other)
    migrated, declared = await catalog(one), await catalog(other)
    assert migrated == declared
    assert set(TABLES) < {row[1] for row in migrated["objects"]}


@pytest.mark.parametrize(
    ("drift", "where"),
    [
        ("ALTER TABLE sessionstore_sessions RESET (fillfactor)", "relations"),
        ("COMMENT ON TABLE sessionstore_metadata IS 'other'", "relations"),
        ("CREATE SEQUENCE stray", "relations"),
        ("COMMENT ON COLUMN sessionstore_messages.role IS NULL", "columns"),
        ('ALTER TABLE sessionstore_metadata ALTER value_key TYPE text COLLATE "default"', "columns"),
        ("ALTER TABLE sessionstore_messages ALTER role DROP NOT NULL", "columns"),
        ("ALTER TABLE sessionstore_sessions ALTER version SET DEFAULT 0", "columns"),
        ("ALTER TABLE sessionstore_messages DROP CONSTRAINT ck_sessionstore_messages_position", "constraints"),
        ("DROP INDEX ix_sessionstore_sessions_parent", "indexes"),
        (
            (
                "DROP INDEX uq_sessionstore_messages_message_id; "
                "CREATE UNIQUE INDEX uq_sessionstore_messages_message_id "
                "ON sessionstore_messages (tenant_id, session_id, message_id)"
            ),
            "indexes",
        ),
        (f"CREATE OR REPLACE VIEW sessionstore_message_texts AS {UNGUARDED}", "views"),
    ],
)
async def test_the_comparison_sees_what_drifts(postgres_database: str, drift: str, where: str) -> None:
    before = await catalog(postgres_database)
    await execute(postgres_database, *drift.split("; "))
    after = await catalog(postgres_database)
    assert before[where] != after[where]
