"""Replies, and requests, that are lost on the way between the store and PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository, StoreUnavailableError
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer, messages_of
from tests.support.faults_leases import assert_nothing_held
from tests.support.faults_proxy import Break, Proxy, Reply, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


@pytest.fixture
async def proxy(postgres_database: str) -> AsyncIterator[Proxy]:
    """A way to the test's database that can break."""
    async with Proxy(postgres_database) as way:
        yield way


@pytest.fixture
async def repository(proxy: Proxy) -> AsyncIterator[SessionRepository]:
    """A repository that goes this way, with a connection."""
    async with SessionRepository.connect(proxy.url) as opened:
        await opened.create(SHARED)
        yield opened


def _is_commit(reply: Reply) -> bool:
    return not reply.in_transaction and _commits(reply.query)


def _asks_to_commit(request: Request) -> bool:
    return request.query == "COMMIT" or (not request.in_transaction and _commits(request.query))


def _commits(query: str) -> bool:
    """Not so what the driver asks about types on a new connection."""
    return query == "COMMIT" or "INSERT INTO sessionstore_messages" in query


LOSSES: dict[str, Callable[[Proxy], None]] = {
    "reply": lambda proxy: proxy.once_replied(_is_commit, Break.CUT),
    "request": lambda proxy: proxy.once_requested(_asks_to_commit, Break.CUT),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_with_ids(
    loss: str, proxy: Proxy, repository: SessionRepository, postgres_database: str, request: pytest.FixtureRequest
) -> None:
    """P3: an append with ids whose commit, or the reply to it, is lost is repeated inside: once stored, no error."""
    history = History()
    writer = Writer(repository, history, "w", with_ids=True)
    await writer.append()
    losses = rounds(10, 100)
    for _ in range(losses):
        LOSSES[loss](proxy)
        assert await writer.append()
    assert proxy.broken == losses
    assert history.errors == []
    await history.check(postgres_database)
    await assert_nothing_held(postgres_database, repository)
    figure(request, lost_on_the_way=losses, errors=0, lost=0, doubled=0)


@pytest.mark.parametrize("loss", LOSSES)
async def test_without_ids(
    loss: str, proxy: Proxy, repository: SessionRepository, postgres_database: str, request: pytest.FixtureRequest
) -> None:
    """P3: without ids the caller hears that it may have happened; it is stored once or not at all, never repeated."""
    history = History()
    writer = Writer(repository, history, "w", with_ids=False)
    losses = rounds(10, 100)
    for _ in range(losses):
        LOSSES[loss](proxy)
        assert not await writer.append()
    assert proxy.broken == losses
    assert history.errors == ["StoreUnavailableError"] * losses
    stored = (await history.check(postgres_database)).bodies(SHARED)
    happened = {body["batch"] for body in stored} & history.unknown
    assert len(happened) == (losses if loss == "reply" else 0)
    await assert_nothing_held(postgres_database, repository)
    figure(request, lost_on_the_way=losses, maybe_committed=losses, happened=len(happened), doubled=0)


async def test_joined_appends(
    proxy: Proxy, repository: SessionRepository, postgres_database: str, request: pytest.FixtureRequest
) -> None:
    """P3: of appends that left together each caller hears that it may have happened, and none is stored twice."""
    history = History()
    callers = 16
    for number in range(rounds(3, 20)):
        commits = itertools.count()
        # The first caller's append leaves alone; the second is that of all who came meanwhile.
        proxy.once_replied(lambda reply, commits=commits: _is_commit(reply) and next(commits) == 1, Break.CUT)  # type: ignore[misc]
        batches = [f"{number}-{caller}" for caller in range(callers)]
        ended = await asyncio.gather(
            *(repository.append(SHARED, *messages_of(batch, 2)) for batch in batches), return_exceptions=True
        )
        alone, *together = ended
        assert isinstance(alone, list)
        history.acknowledged[batches[0]] = alone
        assert all(isinstance(error, StoreUnavailableError) and error.maybe_committed for error in together), together
        history.unknown |= set(batches[1:])
    stored = (await history.check(postgres_database)).bodies(SHARED)
    assert {body["batch"] for body in stored} >= history.unknown
    await assert_nothing_held(postgres_database, repository)
    figure(request, joined=len(history.unknown), doubled=0, broken=proxy.broken)
