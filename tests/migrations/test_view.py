"""The view for DBAs reads every message, whatever is in its body."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import DBAPIError

from sessionstore.migrate import upgrade
from tests.migrations.databases import execute, fetch, rows_in_every_table


async def test_the_view_survives_every_body(empty_url: str) -> None:
    await upgrade(empty_url)
    await execute(empty_url, *rows_in_every_table(empty_url))
    rows = await fetch(
        empty_url,
        "SELECT tenant_id, session_id, position, message_id, role, text, bytes "
        "FROM sessionstore_message_texts ORDER BY position",
    )
    assert [row[:5] for row in rows] == [
        ("t", "s", 0, "m0", "user"),
        ("t", "s", 1, None, "user"),
        ("t", "s", 2, None, "tool"),
        ("t", "s", 3, "m3", "tool"),
    ]
    texts = [row[5] for row in rows]
    assert texts[:3] == ["héllo", None, None]
    assert texts[3].replace(" ", "") == '[{"text":"x"}]'
    assert [row[6] for row in rows] == [41, 46, 47, 44]
    plain = await fetch(empty_url, "SELECT count(*) FROM sessionstore_message_texts WHERE plain")
    assert plain == [(2,)]


async def test_the_time_of_the_view_is_utc(empty_url: str) -> None:
    await upgrade(empty_url)
    await execute(empty_url, *rows_in_every_table(empty_url))
    ((created_at,),) = await fetch(empty_url, "SELECT DISTINCT created_at FROM sessionstore_message_texts")
    assert str(created_at).startswith("2023-11-14 22:13:20.123")


async def test_what_the_guard_is_for(postgres_empty: str) -> None:
    await upgrade(postgres_empty)
    await execute(postgres_empty, *rows_in_every_table(postgres_empty))
    with pytest.raises(DBAPIError):
        await fetch(postgres_empty, "SELECT body ->> 'content' FROM sessionstore_messages")


async def test_sqlite_reads_past_a_damaged_body(sqlite_file: object) -> None:
    url = f"sqlite+aiosqlite:///{sqlite_file}"
    await execute(url, *rows_in_every_table(url))
    await execute(url, "UPDATE sessionstore_messages SET body = '{broken' WHERE position = 0")
    texts = await fetch(url, "SELECT text FROM sessionstore_message_texts ORDER BY position")
    assert texts[0] == (None,)
    assert len(texts) == 4
