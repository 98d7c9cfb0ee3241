"""The catalogue of bad and unusual inputs: one test, and one verdict whatever the database is."""

from __future__ import annotations

import itertools
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest
import pytest_asyncio
from sqlalchemy import make_url

from sessionstore import DocumentRepository, InvalidMessageError, SessionRepository, SessionStoreError
from tests.contract._own import dump
from tests.support import templates
from tests.support.inputs import PASSWORD, Accepted, Case, Ground, Refused, batches, bodies, ids
from tests.support.inputs_of_stores import databases, documents, metadata, numbers, times
from tests.support.repositories import check_invariants, rows, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from tests.support.postgres import Postgres

CASES = [*ids(), *bodies(), *batches(), *numbers(), *times(), *metadata(), *documents(), *databases()]
ROWS = {*range(1, 20), *range(20, 59), *range(59, 79), 81, 82, *range(85, 89)}
TENANTS = itertools.count()
TEXTS = "SELECT text FROM sessionstore_message_texts WHERE tenant_id = :tenant ORDER BY session_id, position"


@pytest.fixture(scope="module", params=["sqlite-file", "postgresql"])
def catalogue_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all cases; each has a tenant of its own."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("empty_postgres")())
    file = tmp_path_factory.mktemp("catalogue") / "sessions.db"
    return templates.sqlite_url(templates.copy_sqlite(request.getfixturevalue("sqlite_template"), file))


@pytest.fixture(scope="module")
def to_copy(sqlite_template: Path, postgres_server: Postgres, postgres_template: str) -> tuple[Path, Postgres, str]:
    """For cases that need a database of their own."""
    return sqlite_template, postgres_server, postgres_template


class Opened(NamedTuple):
    """A repository, and a connection beside it to look with."""

    sessions: SessionRepository
    beside: AsyncConnection


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(catalogue_url: str) -> AsyncIterator[Opened]:
    async with (
        SessionRepository.connect(catalogue_url) as sessions,
        sessions._shared.engine.connect() as beside,
    ):
        yield Opened(sessions, beside)


@pytest_asyncio.fixture(loop_scope="module")
async def ground(
    opened: Opened, catalogue_url: str, tmp_path: Path, to_copy: tuple[Path, Postgres, str]
) -> AsyncIterator[Ground]:
    sessions = opened.sessions.for_tenant(f"t{next(TENANTS)}")
    await sessions.append("s", *talk(3), create=True)
    documents_ = DocumentRepository(sessions._shared.engine, tenant=sessions.tenant)
    yield Ground(sessions, documents_, make_url(catalogue_url), tmp_path, *to_copy)
    await sessions.delete_all()


class Stored(NamedTuple):
    """What a tenant has, byte for byte, and what the DBA's view says of its messages."""

    rows: dict[str, list[tuple[Any, ...]]]
    texts: list[tuple[Any, ...]]

    @classmethod
    async def now(cls, sessions: SessionRepository, beside: AsyncConnection) -> Self:
        """Read it all, and check it."""
        inside = sessions.within(beside)
        await check_invariants(inside)
        found = await dump(inside)
        texts = await rows(inside, TEXTS, tenant=sessions.tenant)
        await beside.rollback()
        return cls({table: [row for row in of if row[0] == sessions.tenant] for table, of in found.items()}, texts)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("case", CASES, ids=str)
async def test_verdict(ground: Ground, opened: Opened, case: Case) -> None:
    """X07, P8, O07, H29: accepted and equal when read back, or refused by a named error and nothing stored."""
    if case.prepare is not None:
        await case.prepare(ground)
    before = await Stored.now(ground.sessions, opened.beside)
    if isinstance(case.verdict, Accepted):
        answer = await case.attempt(ground)
        assert case.verdict.value is ... or repr(answer) == repr(case.verdict.value)
        texts = (await Stored.now(ground.sessions, opened.beside)).texts
        assert texts[-1] == (None,) or not case.verdict.guarded
    else:
        with pytest.raises(SessionStoreError) as caught:
            pytest.fail(f"accepted, and gave {await case.attempt(ground)!r:.200}")
        check_error(caught.value, case.verdict)
        assert await Stored.now(ground.sessions, opened.beside) == before
    [position] = await ground.sessions.append("s", {"role": "user"})
    assert (await ground.sessions.messages("s", last=1))[0].position == position


def check_error(error: SessionStoreError, verdict: Refused) -> None:
    assert type(error) is verdict.error
    for word in verdict.words:
        assert word in str(error)
    assert PASSWORD not in "".join(traceback.format_exception(error)) + repr(error)
    if isinstance(error, InvalidMessageError):
        assert error.path == (verdict.path or error.path)
        assert error.index == (error.index if verdict.place is None else verdict.place)


def test_every_row_is_here() -> None:
    """X07: of the rows that are one test."""
    assert {case.row for case in CASES} == ROWS
    assert len({str(case) for case in CASES}) == len(CASES)
