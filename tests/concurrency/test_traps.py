"""The traps: what each does to the data, and that the code as it is does not fall into them.

Every scenario returns the faults it found. With the real code there must be none; with the trap put back there must be
some, or the scenario could not find it at all.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import NewMessage, PrunePolicy, SessionRepository, SessionStoreError, StoreSettings
from sessionstore.executors import postgresql
from tests.concurrency.foreign import foreign
from tests.concurrency.verbs import APPENDED, CHILD, HISTORY, ID, bodies, body, prepare
from tests.support import tampering
from tests.support.invariants import faults, read_tables
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scenario = Callable[[str, pytest.MonkeyPatch], Awaitable[list[str]]]
    Run = Callable[[SessionRepository], Awaitable[Any]]


def behind_an_append(verb: Run, expected: list[int] | None = None) -> Scenario:
    """Run a verb that has to wait for an append, then append once more."""

    async def scenario(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        async with foreign(url, monkeypatch) as somebody, SessionRepository.connect(url) as repository:
            await prepare(repository)
            await somebody.append(ID, *bodies(APPENDED))
            task = asyncio.ensure_future(verb(repository))
            await somebody.waited_for(task)
            await somebody.commit()
            await task
            found = faults(stored := await read_tables(url))
            if expected is not None and [kept["n"] for kept in stored.bodies(ID)] != expected:
                found.append(f"history is {stored.bodies(ID)}")
            try:
                await repository.append(ID, body(500))
            except SessionStoreError as error:
                found.append(f"no append is possible any more: {error}")
            return found + faults(await read_tables(url))

    return scenario


async def retried_append(url: str, _monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Append the same ids a second time."""
    async with SessionRepository.connect(url) as repository:
        await repository.create(ID)
        messages = [NewMessage(body(number), message_id=str(number)) for number in HISTORY]
        await repository.append(ID, *messages[:3])
        await repository.append(ID, *messages)
        return faults(await read_tables(url))


async def creators_at_once(url: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let two creators insert before either evicts, and look for victims before either goes on."""
    both = asyncio.Barrier(2)
    met: set[tuple[Any, str]] = set()
    send = postgresql._Run._send

    async def meeting(self: Any, sending: Any, name: str, **options: Any) -> Any:
        rows = await send(self, sending, name, **options)
        if name in {"create", "remove_least_recent"} and (self, name) not in met:
            met.add((self, name))
            await both.wait()
        return rows

    async with SessionRepository.connect(url, settings=StoreSettings(session_cap=2)) as repository:
        await SessionRepository.connect(url).create("first")
        monkeypatch.setattr(postgresql._Run, "_send", meeting)
        await asyncio.gather(repository.create("a"), repository.create("b"))
        ids = sorted(key[1] for key in (await read_tables(url)).sessions)
        return [] if ids == ["a", "b"] else [f"over the cap of 2: {ids}"]


def rolled_back(*verbs: Run) -> Scenario:
    """Run verbs inside a transaction of the caller, who then rolls it back."""

    async def scenario(url: str, _monkeypatch: pytest.MonkeyPatch) -> list[str]:
        return await _rolled_back(url, *verbs)

    return scenario


async def _rolled_back(url: str, *verbs: Run) -> list[str]:
    engine = create_async_engine(url)
    try:
        async with SessionRepository.connect(url) as repository:
            await prepare(repository)
        before = await read_tables(url)
        async with engine.connect() as connection:
            within = SessionRepository(engine).within(connection)
            for verb in verbs:
                await verb(within)
            await connection.rollback()
        after = await read_tables(url)
    finally:
        await engine.dispose()
    return [] if after == before else ["something survived the caller's rollback", *faults(after)]


@dataclass(frozen=True)
class Trap:
    """A trap, and a scenario that walks into it.

    Attributes:
        databases: where it exists.
    """

    name: str
    tamper: Callable[[pytest.MonkeyPatch], None]
    scenario: Scenario
    databases: tuple[str, ...] = ("postgresql",)


_OLD = PrunePolicy(max_age=timedelta(days=7), max_sessions=None)
_USED = [*HISTORY, *APPENDED]
_BOTH = ("sqlite", "postgresql")

_TRIM: Run = lambda r: r.trim(ID, 2)  # noqa: E731  # a value of the table below
_APPEND: Run = lambda r: r.append(ID, body(500))  # noqa: E731

TRAPS = (
    Trap("trim in one statement", tampering.trim_in_one_statement, behind_an_append(lambda r: r.trim(ID, 2))),
    Trap("truncate in one", tampering.truncate_in_one_statement, behind_an_append(lambda r: r.truncate(ID, 2))),
    Trap("fork touching first", tampering.fork_touching_first, behind_an_append(lambda r: r.fork(ID, new_id=CHILD))),
    Trap("on conflict do nothing", tampering.append_doing_nothing_on_conflict, retried_append, _BOTH),
    Trap("prune without recheck", tampering.prune_without_recheck, behind_an_append(lambda r: r.prune(_OLD), _USED)),
    Trap("children first", tampering.prune_children_first, behind_an_append(lambda r: r.prune(_OLD), _USED)),
    Trap("evict in the creation", tampering.evict_inside_the_creation, creators_at_once),
    Trap("savepoint without begin", tampering.savepoint_without_begin, rolled_back(_TRIM, _APPEND), ("sqlite",)),
    Trap("joined on the driver", tampering.joined_on_the_driver, rolled_back(_APPEND, _TRIM)),
)
CASES = [
    pytest.param(trap, database, id=f"{trap.name}-{database}".replace(" ", "-"))
    for trap in TRAPS
    for database in trap.databases
]


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """A database of the kind that the trap is about."""
    if request.param == "sqlite":
        return sqlite_url(request.getfixturevalue("sqlite_file"))
    return str(request.getfixturevalue("postgres_database"))


@pytest.mark.parametrize(("trap", "url"), CASES, indirect=["url"])
async def test_code_avoids_the_trap(trap: Trap, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2, P6: the situation in which the trap springs does no harm."""
    assert await trap.scenario(url, monkeypatch) == []


@pytest.mark.parametrize(("trap", "url"), CASES, indirect=["url"])
async def test_trap_would_be_noticed(trap: Trap, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2, P6: with the trap put back, the same check finds the damage."""
    trap.tamper(monkeypatch)
    assert await trap.scenario(url, monkeypatch) != []
