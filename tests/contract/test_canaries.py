"""Bodies, metadata, texts and passwords carry a canary; wherever else it sings, something has leaked."""

from __future__ import annotations

import logging
import sqlite3
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from sessionstore import (
    DocumentRepository,
    NewMessage,
    PrunePolicy,
    PruneThrottle,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
    Transcript,
)
from tests.contract._verbs import DOCUMENT_VERBS, SESSION_VERBS, STORE_VERBS
from tests.support import points as faults
from tests.support.faults_counts import FULL
from tests.support.points import NEVER, Fault, Points
from tests.support.postgres import PostgresServer
from tests.support.repositories import callers_engine, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

CANARY: Final = "kanarienvogel"
BODY: Final[dict[str, Any]] = {"role": "user", "content": f"{CANARY} body", CANARY: [1, {"x": CANARY}]}
TEXTS: Final[dict[str, Any]] = {"title": f"{CANARY} title", "system_message": f"{CANARY} system"}
META: Final[dict[str, Any]] = {"k": f"{CANARY} value", "list": [CANARY], "project_ids": CANARY}
BAD: Final[dict[str, Any]] = {"role": "user", "content": CANARY, "x": {"y": float("nan")}}
UNFIT: Final[Any] = {"k": {CANARY}}
POLICY: Final = PrunePolicy(max_age=None, max_sessions=1)


def _documents(sessions: SessionRepository) -> DocumentRepository:
    """The documents beside some sessions, in the same transaction if that is where they are."""
    documents = DocumentRepository(sessions._shared.engine)
    documents._joined = sessions._joined
    return documents


WRITES: Final[dict[str, Any]] = {
    "create": lambda s: s.create("new", metadata=META, **TEXTS),
    "open": lambda s: s.open("other", metadata=META, **TEXTS),
    "append": lambda s: s.append("s", BODY, BODY),
    "append with ids": lambda s: s.append("s", NewMessage(BODY, message_id="m1"), NewMessage(BODY, message_id="m2")),
    "append creating": lambda s: s.append("third", BODY, create=True),
    "update": lambda s: s.update("s", summary=CANARY, **TEXTS),
    "set_metadata": lambda s: s.set_metadata("s", META),
    "replace_messages": lambda s: s.replace_messages("s", [BODY, NewMessage(BODY, message_id="m3")]),
    "compact": lambda s: s.compact("s", BODY, keep_last=1),
    "save": lambda s: s.save(Transcript.of("s", [BODY, BODY, BODY], metadata=META, summary=CANARY, **TEXTS)),
    "fork": lambda s: s.fork("s", new_id="child"),
    "list by metadata": lambda s: s.list_sessions(metadata={"k": META["k"]}),
    "save_json": lambda s: _documents(s).save_json("c", "n", value=META),
    "save_markdown": lambda s: _documents(s).save_markdown("c", "n", text=CANARY),
}
"""What carries a canary to the database."""

REFUSED: Final[dict[str, Any]] = {
    "body": lambda s: s.append("s", BAD),
    "key": lambda s: s.append("s", {"role": "user", "x": {1: CANARY}}),
    "role": lambda s: s.append("s", {"role": [CANARY], "content": CANARY}),
    "stated role": lambda s: s.append("s", NewMessage(BODY, role="tool")),
    "metadata": lambda s: s.set_metadata("s", {"k": {CANARY}}),
    "large metadata": lambda s: s.set_metadata("s", {"k": CANARY * 10_000}),
    "filter": lambda s: s.list_sessions(metadata={"k": [CANARY]}),
    "title": lambda s: s.update("s", title=CANARY + "\x00"),
    "title of another type": lambda s: s.update("s", title=[CANARY]),
    "transcript": lambda s: s.save(Transcript.of("s", [BAD])),
    "missing": lambda s: s.append("missing", BODY),
    "conflict": lambda s: s.append("s", NewMessage({"role": "user", "content": CANARY}, message_id="m0")),
    "existing": lambda s: s.create("s", metadata=META, **TEXTS),
    "version": lambda s: s.set_metadata("s", META, expected_version=10**6),
    "document": lambda s: _documents(s).save_json("c", "n", value=UNFIT),
    "text": lambda s: _documents(s).save_markdown("c", "n", text=CANARY + "\ud800"),
}
"""What is refused."""


class Heard:
    """Everything that was logged, raised or shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, error: BaseException) -> None:
        """Note all that an error shows by itself."""
        self.lines += [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__

    def value(self, value: Any) -> None:
        """Note how a value of ours shows itself; a text of the caller's is what was asked for."""
        if not isinstance(value, (str, bytes, dict)):
            self.lines += [repr(value), str(value)]

    async def of(self, call: Awaitable[Any]) -> None:
        """Note what comes of a call."""
        try:
            self.value(await call)
        except SessionStoreError as error:
            self.error(error)

    @property
    def leaks(self) -> list[str]:
        """Where the canary sings."""
        return [line for line in self.lines if CANARY in line]


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What is heard in a test; every logger that says nothing else is at DEBUG."""
    everything = Heard()

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            everything.lines.append(f"{self.format(record)} {record.args!r}")

    root = logging.getLogger()
    handler, level = Listening(logging.DEBUG), root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield everything
    root.removeHandler(handler)
    root.setLevel(level)


async def _furnish(sessions: SessionRepository) -> None:
    await sessions.create("s", metadata=META, **TEXTS)
    await sessions.append("s", BODY, BODY, BODY, NewMessage(BODY, message_id="m0"))
    await sessions.update("s", summary=CANARY)
    documents = _documents(sessions)
    await documents.save_json("c", "n", value=META)
    await documents.save_markdown("c", "n", text=CANARY)


async def _everything(sessions: SessionRepository, heard: Heard) -> None:
    """Call every verb, with canaries in what they send and in what they find."""
    await _furnish(sessions)
    joined = sessions._joined is not None
    for call in (*WRITES.values(), *REFUSED.values()):
        await heard.of(call(sessions))
    for name, verb in SESSION_VERBS.items():
        if not joined or name not in {"append_and_prune", "iter_messages"}:
            await heard.of(verb(sessions, "s"))
            await heard.of(verb(sessions, "missing"))
    if not joined:
        for store_verb in STORE_VERBS.values():
            await heard.of(store_verb(sessions))
        documents = _documents(sessions)
        for document_verb in DOCUMENT_VERBS.values():
            await heard.of(document_verb(documents))
        heard.value(documents)
    for shown in (sessions, sessions._shared.engine, sessions.settings, POLICY, PruneThrottle(1), NewMessage(BODY)):
        heard.value(shown)


def _with_password(url: str) -> str:
    """The same database, with a password that the server does not ask for."""
    address = make_url(url)
    if address.get_backend_name() == "postgresql":
        address = address.set(password=CANARY)
    return address.render_as_string(hide_password=False)


@pytest.mark.parametrize("way", ["connect", "engine"])
async def test_every_verb(database_url: str, way: str, heard: Heard) -> None:
    """P11: nothing of what was stored, found or refused is in a log, an error or a repr."""
    async with opened(way, _with_password(database_url)) as sessions:
        await _everything(sessions, heard)
    assert heard.leaks == []
    assert len(heard.lines) > 200


@asynccontextmanager
async def _joined(url: str, kind: str) -> AsyncIterator[SessionRepository]:
    engine = callers_engine(url)
    async with engine.connect() if kind == "connection" else AsyncSession(engine) as caller:
        yield SessionRepository(engine).within(caller)
        await caller.rollback()
    await engine.dispose()


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_within_a_transaction(shared_url: str, kind: str, heard: Heard) -> None:
    """P11: nor where statements go through the caller's connection, and the driver's own logger."""
    async with _joined(_with_password(shared_url), kind) as sessions:
        for call in (_furnish, *WRITES.values()):
            await heard.of(call(sessions))
        for name in ("messages", "snapshot", "get", "list_sessions", "pop", "trim", "delete"):
            await heard.of(SESSION_VERBS[name](sessions, "s"))
    assert heard.leaks == []
    assert heard.lines


async def test_the_drivers_logger_at_debug(sqlite_file: Any, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: it would tell; only an application that sets its level hears it."""
    driver = logging.getLogger("aiosqlite")
    assert driver.level == logging.INFO
    monkeypatch.setattr(driver, "level", logging.DEBUG)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    async with _joined(f"sqlite+aiosqlite:///{sqlite_file}", "connection") as sessions:
        await sessions.create("s")
        await sessions.append("s", BODY)
    monkeypatch.undo()
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert heard.leaks


# --- errors of drivers ------------------------------------------------------------------------------------------------


def _postgres_error(state: str) -> Callable[[], BaseException]:
    return lambda: asyncpg.PostgresError.new({"C": state, "M": CANARY, "D": CANARY, "S": "ERROR", "n": CANARY})


def _sqlite_error(code: int) -> Callable[[], BaseException]:
    def make() -> BaseException:
        error = sqlite3.OperationalError(CANARY)
        error.sqlite_errorcode, error.sqlite_errorname = code, "NAME"
        return error

    return make


STATES: Final = ("08003", "57P01", "53300", "40001", "53100", "25006", "XX001", "57014", "23505", "23514", "22P05")
CODES: Final = (
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CORRUPT),
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CONSTRAINT_CHECK, sqlite3.SQLITE_ERROR),
)
ON_POSTGRES: Final = {
    **{state: _postgres_error(state) for state in STATES},
    "closed": lambda: asyncpg.InterfaceError(CANARY),
    "protocol": lambda: asyncpg.InternalClientError(CANARY),
    "outdated": lambda: asyncpg.InvalidCachedStatementError(CANARY),
    "network": lambda: ConnectionResetError(104, CANARY),
    "late": lambda: TimeoutError(CANARY),
}
ON_SQLITE: Final = {str(code): _sqlite_error(code) for code in CODES}


SOME: Final = {"create", "append", "append with ids", "update", "save", "save_json"}
"""The writes that the short run makes."""


def _raising(make: Callable[[], BaseException], *, on_postgres: bool) -> Callable[..., Any]:
    def act(*_: Any) -> Any:
        raise make()

    async def act_async(*_: Any) -> Any:
        raise make()

    return act_async if on_postgres else act


async def test_every_error_of_a_driver(shared_url: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """P11: at every statement of every write, whatever the driver has put into its error."""
    on_postgres = shared_url.startswith("postgresql")
    points = Points()
    (faults.on_postgres if on_postgres else faults.on_sqlite)(points, monkeypatch)
    kinds = ON_POSTGRES if on_postgres else ON_SQLITE
    calls = [call for name, call in WRITES.items() if FULL or name in SOME]
    async with SessionRepository.connect(shared_url) as sessions:
        await _furnish(sessions)
        for name, make in kinds.items():
            fault = Fault(name, _raising(make, on_postgres=on_postgres))
            for call in calls:
                at = 1
                while at:
                    points.arm(at, fault, NEVER)
                    await heard.of(call(sessions))
                    at = at + 1 if len(points.sent) >= at else 0
                    points.disarm()
    assert points.happened > len(kinds) * len(calls)
    assert heard.leaks == []


async def test_errors_of_connecting(shared_url: str, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    """F14, P11: an error of the driver on the way to the database tells neither its text nor the password."""
    on_postgres = shared_url.startswith("postgresql")
    points = Points()
    (faults.on_postgres if on_postgres else faults.on_sqlite)(points, monkeypatch)
    for name, make in (ON_POSTGRES if on_postgres else ON_SQLITE).items():
        at = 1
        while at:
            points.arm(at, Fault(name, _raising(make, on_postgres=on_postgres)), NEVER)
            sessions = SessionRepository.connect(_with_password(shared_url))
            await heard.of(sessions.append("s", BODY, create=True))
            await sessions.aclose()
            at = at + 1 if len(points.sent) >= at else 0
    assert points.happened > len(ON_SQLITE)
    assert heard.leaks == []


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://postgres:{CANARY}@127.0.0.1:1/x",
        f"postgresql://postgres:{CANARY}@127.0.0.1:port/x",
        f"postgresql://postgres:{CANARY}@127.0.0.1:1/x?nonsense=1",
        f"postgresql://postgres:{CANARY}@127.0.0.1:1/x?ssl=nonsense",
        f"postgresql+psycopg2://postgres:{CANARY}@127.0.0.1:1/x",
        f"mysql://root:{CANARY}@127.0.0.1/x",
        f"postgresql://postgres:{CANARY}",
    ],
)
async def test_urls_that_do_not_work(url: str, heard: Heard) -> None:
    """F14, P11: whatever is wrong with a URL, its password is not told."""
    settings = StoreSettings(operation_timeout_seconds=0.2)
    try:
        sessions = SessionRepository.connect(url, settings=settings)
    except SessionStoreError as error:
        heard.error(error)
    else:
        heard.value(sessions)
        heard.value(sessions._shared.engine)
        await heard.of(sessions.exists("s"))
        await sessions.aclose()
    assert len(heard.lines) >= 2
    assert heard.leaks == []


async def test_refused_by_the_server(postgres_server: Any, postgres_database: str, heard: Heard) -> None:
    """F14, P11: nor where the server has looked at user and password, or has no such database."""
    address = make_url(postgres_database).set(password=CANARY)
    for wrong in (address.set(database="no such"), address.set(username="nobody"), address.set(username=CANARY)):
        async with callers_engine_of(wrong) as engine:
            await heard.of(SessionRepository(engine).exists("s"))
    assert len(heard.lines) >= 12
    texts = [line.replace(f'role "{CANARY}"', "") for line in heard.leaks]
    assert [line for line in texts if CANARY in line] == []


@asynccontextmanager
async def callers_engine_of(url: Any) -> AsyncIterator[Any]:
    engine = create_async_engine(url)
    yield engine
    await engine.dispose()


# --- the server's own log ---------------------------------------------------------------------------------------------

BREAKING: Final = (
    "ALTER TABLE sessionstore_messages ADD CONSTRAINT ck_test CHECK (position <> 5)",
    "ALTER TABLE sessionstore_metadata ADD CONSTRAINT ck_test CHECK (key <> 'list')",
    "ALTER TABLE sessionstore_documents ADD CONSTRAINT ck_test CHECK (name <> 'n')",
    "ALTER TABLE sessionstore_sessions ADD CONSTRAINT ck_test CHECK (title IS NULL)",
)


@pytest.fixture(scope="module")
def logging_server() -> Iterator[PostgresServer]:
    """A server of this module's own, whose log is read."""
    with PostgresServer() as server:
        yield server


@pytest.mark.parametrize("verbosity", ["terse", "default"])
async def test_the_servers_log(logging_server: PostgresServer, verbosity: str, heard: Heard) -> None:
    """P11: statements are logged without their parameters; terse errors without the rows that default ones quote."""
    name = f"log_{verbosity}"
    url = await logging_server.create_database(name)
    async with SessionRepository.connect(url, migrate=True) as sessions:
        await sessions.append("s", BODY, BODY, BODY, NewMessage(BODY, message_id="m0"), create=True)
    connection = await logging_server.connect(name)
    await connection.execute(f'ALTER DATABASE "{name}" SET log_error_verbosity = {verbosity}')
    for statement in BREAKING:
        await connection.execute(statement)
    await connection.close()
    before = len(logging_server.log())
    async with SessionRepository.connect(url) as sessions:
        for call in (*REFUSED.values(), *WRITES.values()):
            await heard.of(call(sessions))
    written = logging_server.log()[before:]
    assert written.count("ck_test") >= 4
    assert "uq_sessionstore_messages_message_id" in written
    assert heard.leaks == []
    assert (CANARY in written) is (verbosity == "default")


def test_this_test_can_fail(heard: Heard) -> None:
    """P11: an error that is chained, a logged argument and a repr are all heard."""
    try:
        try:
            raise sqlite3.OperationalError(CANARY)
        except sqlite3.Error as error:
            raise SessionStoreError("text") from error
    except SessionStoreError as error:
        heard.lines += traceback.format_exception(error)
    logging.getLogger("any").debug("it is %s", CANARY)
    heard.value([CANARY])
    assert len(heard.leaks) >= 3
