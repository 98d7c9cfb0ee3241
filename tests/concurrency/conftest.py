"""Databases that several may write to at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.concurrency.foreign import foreign
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.concurrency.foreign import Foreign


@pytest.fixture(params=["sqlite-file", "postgresql"])
def shared_url(request: pytest.FixtureRequest) -> str:
    """A database that others can write to as well; one in memory is ours alone."""
    if request.param == "sqlite-file":
        return sqlite_url(request.getfixturevalue("sqlite_file"))
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
async def somebody(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Foreign]:
    """Another client of that database, with an open transaction."""
    async with foreign(shared_url, monkeypatch) as other:
        yield other


@pytest.fixture
async def somebody_on_postgres(postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Foreign]:
    """Another client of the test's PostgreSQL database, with an open transaction."""
    async with foreign(postgres_database, monkeypatch) as other:
        yield other
