"""A network that goes dark: nothing arrives any more, and nobody is told. At times while a session's row is locked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest

from sessionstore import SessionRepository, StoreSettings, StoreTimeoutError, StoreUnavailableError
from sessionstore.executors.postgresql import PostgresExecutor
from tests.concurrency.verbs import ID, VERBS, body, prepare
from tests.support.faults_counts import figure, rounds
from tests.support.faults_leases import assert_nothing_leased
from tests.support.faults_proxy import Break, Proxy, Reply, Request
from tests.support.invariants import assert_sound, connect_postgres
from tests.support.repositories import callers_engine
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.concurrency.verbs import Verb

DEADLINE_SECONDS = 2.0
PATIENCE_SECONDS = 5.0
"""What a busy machine may add to a deadline."""
OTHERS_SECONDS = 10.0
"""How long another writer may wait for a row whose holder is out of reach: the server gives such a holder 5 s."""

TOGETHER = 12
END_ALL = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND application_name = 'sessionstore'"
)

NOT_LOCKING = {"evict", "prune by number"}
SHORT = {"trim", "fork over it", "append", "append with ids"}
CHOSEN = [verb for verb in VERBS if verb.name not in NOT_LOCKING and (verb.name in SHORT or rounds(0, 1))]
"""Every verb that needs the row of the session; in a short run some of them."""


def _is_ours(query: str) -> bool:
    """Not so what the driver asks about types on a new connection."""
    return query == "COMMIT" or "sessionstore_" in query


def _holding(reply: Reply) -> bool:
    """The row is locked, and will stay so until the transaction ends."""
    return reply.in_transaction and _is_ours(reply.query)


def _committed(reply: Reply) -> bool:
    return not reply.in_transaction and _is_ours(reply.query)


def _committing(request: Request) -> bool:
    return request.query == "COMMIT" if request.in_transaction else _is_ours(request.query)


BREAKS: dict[str, Callable[[Proxy], None]] = {
    "lock held": lambda proxy: proxy.once_replied(_holding, Break.DARK),
    "commit on its way": lambda proxy: proxy.once_requested(_committing, Break.DARK),
    "reply on its way": lambda proxy: proxy.once_replied(_committed, Break.DARK),
}


class Seen(NamedTuple):
    """What became of a call in the dark, and how long after its beginning another writer went on."""

    moment: str
    maybe_committed: bool
    seconds: float
    other_seconds: float


@contextlib.asynccontextmanager
async def _repository(way: str, url: str, tenant: str) -> AsyncIterator[SessionRepository]:
    if way == "connect":
        async with SessionRepository.connect(url, tenant=tenant) as opened:
            yield opened
        return
    engine = callers_engine(url)
    async with SessionRepository(engine, tenant=tenant) as opened:
        yield opened
    await engine.dispose()


async def _in_the_dark(verb: Verb, moment: str, way: str, url: str) -> Seen | None:
    """Let the network of a caller go dark at a moment of its call; None if the call has no such moment."""
    tenant = f"{verb.name} and {moment}"
    async with (
        Proxy(url) as proxy,
        _repository(way, proxy.url, tenant) as repository,
        SessionRepository.connect(url, tenant=tenant) as other,
    ):
        await prepare(other)
        await repository.exists(ID)
        BREAKS[moment](proxy)
        started = time.monotonic()
        try:
            await verb.run(_impatient(repository))
        except (StoreTimeoutError, StoreUnavailableError) as raised:
            error, ended = raised, time.monotonic()
        else:
            assert not proxy.is_dark, "it did not notice"
            return None
        assert proxy.is_dark, "it ended before"
        # It is still dark, but there is nothing left that anybody waits for.
        await asyncio.wait_for(_settled(repository), PATIENCE_SECONDS)
        other_seconds = 0.0
        if way == "connect":
            await other.append(ID, body(1), create=True)
            other_seconds = time.monotonic() - started
        proxy.lighten()
        assert await repository.append(ID, body(1), create=True)
        await assert_nothing_leased(repository)
        return Seen(moment, error.maybe_committed, ended - started, other_seconds)


def _impatient(repository: SessionRepository) -> SessionRepository:
    """The same repository for callers with a short deadline; whatever else there is to do has the time it needs."""
    other = repository.for_tenant(repository.tenant)
    other._settings = StoreSettings(operation_timeout_seconds=DEADLINE_SECONDS)
    return other


async def _settled(repository: SessionRepository) -> None:
    """Wait until nothing is under way in this process."""
    executor = repository._executor
    assert isinstance(executor, PostgresExecutor)
    await until(lambda: not executor._tasks)


@pytest.mark.parametrize("way", ["connect", "engine"])
async def test_dark_network(way: str, postgres_database: str, request: pytest.FixtureRequest) -> None:
    """P4: a call in the dark ends at its deadline, holds nothing, and whoever needs its row goes on soon after."""
    together = asyncio.Semaphore(TOGETHER)

    async def one(verb: Verb, moment: str) -> Seen | None:
        async with together:
            return await _in_the_dark(verb, moment, way, postgres_database)

    seen = await asyncio.gather(*(one(verb, moment) for verb in CHOSEN for moment in BREAKS))
    calls = [call for call in seen if call is not None]
    times = Counter(call.moment for call in calls)
    assert all(times[moment] for moment in BREAKS)
    for call in calls:
        # Before the COMMIT was sent, nothing can have happened; from then on nobody knows.
        assert call.maybe_committed == (call.moment != "lock held"), call
        assert call.seconds < DEADLINE_SECONDS + PATIENCE_SECONDS
        assert call.other_seconds < OTHERS_SECONDS
    await assert_sound(postgres_database)
    figure(request, **times, stalled=0, longest_call=round(max(call.seconds for call in calls), 2))
    figure(request, another_went_on_after=round(max(call.other_seconds for call in calls), 2))


async def test_dark_before_the_connection(postgres_database: str) -> None:
    """P4: where no connection can be made, a call ends at its deadline and nothing has happened."""
    async with Proxy(postgres_database) as proxy, SessionRepository.connect(proxy.url) as repository:
        await repository.create(ID)
        administrator = await connect_postgres(postgres_database)
        await administrator.execute(END_ALL)
        await administrator.close()
        proxy.darken()
        started = time.monotonic()
        caller = _impatient(repository)
        calls = (caller.length(ID), caller.append(ID, body(1)), caller.trim(ID, 1))
        errors = await asyncio.gather(*calls, return_exceptions=True)
        assert time.monotonic() - started < DEADLINE_SECONDS + PATIENCE_SECONDS
        for error in errors:
            assert isinstance(error, (StoreTimeoutError, StoreUnavailableError))
            assert not error.maybe_committed
        proxy.lighten()
        assert await repository.append(ID, body(1)) == [0]
        await assert_nothing_leased(repository)
