"""Databases that several may write to at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.concurrency.foreign import foreign

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.concurrency.foreign import Foreign


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
