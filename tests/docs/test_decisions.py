"""What docs/adr/ decides, where no other test would notice the opposite."""

from __future__ import annotations

import re
import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import PrunePolicy, SessionRepository, StoreSettings
from sessionstore.executors.sqlite import configure
from sessionstore.schema import Base
from tests.docs.markdown import ROOT
from tests.support.repositories import backdate, check_invariants, row_counts
from tests.support.templates import sqlite_url

SAY: Final = {"role": "user", "content": "hello"}
SESSION_FREE: Final = {"sessionstore_schema", "sessionstore_backfills"}
"""Tables that are of the database, not of a tenant."""


def test_the_tenant_leads_every_key_and_index() -> None:
    """X01, P7: see 0022."""
    for name, table in Base.metadata.tables.items():
        if name not in SESSION_FREE:
            assert next(iter(table.primary_key.columns)).name == "tenant_id", name
            assert [index.name for index in table.indexes if _first(index.expressions) != "tenant_id"] == []


def _first(expressions: Any) -> str:
    return str(getattr(expressions[0], "name", expressions[0]))


async def test_there_are_no_triggers_and_no_sequences(postgres_database: str) -> None:
    """See 0021."""
    engine = create_async_engine(postgres_database)
    async with engine.connect() as connection:
        triggers = await connection.exec_driver_sql("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
        sequences = await connection.exec_driver_sql("SELECT relname FROM pg_class WHERE relkind = 'S'")
        assert (triggers.all(), sequences.all()) == ([], [])
    await engine.dispose()


def test_the_run_time_path_sends_no_session_state() -> None:
    """See 0021: what a pooler in transaction mode would lose."""
    package = ROOT / "sessionstore"
    forbidden = re.compile(r"pg_(try_)?advisory|\bLISTEN\b|\bNOTIFY\b|\bPREPARE\b|CREATE TEMP")
    paths = [path for folder in ("statements", "units", "executors") for path in (package / folder).rglob("*.py")]
    assert len(paths) > 15
    assert [path.name for path in paths if forbidden.search(path.read_text())] == []


@pytest.fixture(params=["sqlite", "postgresql"])
def without_foreign_keys(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database in which nothing cascades."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgres_database"))

    def configured(connection: sqlite3.Connection, **options: Any) -> sqlite3.Connection:
        configure(connection, **options)
        connection.execute("PRAGMA foreign_keys = OFF")
        return connection

    monkeypatch.setattr("sessionstore.executors.engines.configure", configured)
    file: Path = request.getfixturevalue("sqlite_file")
    return sqlite_url(file)


async def test_no_delete_relies_on_the_cascade(without_foreign_keys: str) -> None:
    """X05, P5: see 0010; every way to delete a session takes its children along by itself."""
    await _drop_foreign_keys(without_foreign_keys)
    capped = StoreSettings(session_cap=3)
    async with SessionRepository.connect(without_foreign_keys, settings=capped) as sessions:
        for name in ("a", "b", "c", "evicting"):
            await sessions.create(name, user_id=name, metadata={"k": name})
            await sessions.append(name, SAY, SAY)
        assert not await sessions.exists("a")
        assert await sessions.delete("b")
        assert await sessions.delete_user("c") == 1
        await backdate(sessions, "evicting")
        assert (await sessions.prune(PrunePolicy(max_age=timedelta(minutes=1)))).total == 1
        await check_invariants(sessions)
        assert set((await row_counts(sessions)).values()) == {0}
        await sessions.create("d", metadata={"k": 1})
        await sessions.append("d", SAY)
        await sessions.delete_all()
        assert set((await row_counts(sessions)).values()) == {0}


async def _drop_foreign_keys(url: str) -> None:
    if url.startswith("sqlite"):
        return
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        for table in ("messages", "metadata"):
            name = f"sessionstore_{table}"
            await connection.exec_driver_sql(f"ALTER TABLE {name} DROP CONSTRAINT fk_{name}_sessionstore_sessions")
    await engine.dispose()
