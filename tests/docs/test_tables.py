"""docs/tables.md: it names every column and index there is, and its queries run whatever the bodies hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, Constraint, Index
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import ColumnCollectionConstraint

from sessionstore import DocumentRepository, PrunePolicy, SessionRepository, Transcript
from sessionstore.schema import VIEWS, Base
from tests.docs.markdown import Block, blocks, read, rows, sections

PAGE = "docs/tables.md"

NASTY: list[dict[str, Any]] = [
    {"role": "user", "content": "a refund, please"},
    {"role": "user", "content": "nul \0 here", "usage": {"total_tokens": 1}},
    {"role": "user\u200b", "content": "lone \ud800 here", "\udfff": 1, "usage": {"total_tokens": 1}},
    {"role": "assistant", "content": [{"type": "text", "text": "x"}], "usage": {"total_tokens": 12.5}},
    {"role": "assistant", "content": None, "usage": {"total_tokens": "n/a"}, "evaluation_passed": False},
    {"role": "assistant", "content": 10**400, "usage": {"total_tokens": 10**30}, "seed_id": "s\0"},
    {"role": "tool", "content": {"a": 1}, "usage": [1]},
    {"role": "tool", "usage": None, "phase_reached": "end"},
]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database on disk."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{request.getfixturevalue('sqlite_file')}"
    return str(request.getfixturevalue("postgres_database"))


async def fill(url: str) -> None:
    """Put something into every table, for every query to find."""
    async with SessionRepository.connect(url) as sessions, DocumentRepository.connect(url) as documents:
        await sessions.create("order-7", user_id="ada", metadata={"language": "de", "odd": "\0\ud800", "n": 10**400})
        await sessions.append("order-7", *NASTY)
        await sessions.fork_at("order-7", 3, new_id="fork")
        await sessions.fork("fork", new_id="fork of fork")
        await sessions.create("lost")
        await sessions.fork("lost", new_id="orphan")
        await sessions.delete("lost")
        await sessions.trim("order-7", 7)
        old = datetime.now(UTC) - timedelta(days=60)
        await sessions.save(Transcript.of("old", NASTY, updated_at=old))
        await sessions.for_tenant("other").create("empty")
        await sessions.claim("prune", cooldown_seconds=1)
        await sessions.append("order-7", {"role": "user", "content": "a refund!"})
        await documents.save_json("memory/facts", "odd", value={"x": ["\0", "\udc00", 10**400]})
        await documents.save_markdown("memory/facts", "odd", text="# Odd")


async def fetch(url: str, query: str) -> list[Any]:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as connection:
            return list((await connection.exec_driver_sql(query)).all())
    finally:
        await engine.dispose()


async def test_every_query_runs_over_the_worst_bodies(url: str) -> None:
    """P8, X07: no accepted row breaks a documented query."""
    await fill(url)
    other = "postgresql" if url.startswith("sqlite") else "sqlite"
    queries = [block for block in blocks("sql", PAGE) if other not in block.words]
    assert len(queries) > 15
    for block in queries:
        found = await fetch(url, block.code.rstrip().rstrip(";"))
        assert bool(found) != ("no-rows" in block.words), block.label


async def test_a_guarded_sum_counts_the_numbers_only(url: str) -> None:
    await fill(url)
    (guarded,) = (block for block in blocks("sql", PAGE) if "total_tokens" in block.code and _is_for(block, url))
    found = {row[0]: row[1] for row in await fetch(url, guarded.code.rstrip().rstrip(";"))}
    assert float(found["order-7"]) == 12.5
    assert not found["fork"]


async def test_the_listing_has_the_order_of_the_api(url: str) -> None:
    await fill(url)
    newest = next(block for block in blocks("sql", PAGE) if "user_id = 'ada'" in block.code)
    found = [row[0] for row in await fetch(url, newest.code.rstrip().rstrip(";"))]
    async with SessionRepository.connect(url) as sessions:
        page = await sessions.list_sessions(user_id="ada")
        assert found == [row.id for row in page.rows]
        assert (await sessions.prune(PrunePolicy(max_age=timedelta(days=30), max_sessions=None))).by_age == 1


async def test_the_index_serves_the_pages_of_a_user(url: str) -> None:
    await fill(url)
    newest = next(block for block in blocks("sql", PAGE) if "user_id = 'ada'" in block.code)
    explain = "EXPLAIN QUERY PLAN" if url.startswith("sqlite") else "EXPLAIN"
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        if not url.startswith("sqlite"):
            await connection.exec_driver_sql("SET enable_seqscan = off")  # a table of five rows needs no index
        plan = await connection.exec_driver_sql(f"{explain} {newest.code.rstrip().rstrip(';')}")
        text = "\n".join(str(row) for row in plan)
    await engine.dispose()
    assert "ix_sessionstore_sessions_user_activity" in text


def _is_for(block: Block, url: str) -> bool:
    return url.partition("+")[0] in block.words


def test_every_column_is_explained() -> None:
    explained = {heading: _first_cells(text) for heading, text in sections(read(PAGE)).items()}
    for name, table in Base.metadata.tables.items():
        columns = [column.name for column in table.columns]
        assert explained[name][: len(columns)] == columns, name


def test_every_index_and_constraint_is_explained() -> None:
    explained = sections(read(PAGE))
    for name, table in Base.metadata.tables.items():
        expected = {str(index.name): _columns_of_index(index) for index in table.indexes}
        expected |= {str(each.name): _columns_of_constraint(each) for each in table.constraints}
        listed = rows(explained[name])[len(table.columns) + 2 :]
        assert {row[0].strip("`"): row[1] for row in listed} == expected, name


def _columns_of_index(index: Index) -> str:
    columns = ", ".join(str(getattr(each, "name", None) or each) for each in index.expressions)
    partial = index.dialect_options["postgresql"]["where"] is not None
    return f"`{columns}`" + (" where not null" if partial else "")


def _columns_of_constraint(constraint: Constraint) -> str:
    if isinstance(constraint, ColumnCollectionConstraint) and not isinstance(constraint, CheckConstraint):
        return f"`{', '.join(column.name for column in constraint.columns)}`"
    return ""


@pytest.mark.parametrize("view", VIEWS)
async def test_every_column_of_a_view_is_explained(url: str, view: str) -> None:
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        columns = list((await connection.exec_driver_sql(f"SELECT * FROM {view}")).keys())  # noqa: S608  # a constant
    await engine.dispose()
    assert _first_cells(sections(read(PAGE))[f"The view {view}"]) == columns


def _first_cells(text: str) -> list[str]:
    """What the tables of a section list, as code, in their first column."""
    return [row[0].strip("`") for row in rows(text) if row[0].startswith("`")]
