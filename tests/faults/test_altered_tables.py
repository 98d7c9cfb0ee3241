"""Tables that somebody alters while their statements are prepared and in use."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest

from sessionstore import SessionRepository
from sessionstore.executors import postgresql
from sessionstore.executors.translate import translated
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.faults_leases import assert_nothing_held
from tests.support.invariants import connect_postgres
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

WRITERS = 4
ALTERATIONS = (
    "ALTER TABLE sessionstore_sessions ADD COLUMN added text",
    "ALTER TABLE sessionstore_messages ADD COLUMN added bigint",
    "ALTER TABLE sessionstore_sessions ALTER COLUMN title TYPE varchar",
    "ALTER TABLE sessionstore_sessions DROP COLUMN added",
    "ALTER TABLE sessionstore_messages DROP COLUMN added",
    "ALTER TABLE sessionstore_sessions ALTER COLUMN title TYPE text",
)
"""The third and the last change the type of a result, which makes every statement prepared for it invalid.

Neither writes the table anew: a transaction whose snapshot is older than such a table finds it empty, says PostgreSQL's
manual, and no migration does it.
"""


@pytest.fixture
def invalid_statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of statements that the driver found to be invalid."""
    found: list[str] = []

    def noting(error: BaseException, statement: str) -> Exception:
        if isinstance(error, asyncpg.InvalidCachedStatementError):
            found.append(statement)
        return translated(error, statement)

    monkeypatch.setattr(postgresql, "translated", noting)
    return iter([found])


async def test_altered_tables(
    postgres_database: str, invalid_statements: Iterator[list[str]], request: pytest.FixtureRequest
) -> None:
    """P4, P9: while columns come, go and change their type, no caller hears of a statement that became invalid."""
    found = next(invalid_statements)
    history = History()
    alterations = rounds(6, 60)
    over = False
    async with SessionRepository.connect(postgres_database) as repository:
        await repository.create(SHARED)
        writers = [Writer(repository, history, f"w{number}", with_ids=bool(number % 2)) for number in range(WRITERS)]
        rewrites = 0

        async def rewrite() -> None:
            nonlocal rewrites
            while not over:
                await repository.open("other", title="a title")
                await repository.append("other", *({"role": "user"},) * 3)
                await repository.fork("other", new_id="child", replace=True)
                await repository.trim("other", 1)
                assert (await repository.get("child")).title == "a title"
                assert len((await repository.snapshot("child")).messages) >= 3
                rewrites += 1

        working = [asyncio.ensure_future(writer.until(lambda: over)) for writer in writers]
        working.append(asyncio.ensure_future(rewrite()))
        somebody = await connect_postgres(postgres_database)
        await somebody.execute("SET lock_timeout = '10s'")
        for number in range(20 * alterations):
            if number >= alterations and found:
                break  # whether a statement meets an alteration is chance; but one must, or nothing was shown
            before, rewritten = [writer.done for writer in writers], rewrites
            await until(
                lambda before=before, rewritten=rewritten: (  # type: ignore[misc]
                    any(task.done() for task in working)
                    or (rewrites > rewritten and all(w.done > done for w, done in zip(writers, before, strict=True)))
                )
            )
            await somebody.execute(ALTERATIONS[number % len(ALTERATIONS)])
        await somebody.close()
        over = True
        await asyncio.gather(*working)
        await history.check(postgres_database)
        await assert_nothing_held(postgres_database, repository)
    assert history.errors == []
    assert found, "no statement became invalid, so nothing was hidden"
    acknowledged = len(history.acknowledged)
    figure(request, alterations=number, invalid=len(found), acknowledged=acknowledged, errors=0, lost=0, doubled=0)
