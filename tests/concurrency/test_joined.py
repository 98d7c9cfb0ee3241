"""Every verb inside a transaction of the caller: it commits and rolls back as one with what else is in there."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import StaticPool

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    MessageIdConflictError,
    NewMessage,
    PrunePolicy,
    PruneThrottle,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
    StoreBusyError,
    StoreSettings,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionConflictError,
)
from tests.concurrency.verbs import CHILD, HISTORY, ID, VERBS, Verb, bodies, body, prepare
from tests.support.invariants import assert_sound, connect_postgres, read_tables
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.concurrency.foreign import Foreign

MANY_TRANSACTIONS = {"prune by age", "prune by number", "delete user", "delete all"}
JOINABLE = [verb for verb in VERBS if verb.name not in MANY_TRANSACTIONS | {"evict"}]


def _with_begin_event(url: str, **pool: Any) -> AsyncEngine:
    """SQLAlchemy's recipe for real transactions on SQLite: the driver begins nothing, an event does."""
    engine = create_async_engine(url, **pool)

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


MEMORY = "sqlite+aiosqlite://"


@pytest.fixture(
    params=["sqlite-file", "sqlite-file begin-event", "sqlite-memory", "sqlite-memory begin-event", "postgresql"]
)
def setting(request: pytest.FixtureRequest) -> str:
    """A database, and how the caller's engine begins its transactions there."""
    return str(request.param)


@pytest.fixture
def database_url(setting: str, request: pytest.FixtureRequest) -> str:
    """A migrated database of the test's own, of that setting."""
    if setting.startswith("sqlite-memory"):
        return MEMORY
    if setting.startswith("sqlite-file"):
        return sqlite_url(request.getfixturevalue("sqlite_file"))
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
async def engine(setting: str, database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of the caller."""
    pool: dict[str, Any] = {"poolclass": StaticPool} if database_url == MEMORY else {}
    made = (_with_begin_event if "begin-event" in setting else create_async_engine)(database_url, **pool)
    yield made
    await made.dispose()


@pytest.fixture
async def repository(engine: AsyncEngine) -> AsyncIterator[SessionRepository]:
    async with SessionRepository(engine) as repository:
        await prepare(repository)
        yield repository


@pytest.mark.parametrize("verb", JOINABLE, ids=str)
async def test_commit(database_url: str, engine: AsyncEngine, repository: SessionRepository, verb: Verb) -> None:
    """P4: a verb joined to a transaction has its effect with the caller's commit."""
    async with engine.begin() as connection:
        await verb.run(repository.within(connection))
    stored = await assert_sound(database_url, repository)
    left = verb.left(HISTORY, False)
    assert (("", ID) in stored.sessions) == (left is not None)
    assert [kept["n"] for kept in stored.bodies(ID)] == (left or [])
    if verb.child is not None:
        assert [kept["n"] for kept in stored.bodies(CHILD)] == verb.child(HISTORY)


@pytest.mark.parametrize("verb", JOINABLE, ids=str)
async def test_rollback(database_url: str, engine: AsyncEngine, repository: SessionRepository, verb: Verb) -> None:
    """P4: nothing of a verb joined to a transaction survives the caller's rollback, however it comes."""
    before = await read_tables(database_url, repository)
    async with engine.connect() as connection:
        await verb.run(repository.within(connection))
        await connection.rollback()
    assert await read_tables(database_url, repository) == before
    with pytest.raises(ZeroDivisionError):
        await _fail_after(engine, repository, verb)
    assert await read_tables(database_url, repository) == before
    async with AsyncSession(engine) as session:
        await verb.run(repository.within(session))
        await session.rollback()
    assert await read_tables(database_url, repository) == before


async def _fail_after(engine: AsyncEngine, repository: SessionRepository, verb: Verb) -> None:
    async with engine.begin() as connection:
        await verb.run(repository.within(connection))
        raise ZeroDivisionError


async def test_several_verbs_are_one(database_url: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P4: verbs of one transaction see each other, with their own documents and the caller's rows beside them."""
    async with AsyncSession(engine) as session, session.begin():
        within, documents = repository.within(session), DocumentRepository(engine).within(session)
        assert await within.append(ID, body(500)) == [6]
        assert [message.body["n"] for message in await within.messages(ID, last=2)] == [5, 500]
        assert await within.trim(ID, 2) == 2
        assert (await within.snapshot(ID)).session.length == 2
        await within.create("mine", metadata={"key": [1]})
        await documents.save_json("category", "name", value={"a": 1})
        counted = await session.execute(text("SELECT count(*) FROM sessionstore_sessions"))
        assert counted.scalar_one() == 3
    stored = await assert_sound(database_url, repository)
    assert [kept["n"] for kept in stored.bodies(ID)] == [5, 500]
    assert stored.metadata["", "mine"] == {"key": [1]}
    assert await DocumentRepository(engine).find_json("category", "name") == {"a": 1}


FAILING: dict[str, tuple[type[SessionStoreError], Callable[[SessionRepository], Awaitable[Any]]]] = {
    "unknown": (SessionNotFoundError, lambda r: r.append("unknown", body(1))),
    "exists": (SessionExistsError, lambda r: r.create(ID)),
    "fork exists": (SessionExistsError, lambda r: r.fork("source", new_id=ID)),
    "stale": (VersionConflictError, lambda r: r.replace_messages(ID, bodies([9]), expected_version=99)),
    "stale compact": (VersionConflictError, lambda r: r.compact(ID, body(9), keep_last=1, expected_version=99)),
    "length": (VersionConflictError, lambda r: r.append(ID, body(9), expected_length=99)),
    "message id": (
        MessageIdConflictError,
        lambda r: r.append(ID, body(8), NewMessage(body(9), message_id="taken")),
    ),
    "summary id": (
        MessageIdConflictError,
        lambda r: r.compact(ID, NewMessage(body(9), message_id="taken"), keep_last=1),
    ),
}


@pytest.mark.parametrize("failure", FAILING)
async def test_error_caught_and_committed(
    database_url: str, engine: AsyncEngine, repository: SessionRepository, failure: str
) -> None:
    """P4: a verb that fails leaves nothing of its own, even if the caller goes on and commits."""
    kind, run = FAILING[failure]
    await repository.append(ID, NewMessage(body(600), message_id="taken"))
    before = await read_tables(database_url, repository)
    async with engine.begin() as connection:
        within = repository.within(connection)
        await within.append("source", body(700))
        with pytest.raises(kind):
            await run(within)
        await within.append("source", body(701))
    after = await assert_sound(database_url, repository)
    assert after.sessions["", ID] == before.sessions["", ID]
    assert after.messages["", ID] == before.messages["", ID]
    assert [kept["n"] for kept in after.bodies("source")] == [300, 301, 700, 701]


async def test_callers_savepoint(database_url: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P4: the caller's savepoints hold for our verbs too."""
    async with engine.begin() as connection:
        within = repository.within(connection)
        await within.append(ID, body(500))
        savepoint = await connection.begin_nested()
        await within.append(ID, body(501))
        await within.trim(ID, 1)
        await savepoint.rollback()
        assert await within.append(ID, body(502)) == [7]
    stored = await assert_sound(database_url, repository)
    assert [kept["n"] for kept in stored.bodies(ID)] == [*HISTORY, 500, 502]


async def test_reading_first(database_url: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P4: a transaction that began with a read may write afterwards, and still rolls back as one."""
    before = await read_tables(database_url, repository)
    async with engine.connect() as connection:
        within = repository.within(connection)
        assert await within.length(ID) == 6
        await within.truncate(ID, 1)
        await within.append(ID, body(1))
        await connection.rollback()
    assert await read_tables(database_url, repository) == before


async def test_retried_ids(database_url: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P3: ids protect against doubles inside a caller's transaction as well."""
    batch = [NewMessage(body(number), message_id=str(number)) for number in (500, 501, 502)]
    await repository.append(ID, *batch[:2])
    async with engine.begin() as connection:
        assert await repository.within(connection).append(ID, *batch) == [6, 7, 8]
        assert await repository.within(connection).append(ID, *batch) == [6, 7, 8]
    await assert_sound(database_url, repository)


async def test_cap(database_url: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P6: a new session in a caller's transaction disturbs nothing under a cap, and is not itself evicted."""
    capped = SessionRepository(engine, settings=StoreSettings(session_cap=2))
    async with engine.begin() as connection:
        await capped.within(connection).create("new")
    stored = await assert_sound(database_url, repository)
    assert ("", "new") in stored.sessions


async def test_verbs_of_many_transactions(engine: AsyncEngine, repository: SessionRepository) -> None:
    """P4: what works in transactions of its own is refused inside one of the caller."""
    async with engine.connect() as connection:
        within = repository.within(connection)
        policy = PrunePolicy(max_age=timedelta(days=1))
        for refused in (
            within.prune(policy),
            within.delete_user("user"),
            within.delete_all(),
            within.append_and_prune(ID, body(1), policy=policy, throttle=PruneThrottle(0)),
        ):
            with pytest.raises(InvalidArgumentError):
                await refused
        with pytest.raises(InvalidArgumentError):
            await anext(within.iter_messages(ID))
        await connection.rollback()
    assert await repository.length(ID) == 6


async def test_autocommit(setting: str, engine: AsyncEngine, repository: SessionRepository) -> None:
    """P4: a connection in autocommit has no transaction to join. With the event there is one all the same."""
    async with engine.connect() as connection:
        loose = await connection.execution_options(isolation_level="AUTOCOMMIT")
        within = repository.within(loose)
        if "begin-event" in setting:
            await within.append(ID, body(1))
            await loose.rollback()
        else:
            with pytest.raises(InvalidArgumentError):
                await within.append(ID, body(1))
    assert await repository.length(ID) == 6


async def test_other_database(sqlite_file: Path, postgres_database: str) -> None:
    """P4: a transaction of another kind of database is refused, and nothing is written in it."""
    engines = [create_async_engine(sqlite_url(sqlite_file)), create_async_engine(postgres_database)]
    try:
        for own, other in (engines, engines[::-1]):
            await SessionRepository(own).create(ID)
            async with other.begin() as connection:
                with pytest.raises(InvalidArgumentError):
                    await SessionRepository(own).within(connection).append(ID, body(1))
        for engine in engines:
            assert await SessionRepository(engine).length(ID) == 0
    finally:
        for engine in engines:
            await engine.dispose()


async def test_fresh_database_in_memory() -> None:
    """P9: a database in memory migrates itself, also if its first use is inside a caller's transaction."""
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    try:
        repository = SessionRepository(engine)
        async with engine.begin() as connection:
            await repository.within(connection).create(ID)
        assert await repository.exists(ID)
    finally:
        await engine.dispose()


async def test_cancelled_between_statements(
    database_url: str, engine: AsyncEngine, repository: SessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: a joined append cancelled half-way leaves nothing, even if the caller then commits."""
    from sessionstore.executors.joined import JoinedExecutor  # noqa: PLC0415

    execute = JoinedExecutor._execute

    async def cancelled(self: Any, connection: Any, sql: str, name: str, arguments: Any = None) -> Any:
        rows = await execute(self, connection, sql, name, arguments)
        if name in {"advance", "append"}:
            raise asyncio.CancelledError
        return rows

    before = await read_tables(database_url, repository)
    async with engine.begin() as connection:
        monkeypatch.setattr(JoinedExecutor, "_execute", cancelled)
        with pytest.raises(asyncio.CancelledError):
            await repository.within(connection).append(ID, NewMessage(body(500), message_id="m"))
        if engine.dialect.name == "sqlite":  # one statement on PostgreSQL: whole, or in this case there already
            with pytest.raises(asyncio.CancelledError):
                await repository.within(connection).append(ID, body(500))
        monkeypatch.undo()
    assert (await assert_sound(database_url, repository)).messages == before.messages


async def _trim(repository: SessionRepository) -> None:
    await repository.trim(ID, 1)


async def _append(repository: SessionRepository) -> None:
    await repository.append(ID, body(1))


async def test_deadline_on_postgresql(postgres_database: str) -> None:
    """P4: a joined call that waits for a lock beyond its deadline gives up in time, and the caller can roll back."""
    engine = create_async_engine(postgres_database)
    settings = StoreSettings(operation_timeout_seconds=0.3)
    holder = await connect_postgres(postgres_database)
    try:
        repository = SessionRepository(engine, settings=settings)
        await prepare(SessionRepository(engine))
        await holder.execute("BEGIN; SELECT * FROM sessionstore_sessions FOR UPDATE")
        for run in (_trim, _append):
            async with engine.connect() as connection:
                with pytest.raises(StoreTimeoutError):
                    await asyncio.wait_for(run(repository.within(connection)), 5)
                await connection.rollback()
        await holder.execute("ROLLBACK")
        assert await SessionRepository(engine).append(ID, body(1)) == [6]
    finally:
        holder.terminate()
        await engine.dispose()
    await assert_sound(postgres_database)


async def test_deadline_on_sqlite(sqlite_file: Path) -> None:
    """P4: the same on SQLite, where the driver's own patience is five seconds."""
    url = sqlite_url(sqlite_file)
    engine = create_async_engine(url)
    holder = sqlite3.connect(sqlite_file, isolation_level=None)
    try:
        await prepare(SessionRepository(engine))
        holder.execute("BEGIN IMMEDIATE")
        repository = SessionRepository(engine, settings=StoreSettings(operation_timeout_seconds=0.3))
        async with engine.connect() as connection:
            started = asyncio.get_running_loop().time()
            with pytest.raises(SessionStoreError):
                await repository.within(connection).append(ID, body(1))
            assert asyncio.get_running_loop().time() - started < 3
            holder.execute("ROLLBACK")
            await connection.rollback()
        assert await SessionRepository(engine).append(ID, body(1)) == [6]
    finally:
        holder.close()
        await engine.dispose()
    await assert_sound(url)


IMPATIENT = {"sqlite": "PRAGMA busy_timeout = 100", "postgresql": "SET LOCAL lock_timeout = '100ms'"}


async def test_a_lock_is_waited_for_once(shared_url: str, somebody: Foreign) -> None:
    """P4: what fails inside a caller's transaction is not tried again, so the error is the one that ended it."""
    engine = create_async_engine(shared_url)
    sent: list[str] = []
    try:
        repository = SessionRepository(engine, settings=StoreSettings(operation_timeout_seconds=2.0))
        await prepare(repository)
        await somebody.append(ID, body(500))
        async with engine.connect() as connection:
            await connection.exec_driver_sql(IMPATIENT[engine.dialect.name])
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
            with pytest.raises(StoreBusyError) as caught:
                await repository.within(connection).append(ID, body(501))
            waiting = [sql for sql in sent if "sessionstore_" in sql or sql == "BEGIN IMMEDIATE"]
            assert len(waiting) == 1
            assert not caught.value.maybe_committed
            await connection.rollback()
        await somebody.commit()
        assert await repository.append(ID, body(502)) == [7]
    finally:
        await engine.dispose()
    assert [kept["n"] for kept in (await assert_sound(shared_url)).bodies(ID)] == [*HISTORY, 500, 502]


async def test_backend_ended_in_the_callers_transaction(postgres_database: str) -> None:
    """P4: a read that finds the caller's connection gone says so, and does not try it a second time."""
    engine = create_async_engine(postgres_database)
    other = await connect_postgres(postgres_database)
    try:
        repository = SessionRepository(engine)
        await prepare(repository)
        async with engine.connect() as connection:
            within = repository.within(connection)
            await within.append(ID, body(500))
            backend = (await connection.exec_driver_sql("SELECT pg_backend_pid()")).scalar_one()
            assert await other.fetchval("SELECT pg_terminate_backend($1, 5000)", backend)
            with pytest.raises(StoreUnavailableError):
                await within.length(ID)
            await connection.rollback()
            assert await within.length(ID) == len(HISTORY)
    finally:
        await other.close()
        await engine.dispose()
    await assert_sound(postgres_database)
