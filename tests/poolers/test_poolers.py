"""The whole library through a real PgBouncer, whose two connections of the server change hands all the time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from sessionstore import (
    InvalidArgumentError,
    SessionRepository,
    SessionStoreError,
    StoreUnavailableError,
)
from sessionstore.dialects.base import Statement
from sessionstore.executors import base, postgresql, servers
from sessionstore.units.unit import Kind, Steps, Unit
from tests.concurrency.foreign import foreign
from tests.concurrency.verbs import APPENDED, HISTORY, ID, bodies, prepare
from tests.concurrency.verbs import VERBS as REWRITING
from tests.docs.markdown import blocks
from tests.points import verbs
from tests.points.behind import behind
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.invariants import assert_sound, connect_postgres
from tests.support.pgbouncer import POOL, PgBouncer
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from sessionstore.dialects.base import Dialect
    from tests.concurrency.verbs import Verb
    from tests.points.verbs import Case
    from tests.support.postgres import Postgres

TASKS = 32


@pytest.fixture
def url(pooler: PgBouncer, postgres_database: str) -> str:
    """A database of the test's own, through the pooler."""
    return pooler.url(postgres_database)


@pytest.fixture(scope="session")
def session_pooler(pooler: PgBouncer, postgres_server: Postgres) -> Iterator[PgBouncer]:
    """Another one, in session mode; like the first it may be missing."""
    with PgBouncer(postgres_server, "session") as running:
        yield running


# --- every verb -------------------------------------------------------------------------------------------------------


async def _answer(case: Case, repository: SessionRepository) -> Any:
    try:
        return await case.answer(repository)
    except SessionStoreError as error:
        return verbs.plain(error)


async def _answers(url: str, direct: str) -> list[Any]:
    """What each verb gives and leaves, each beginning with the same rows."""
    found = []
    async with SessionRepository.connect(url) as repository:
        tables = await behind(direct, repository)
        if not await tables.saved():
            await verbs.prepare(repository)
            await tables.save()
        for case in verbs.CASES:
            await tables.begin()
            answer = await _answer(case, repository)
            await tables.idle()
            found.append((case.name, answer, await tables.state()))
        await tables.begin()
        await tables.close()
    return found


async def test_every_verb(url: str, postgres_database: str) -> None:
    """P2, P4: each gives and leaves what it does without a pooler."""
    through = await _answers(url, postgres_database)
    direct = await _answers(postgres_database, postgres_database)
    assert len(through) == len(verbs.CASES)
    for ours, theirs in zip(through, direct, strict=True):
        assert ours == theirs


async def test_every_verb_in_session_mode(session_pooler: PgBouncer, postgres_database: str) -> None:
    """P2, P4: `?pooler=session` is a server that refuses settings in the first packet."""
    through = await _answers(session_pooler.url(postgres_database), postgres_database)
    assert through == await _answers(postgres_database, postgres_database)


def callers_engine(pooler: PgBouncer, database: str) -> Any:
    """As the documentation says that a service makes its own."""
    (block,) = (block for block in blocks("python", "docs/operations.md") if "prepared_statement" in block.code)
    names: dict[str, Any] = {"DATABASE_URL": pooler.url(database, say=False)}
    exec(block.code, names)  # noqa: S102  # of our own documentation
    return names["engine"]


@pytest.mark.parametrize("way", ["engine", "connection", "session"])
async def test_an_engine_of_the_callers(pooler: PgBouncer, postgres_database: str, way: str) -> None:
    """P2, P4: with what the documentation says to give it, on several connections at once."""
    engine = callers_engine(pooler, postgres_database)
    repository = SessionRepository(engine)

    async def turn(number: int) -> None:
        if way == "engine":
            await _converse(repository, f"s{number}")
            return
        async with AsyncSession(engine) if way == "session" else engine.connect() as transaction:
            await _converse(repository.within(transaction), f"s{number}")
            await transaction.commit()

    try:
        await asyncio.gather(*(turn(number) for number in range(6)))
        assert [await repository.length(f"s{number}") for number in range(6)] == [2] * 6
    finally:
        await engine.dispose()
    await assert_sound(postgres_database)


async def _converse(sessions: SessionRepository, session_id: str) -> None:
    """Statements of every kind: with arrays, in transactions, reads of one moment."""
    for at in range(5):
        await sessions.append(session_id, *bodies([1, 2, 3]), create=True)
        await sessions.trim(session_id, 2)
        await sessions.set_metadata(session_id, {"k": at, "l": [at]})
        assert (await sessions.snapshot(session_id)).session.metadata["k"] == at


# --- at once ----------------------------------------------------------------------------------------------------------


async def test_many_appends_at_once(url: str, postgres_database: str) -> None:
    """P2: 32 tasks on one session and on their own: every append is where it was said to be, once."""
    history, batches = History(), rounds(8, 40)
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED)
        writers = [Writer(repository, history, f"w{number}", with_ids=number % 3 == 0) for number in range(TASKS)]

        async def write(writer: Writer, number: int) -> None:
            await writer.until(lambda: writer.done >= batches)
            for _ in range(batches):
                await repository.append(f"own {number}", *bodies([1, 2]), create=True)

        await asyncio.gather(*(write(writer, number) for number, writer in enumerate(writers)))
        assert [await repository.length(f"own {number}") for number in range(TASKS)] == [2 * batches] * TASKS
    stored = await history.check(postgres_database)
    assert history.errors == []
    assert len(history.acknowledged) == TASKS * batches
    assert stored.sessions["", SHARED].next == sum(len(places) for places in history.acknowledged.values())


_WAITING = [verb for verb in REWRITING if verb.name in {"trim", "truncate", "compact", "save", "fork", "append"}]


@pytest.mark.parametrize("verb", _WAITING, ids=str)
async def test_behind_an_append(url: str, postgres_database: str, verb: Verb, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: a verb that had to wait for an append that is not committed yet works on what that left."""
    async with (
        foreign(postgres_database, monkeypatch) as somebody,
        SessionRepository.connect(url) as repository,
    ):
        await prepare(repository)
        await somebody.append(ID, *bodies(APPENDED))
        task = asyncio.ensure_future(verb.run(repository))
        await somebody.waited_for(task)
        await somebody.commit()
        await task
        stored = await assert_sound(postgres_database)
        assert [kept["n"] for kept in stored.bodies(ID)] == verb.left([*HISTORY, *APPENDED], True)


_ALTERATIONS = (
    "ALTER TABLE sessionstore_sessions ADD COLUMN added text",
    "ALTER TABLE sessionstore_sessions ALTER COLUMN title TYPE varchar(10000)",
    "ALTER TABLE sessionstore_sessions DROP COLUMN added",
    "ALTER TABLE sessionstore_sessions ALTER COLUMN title TYPE text",
)


def _further(writers: list[Writer]) -> Callable[[], bool]:
    """Whether each writer has been acknowledged something since."""
    before = [writer.done for writer in writers]
    return lambda: all(writer.done > done for writer, done in zip(writers, before, strict=True))


async def test_altered_tables(url: str, postgres_database: str) -> None:
    """P4, P9: while columns come, go and change their type, no caller hears of it."""
    history, over = History(), False
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED, title="a title")
        writers = [Writer(repository, history, f"w{number}", with_ids=bool(number % 2)) for number in range(4)]

        async def read() -> None:
            while not over:
                # No snapshot: to a moment before it, PostgreSQL shows a table that was rewritten as empty.
                assert (await repository.get(SHARED)).title == "a title"
                await repository.messages(SHARED, last=3)

        working = [asyncio.ensure_future(writer.until(lambda: over)) for writer in writers]
        working.append(asyncio.ensure_future(read()))
        somebody = await connect_postgres(postgres_database)
        await somebody.execute("SET lock_timeout = '10s'")
        for number in range(rounds(8, 40)):
            await somebody.execute(_ALTERATIONS[number % len(_ALTERATIONS)])
            await until(_further(writers))
        over = True
        await asyncio.gather(*working)
        await somebody.close()
    await history.check(postgres_database)
    assert history.errors == []


@contextlib.contextmanager
def one_try(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no pause fit into a deadline: what fails is told at once as what it is, and no clock decides."""
    with monkeypatch.context() as patched:
        patched.setattr(base, "RETRY_FIRST_SECONDS", math.inf)
        yield


async def test_a_pooler_that_is_killed(
    pooler: PgBouncer,
    url: str,
    postgres_database: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P3, P4: callers get errors of ours that tell the truth, and the next call works as soon as it is back."""
    history, over = History(), False
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED)
        writers = [Writer(repository, history, f"w{number}", with_ids=bool(number % 2)) for number in range(8)]
        working = [asyncio.ensure_future(writer.until(lambda: over)) for writer in writers]
        for _ in range(rounds(3, 20)):
            await until(_further(writers))
            pooler.stop()
            pooler.start()
        over = True
        await asyncio.gather(*working)
        pooler.stop()
        try:
            with one_try(monkeypatch), pytest.raises(StoreUnavailableError):
                await repository.get(SHARED)
        finally:
            pooler.start()
        assert (await repository.get(SHARED)).length > 0
    await history.check(postgres_database)
    figure(request, errors=len(history.errors))


# --- what is said of the session --------------------------------------------------------------------------------------


async def test_without_the_setting(pooler: PgBouncer, postgres_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P12: a pooler that nobody told us of refuses our settings; the error says what is missing."""
    url = pooler.url(postgres_database, say=False)
    with one_try(monkeypatch), pytest.raises(StoreUnavailableError, match=r"\?pooler=transaction"):
        await SessionRepository.connect(url).__aenter__()


_NOT_OURS = re.compile("lost what this connection prepared")


async def test_prepared_statements_need_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: with names, as the driver gives them by default, a statement is looked for where it never was."""
    monkeypatch.setattr(servers, "UNNAMED", {})
    found: list[BaseException | None] = []
    try:
        async with SessionRepository.connect(url) as repository:
            calls = (_converse(repository, f"s{number}") for number in range(8))
            found += await asyncio.gather(*calls, return_exceptions=True)
    except SessionStoreError as error:  # of opening
        found.append(error)
    # It is not there, or another of that name is. Whoever found another's may tell of anything.
    assert any(isinstance(each, SessionStoreError) and _NOT_OURS.search(str(each)) for each in found), found


def _asking(kind: Kind, name: str) -> Unit[str]:
    statement = Statement("asking", lambda _: text(f"SELECT current_setting('{name}', true)"))

    def steps(_db: Dialect) -> Steps[str]:
        return str((yield statement())[0][0])

    return Unit("asking", kind, steps)


async def test_transactions_have_their_timeouts(url: str) -> None:
    """P4: by SET LOCAL, in the round trip that begins them; a statement of its own has what its role has."""
    async with SessionRepository.connect(url) as repository:
        for kind in (Kind.TRANSACTION, Kind.SNAPSHOT):
            assert await repository._run(_asking(kind, "lock_timeout")) == "3s"
            assert await repository._run(_asking(kind, "idle_in_transaction_session_timeout")) == "5s"
        assert await repository._run(_asking(Kind.READ, "lock_timeout")) == "0"
        assert await repository._run(_asking(Kind.READ, "application_name")) == "sessionstore"


async def test_round_trips(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P10: settings cost none."""
    sent: list[str] = []

    async def counted(run: Any, sending: Any, name: str, **options: Any) -> Any:
        sent.append(name)
        return await real(run, sending, name, **options)

    async with SessionRepository.connect(url) as repository:
        await prepare(repository)
        real = postgresql._Run._send
        monkeypatch.setattr(postgresql._Run, "_send", counted)
        await repository.trim(ID, 2)
        await repository.append(ID, *bodies([1, 2]))
        assert sent == ["begin", "access", "trim", "delete_range", "commit", "append"]


async def test_session_mode_has_its_settings(session_pooler: PgBouncer, postgres_database: str) -> None:
    """P4: for the session, which is ours there."""
    async with SessionRepository.connect(session_pooler.url(postgres_database)) as repository:
        assert await repository._run(_asking(Kind.READ, "lock_timeout")) == "3s"
        assert await repository._run(_asking(Kind.READ, "idle_in_transaction_session_timeout")) == "5s"


@contextlib.asynccontextmanager
async def _every_connection(pooler: PgBouncer, database: str) -> AsyncIterator[list[Any]]:
    """A transaction on each of the pooler's connections of the server."""
    async with contextlib.AsyncExitStack() as stack:
        made = []
        for _ in range(POOL):
            connection = await connect_postgres(pooler.url(database, say=False))
            stack.push_async_callback(connection.close)
            await connection.execute("BEGIN")
            made.append(connection)
        yield made


_PREPARED_BEFORE = "SELECT name FROM pg_prepared_statements WHERE prepare_time < transaction_timestamp()"


async def test_nothing_is_left_behind(pooler: PgBouncer, url: str, postgres_database: str) -> None:
    """P4: what others find on the server's connections afterwards is what they would find without us."""
    names = ("jit", "lock_timeout", "idle_in_transaction_session_timeout", "search_path", "sessionstore.tenant")
    ask = "SELECT " + ", ".join(f"current_setting('{name}', true)" for name in names)
    direct = await connect_postgres(postgres_database)
    [expected] = await direct.fetch(ask)
    await direct.close()
    async with SessionRepository.connect(url) as repository:
        await asyncio.gather(*(_converse(repository, f"s{number}") for number in range(8)))
    async with _every_connection(pooler, postgres_database) as connections:
        pids = set()
        for connection in connections:
            pids.add(await connection.fetchval("SELECT pg_backend_pid()"))
            assert await connection.fetch(ask) == [expected]
            assert await connection.fetch(_PREPARED_BEFORE) == []
    assert len(pids) == POOL


async def test_an_unknown_pooler(postgres_database: str) -> None:
    """P12: refused before anything is sent."""
    for value in ("statement", "Transaction", "transaction&pooler=session"):
        with pytest.raises(InvalidArgumentError, match="pooler="):
            SessionRepository.connect(f"{postgres_database}?pooler={value}")
