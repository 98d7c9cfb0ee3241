"""Every statement, through every executor: the same rows come back, and the same rows are left."""

from __future__ import annotations

import contextlib
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import pytest
import pytest_asyncio
from sqlalchemy import Select, event, text
from sqlalchemy.ext.asyncio import AsyncSession

from sessionstore import NewMessage, SessionRepository, StoreSettings, Transcript
from sessionstore.migrate import upgrade
from sessionstore.statements.events import RECORD
from sessionstore.units.unit import Kind, Unit
from tests.contract._own import PAST, dump
from tests.contract._probe import OTHERS, PARAMETERS, ROWS, seed
from tests.contract._statements import DIALECTS, OF_THE_SERVER, Sent, every_statement
from tests.support import templates
from tests.support.repositories import bodies, callers_engine, micros, say, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncConnection

    from sessionstore.dialects.base import Call, Dialect
    from sessionstore.units.unit import Steps

WAYS = ("connect", "engine", "connection", "session")
STATEMENTS = [sent for sent in every_statement() if sent.statement.name not in OF_THE_SERVER]

ABOUT = {"backfill.ESTIMATE_MESSAGES", "backfill.ESTIMATE_METADATA"}
"""What each database tells only about, by means of its own."""

Tables: TypeAlias = dict[str, list[tuple[Any, ...]]]


class Answer(NamedTuple):
    """What a statement gave, and what it left in the tables."""

    rows: list[tuple[Any, ...]]
    left: Tables


def calls(sent: Sent, dialect: Dialect) -> list[Call]:
    """A statement with each set of its parameters."""
    name = sent.statement.name
    wanted = set(dialect.compile(sent.statement).names)
    rows = ROWS.get(name)
    found = []
    for others in ({}, *OTHERS.get(name, [])):
        given = {key: value for key, value in (PARAMETERS | others).items() if key in wanted}
        # A single row has a form of its own where several travel as arrays.
        found += [sent.statement(some, **given) for some in (rows, rows[:1])] if rows else [sent.statement(**given)]
    return found


def unit(call: Call, *, kind: Kind) -> Unit[list[tuple[Any, ...]]]:
    """A unit of one statement, which gives its rows; with the event that it is, if it is one."""
    recorded = call.statement is not RECORD and "kind" in DIALECTS[1].compile(call.statement).names

    def steps(db: Dialect) -> Steps[list[tuple[Any, ...]]]:
        rows = [tuple(row) for row in (yield call)]
        if recorded and rows and not db.modifying_ctes:
            yield RECORD(**PARAMETERS | call.params)
        # Victims are a set; all others come in an order of their own.
        return sorted(rows) if call.statement.name.startswith("choose_") else rows

    return Unit(call.statement.name, kind, steps)


def reads(sent: Sent, dialect: Dialect) -> bool:
    """Whether a statement changes nothing, and locks nothing."""
    construct = sent.statement.build(dialect)
    return isinstance(construct, Select) and not construct._independent_ctes and construct._for_update_arg is None


class Place(NamedTuple):
    """A repository used in one way, and a connection that prepares and looks."""

    way: str
    sessions: SessionRepository
    beside: AsyncConnection

    async def prepare(self) -> Tables:
        """Put the rows to begin with in, and read them."""
        await seed(self.sessions, self.beside)
        return await self.look()

    async def look(self) -> Tables:
        """Read everything."""
        found = await dump(self.sessions.within(self.beside))
        await self.beside.rollback()
        return found

    async def run(self, work: Unit[Any]) -> Answer:
        """Run a unit, and read what it leaves: in a transaction of the caller only there."""
        if self.way in {"connect", "engine"}:
            return Answer(await self.sessions._run(work), await self.look())
        async with self.caller() as inside:
            return Answer(await inside._run(work), await dump(inside))

    @contextlib.asynccontextmanager
    async def caller(self) -> AsyncIterator[SessionRepository]:
        """A repository within a transaction that is rolled back in the end."""
        engine = self.sessions._shared.engine
        async with engine.connect() if self.way == "connection" else AsyncSession(engine) as caller:
            yield self.sessions.within(caller)
            await caller.rollback()


@contextlib.asynccontextmanager
async def place(way: str, url: str, schema: str | None = None) -> AsyncIterator[Place]:
    """Use a database in one way."""
    settings = StoreSettings(schema=schema)
    engine = callers_engine(url)
    if engine.dialect.name == "sqlite":
        # As on our own connections: what hangs on a session goes with it, and a statement alone can be compared.
        event.listen(engine.sync_engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(engine.dispose)
        own = SessionRepository.connect(url, settings=settings)
        sessions = own if way == "connect" else SessionRepository(engine, settings=settings)
        await stack.enter_async_context(sessions)
        beside = await stack.enter_async_context(engine.connect())
        if schema is not None:
            await beside.execute(text(f"SET search_path TO {schema}"))
            await beside.commit()
        yield Place(way, sessions, beside)


Answers: TypeAlias = dict[tuple[str, int, Kind], Answer]


async def answers(url: str, way: str, dialect: Dialect, schema: str | None = None) -> Answers:
    """Every statement, on the same rows each time."""
    found: Answers = {}
    async with place(way, url, schema) as ground:
        start = await ground.prepare()
        for sent in STATEMENTS:
            if dialect.name not in sent.databases:
                continue
            reading = reads(sent, dialect)
            for number, call in enumerate(calls(sent, dialect)):
                for kind in (Kind.READ, Kind.SNAPSHOT) if reading else (Kind.WRITE, Kind.TRANSACTION):
                    given = await ground.run(unit(relocated(call, schema), kind=kind))
                    found[sent.where, number, kind] = settled(given)
                    if reading or way in {"connection", "session"}:
                        assert given.left == start or not reading, "it was to change nothing"
                    else:
                        await ground.prepare()
        assert await ground.look() == start, "it survived the caller's rollback"
    return found


def relocated(call: Call, schema: str | None) -> Call:
    """Look for a relation where it is."""
    relation = call.params.get("relation")
    if schema is None or relation is None:
        return call
    return call._replace(params={**call.params, "relation": f"{schema}.{relation}"})


def settled(answer: Answer) -> Answer:
    """An answer without the moments of the database's own clock."""
    jobs = [row[:2] for row in answer.left["sessionstore_maintenance"]]
    backfills = [(*row[:6], row[-1] is None) for row in answer.left["sessionstore_backfills"]]
    return Answer(answer.rows, answer.left | {"sessionstore_maintenance": jobs, "sessionstore_backfills": backfills})


def neutral(value: Any) -> Any:
    """A value as it is on any database: moments as microseconds, truth as numbers."""
    if isinstance(value, datetime):
        return micros(value)
    if isinstance(value, (list, tuple)):
        return tuple(neutral(item) for item in value)
    if isinstance(value, dict):
        return {key: neutral(item) for key, item in value.items()}
    return int(value) if isinstance(value, (bool, Decimal)) else value


@pytest_asyncio.fixture
async def urls(sqlite_file: Path, postgres_database: str, postgres_empty: str) -> dict[str, str]:
    await upgrade(postgres_empty, schema="team")
    return {"sqlite": templates.sqlite_url(sqlite_file), "postgresql": postgres_database, "team": postgres_empty}


_expected: dict[str, Answers] = {}


async def expected(urls: dict[str, str], dialect: Dialect) -> Answers:
    """What `connect()` gives; every database begins with the same rows, so once is enough."""
    if dialect.name not in _expected:
        _expected[dialect.name] = await answers(urls[dialect.name], "connect", dialect)
    return _expected[dialect.name]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
async def test_every_way_gives_the_same_rows(urls: dict[str, str], dialect: Dialect, way: str) -> None:
    """X01, X08: an engine of ours, one of the caller's, and transactions of the caller's."""
    ours = await expected(urls, dialect)
    theirs = await answers(urls[dialect.name], way, dialect)
    assert theirs.keys() == ours.keys()
    for key, given in theirs.items():
        assert given == ours[key], key
        assert types_of(given.rows) == types_of(ours[key].rows), key


def types_of(rows: list[tuple[Any, ...]]) -> list[list[type]]:
    return [[type(value) for value in row] for row in rows]


async def test_alone_or_in_a_transaction(urls: dict[str, str]) -> None:
    """X08: a statement does the same in both."""
    for dialect in DIALECTS:
        ours = await expected(urls, dialect)
        for (where, number, kind), given in ours.items():
            other = {Kind.READ: Kind.SNAPSHOT, Kind.WRITE: Kind.TRANSACTION}.get(kind, kind)
            assert ours[where, number, other] == given, where


async def test_a_schema_changes_nothing(urls: dict[str, str]) -> None:
    """X01: every statement finds its tables there, though no search path leads to them."""
    assert await answers(urls["team"], "connect", DIALECTS[1], "team") == await expected(urls, DIALECTS[1])


async def test_both_databases_give_the_same_rows(urls: dict[str, str]) -> None:
    """X07: in number, order and value, however each of them spells its values."""
    on_sqlite, on_postgresql = [await expected(urls, dialect) for dialect in DIALECTS]
    assert on_sqlite.keys() < on_postgresql.keys()
    for key, given in on_sqlite.items():
        if key[0] not in ABOUT:
            assert neutral(given) == neutral(on_postgresql[key]), key


async def test_every_statement_does_something(urls: dict[str, str]) -> None:
    """X08: it gives rows or changes some, with one set of parameters at least: nothing always equals nothing."""
    for dialect in DIALECTS:
        ours = await expected(urls, dialect)
        start = next(given.left for (where, _, _), given in ours.items() if where == "sessions.GET")
        useful = {where for (where, _, _), given in ours.items() if given.rows or given.left != start}
        assert {where for where, _, _ in ours} == useful


def test_every_statement_is_tried() -> None:
    """X01: with parameters that are all named here, and at least some rows from each that gives any."""
    for sent in STATEMENTS:
        for dialect in DIALECTS:
            if dialect.name in sent.databases:
                compiled = dialect.compile(sent.statement)
                named = set(compiled.names)
                assert named <= PARAMETERS.keys() | set(sent.statement.columns) | compiled.constants.keys(), sent.where
    assert set(ROWS) == {sent.statement.name for sent in STATEMENTS if sent.statement.columns}
    assert OTHERS.keys() <= {sent.statement.name for sent in STATEMENTS}


# --- whole verbs ----------------------------------------------------------------------------------


async def story(sessions: SessionRepository) -> list[Any]:
    """Every verb that is allowed everywhere, and what each gives."""
    await sessions.create("s", user_id="ann", metadata={"k": [1, 1.0, "\x00"]})
    found: list[Any] = [
        await sessions.append("s", *talk(6)),
        await sessions.append("s", NewMessage(say("user", "\ud800"), message_id="m", created_at=PAST)),
        await sessions.append(
            "s", NewMessage(say("user", "\ud800"), message_id="m", created_at=PAST), say("tool", "x")
        ),
        await sessions.append("new", say("user", "x"), create=True),
        await sessions.append("s"),
        (await sessions.open("s")).length,
        (await sessions.open("opened", title="t")).title,
        (await sessions.update("s", title="x", summary="y", expected_version=3)).version,
        (await sessions.set_metadata("s", {"n": None}, remove=["k"])).metadata,
        await sessions.trim("s", 5, align="turn"),
        await sessions.truncate("s", 4),
        (await sessions.fork("s", new_id="fork")).length,
        (await sessions.fork_at("s", 2, new_id="fork", replace=True)).length,
        (await sessions.compact("s", say("system", "sum"), keep_last=2)).first_position,
        bodies(await sessions.messages("s", last=1, align="turn")),
        await sessions.messages_json("s", roles=["user"], first=1),
        (await sessions.save(Transcript.of("saved", talk(3), updated_at=PAST))).length,
        (await sessions.save((await sessions.snapshot("saved")).replace(messages=talk(2)))).length,
        (await sessions.replace_messages("new", talk(3))).version,
        (await sessions.pop("new") or say("", "")) is not None,
        await sessions.lineage("fork"),
        (await sessions.reset("opened")).title,
        await sessions.delete("opened"),
        await sessions.delete("opened"),
        await sessions.exists("opened"),
        await sessions.length("s"),
        await sessions.claim("job", cooldown_seconds=60),
        await sessions.claim("job", cooldown_seconds=60),
    ]
    page = await sessions.list_sessions(metadata={"n": None})
    found += [(row.id, row.message_count, row.project_id) for row in page.rows]
    tables = await dump(sessions)
    found.append([row[2:5] for row in tables["sessionstore_messages"]])
    found.append([row[:4] for row in tables["sessionstore_metadata"]])
    return found


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_every_way_tells_the_same_story(urls: dict[str, str], database: str) -> None:
    """X08: the verbs themselves, begun on empty tables each time."""
    told = []
    for way in WAYS:
        async with place(way, urls[database]) as ground:
            if way in {"connect", "engine"}:
                told.append(await story(ground.sessions))
                await ground.sessions.delete_all()
                await ground.beside.execute(text("DELETE FROM sessionstore_maintenance"))
                await ground.beside.commit()
            else:
                async with ground.caller() as inside:
                    told.append(await story(inside))
    assert told[1:] == told[:1] * 3
