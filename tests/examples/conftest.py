"""The chat of examples/, served on loopback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio

from sessionstore import SessionRepository
from tests.examples.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def service(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service on a database of the test's own; afterwards it must have had nothing to complain of."""
    monkeypatch.setenv("SESSIONSTORE_DATABASE_URL", shared_url)
    with Service() as running:
        yield running
    assert running.complaints == []


@pytest_asyncio.fixture
async def client(service: Service) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service."""
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as one:
        yield one


@pytest_asyncio.fixture
async def elsewhere(service: Service, shared_url: str) -> AsyncIterator[SessionRepository]:
    """The library on the same database, as another process uses it: the service hears of it only from the database."""
    async with SessionRepository.connect(shared_url) as sessions:
        yield sessions
