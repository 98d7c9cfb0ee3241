"""The cap: a new session over it evicts the least recently accessed one of its tenant."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    StoreSettings,
    Transcript,
)
from tests.support.repositories import backdate, callers_engine, row_counts, say, set_columns, stored, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine


def capped(engine: AsyncEngine, cap: int | None, tenant: str = "") -> SessionRepository:
    return SessionRepository(engine, tenant=tenant, settings=StoreSettings(session_cap=cap))


async def alive(sessions: SessionRepository, names: str) -> str:
    """Those of the names that exist."""
    return "".join([name for name in names if await sessions.exists(name)])


async def aged(sessions: SessionRepository, names: str) -> None:
    """Sessions with a message, whose recency is that of their order, all in the past."""
    for at, name in enumerate(names):
        await sessions.create(name, metadata={"k": name})
        await sessions.append(name, *talk(2))
        await backdate(sessions, name, timedelta(hours=len(names) - at))


async def test_the_cap_is_a_setting(engine: AsyncEngine) -> None:
    """H05: none by default, at least 1, and it can be read back."""
    bad: list[Any] = [0, -1, 1.5, True, "3", 100_001]
    for cap in bad:
        with pytest.raises(InvalidArgumentError):
            StoreSettings(session_cap=cap)
    assert StoreSettings().session_cap is None
    assert SessionRepository(engine).settings.session_cap is None
    assert capped(engine, 3).settings.session_cap == 3
    assert capped(engine, 3).for_tenant("other").settings.session_cap == 3
    assert StoreSettings(session_cap=100_000).session_cap == 100_000
    for name in ("settings", "tenant"):
        with pytest.raises(AttributeError):
            setattr(capped(engine, 3), name, "other")
    with pytest.raises(FrozenInstanceError):
        capped(engine, 3).settings.session_cap = 4  # type: ignore[misc]


async def test_without_a_cap_nobody_goes(engine: AsyncEngine) -> None:
    """H05: these rows are durable."""
    sessions = SessionRepository(engine)
    for at in range(120):
        await sessions.open(f"s{at}")
    assert (await row_counts(sessions))["sessionstore_sessions"] == 120


async def test_the_least_recently_accessed_goes(engine: AsyncEngine) -> None:
    """H03, H02: of a, b, c, with a opened again, d sends b away."""
    sessions = capped(engine, 3)
    for name in "abcad":
        await sessions.open(name)
    assert await alive(sessions, "abcd") == "acd"


async def test_a_cap_of_an_engine_of_our_own(lasting_url: str) -> None:
    """H03: as on an engine of the caller's."""
    async with SessionRepository.connect(lasting_url, settings=StoreSettings(session_cap=2)) as sessions:
        for name in "abac":
            await sessions.open(name)
        assert await alive(sessions, "abc") == "ac"


async def test_opening_what_exists_evicts_nobody(engine: AsyncEngine) -> None:
    """H04, H06: at the cap, and over one that was lowered."""
    await aged(capped(engine, None), "abcd")
    for cap in (4, 2):
        sessions = capped(engine, cap)
        for name in "abcd":
            await sessions.open(name)
        with pytest.raises(SessionExistsError):
            await sessions.create("a")
        await sessions.append("a", *talk(1), create=True)
        await sessions.save(await sessions.snapshot("b"))
        await sessions.fork("c", new_id="d", replace=True)
        assert await alive(sessions, "abcd") == "abcd"


NEWCOMERS: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "create": lambda sessions: sessions.create("new"),
    "create with metadata": lambda sessions: sessions.create("new", metadata={"k": 1}),
    "create without an id": lambda sessions: sessions.create(),
    "open": lambda sessions: sessions.open("new"),
    "open without an id": lambda sessions: sessions.open(),
    "append": lambda sessions: sessions.append("new", *talk(2), create=True),
    "append nothing": lambda sessions: sessions.append("new", create=True),
    "save": lambda sessions: sessions.save(Transcript.of("new", talk(2), metadata={"k": 1})),
    "fork": lambda sessions: sessions.fork("d", new_id="new"),
    "fork without an id": lambda sessions: sessions.fork_at("d", 1),
    "fork, replacing nothing": lambda sessions: sessions.fork("d", new_id="new", replace=True),
}


async def test_every_new_session_evicts_down_to_the_cap(engine: AsyncEngine) -> None:
    """H06, H10, H13: all over it at once, with all that belongs to them; the new one stays."""
    for verb, newcomer in NEWCOMERS.items():
        await aged(capped(engine, None, verb), "abcde")
        sessions = capped(engine, 3, verb)

        await newcomer(sessions)

        assert await alive(sessions, "abcde") == "de", verb
        page = await sessions.list_sessions()
        assert len(page.rows) == 3
        [newest] = {row.id for row in page.rows} - {"d", "e"}
        length, session = await sessions.length(newest), await sessions.get(newest)
        assert await row_counts(sessions) == {
            "sessionstore_sessions": 3,
            "sessionstore_messages": 4 + length,
            "sessionstore_metadata": 2 + len(session.metadata),
            "sessionstore_events": 2 + session.next_event,
        }
        await capped(engine, None, verb).delete_all()


async def test_equal_times_are_decided_by_id(engine: AsyncEngine) -> None:
    """H07: the smallest goes, in bytewise order."""
    sessions = capped(engine, 4)
    names = "bBaé"
    for name in names:
        await sessions.create(name)
    moment = (await sessions.get("b")).last_accessed_at - timedelta(hours=1)
    for name in names:
        await set_columns(sessions, name, last_accessed_at=moment)

    survivors = []
    for at in range(4):
        await sessions.create(f"new {at}")
        survivors.append(await alive(sessions, names))
    assert survivors == ["baé", "bé", "é", ""]


READS: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "get": lambda sessions: sessions.get("a"),
    "find": lambda sessions: sessions.find("a"),
    "exists": lambda sessions: sessions.exists("a"),
    "length": lambda sessions: sessions.length("a"),
    "messages": lambda sessions: sessions.messages("a"),
    "messages_json": lambda sessions: sessions.messages_json("a"),
    "snapshot": lambda sessions: sessions.snapshot("a"),
    "iter_messages": lambda sessions: anext(sessions.iter_messages("a")),
    "lineage": lambda sessions: sessions.lineage("a"),
    "list": lambda sessions: sessions.list_sessions(),
}

USES: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "open": lambda sessions: sessions.open("a"),
    "reset": lambda sessions: sessions.reset("a"),
    "trim": lambda sessions: sessions.trim("a", 1),
    "trim of nothing": lambda sessions: sessions.trim("a", 9),
    "append": lambda sessions: sessions.append("a", *talk(1)),
    "append of nothing": lambda sessions: sessions.append("a"),
    "save": lambda sessions: sessions.save(Transcript.of("a", talk(2))),
    "replace": lambda sessions: sessions.replace_messages("a", talk(1)),
    "truncate": lambda sessions: sessions.truncate("a", 1),
    "pop": lambda sessions: sessions.pop("a"),
    "compact": lambda sessions: sessions.compact("a", say("system", "x"), keep_last=0),
    "update": lambda sessions: sessions.update("a", title="x"),
    "set_metadata": lambda sessions: sessions.set_metadata("a", {"x": 1}),
    "fork onto it": lambda sessions: sessions.fork("c", new_id="a", replace=True),
}


async def test_reading_saves_nobody(engine: AsyncEngine) -> None:
    """H08: reads do not change the recency."""
    await aged(capped(engine, None), "abc")
    sessions = capped(engine, 3)
    for read in READS.values():
        await read(sessions)
    await sessions.create("new")
    assert await alive(sessions, "abc") == "bc"


async def test_using_saves(engine: AsyncEngine) -> None:
    """H09: what was used last goes last."""
    for verb, use in USES.items():
        await aged(capped(engine, None, verb), "abc")
        sessions = capped(engine, 3, verb)
        await use(sessions)
        await sessions.create("new")
        assert await alive(sessions, "abc") == "ac", verb


async def test_a_fork_never_evicts_its_source(engine: AsyncEngine) -> None:
    """H21, H09: at a cap of 2 the other goes, although the source was the older."""
    await aged(capped(engine, None), "ab")
    sessions = capped(engine, 2)
    await sessions.fork("a", new_id="c")
    assert await alive(sessions, "abc") == "ac"
    assert await stored(sessions, "c") == talk(2)


async def test_a_fork_at_a_cap_of_one(engine: AsyncEngine) -> None:
    """H21: the child survives, with all of its content."""
    await aged(capped(engine, None), "a")
    sessions = capped(engine, 1)
    await sessions.fork("a", new_id="b")
    assert await alive(sessions, "ab") == "b"
    assert await stored(sessions, "b") == talk(2)
    assert (await sessions.get("b")).metadata == {"k": "a"}
    assert (await sessions.get("b")).parent_id == "a"


async def test_a_cap_of_one(engine: AsyncEngine) -> None:
    """H03: each new session takes the place of the one before."""
    sessions = capped(engine, 1)
    for name in "abc":
        await sessions.open(name)
        assert await alive(sessions, "abc") == name


async def test_the_cap_is_of_a_tenant(engine: AsyncEngine) -> None:
    """H03: the sessions of others neither count nor go."""
    other = capped(engine, None, "other")
    await aged(other, "abc")
    sessions = capped(engine, 2)
    for name in "abc":
        await sessions.open(name)
    assert await alive(sessions, "abc") == "bc"
    assert await alive(other, "abc") == "abc"


async def test_an_evicted_id_starts_empty(engine: AsyncEngine) -> None:
    """H10, H13: as a deleted one."""
    await aged(capped(engine, None), "ab")
    sessions = capped(engine, 2)
    await sessions.create("c")
    again = await sessions.open("a")
    assert (again.length, again.metadata, again.version) == (0, {}, 0)
    assert await sessions.append("a", *talk(1)) == [0]


async def test_a_failed_creation_evicts_nobody(engine: AsyncEngine) -> None:
    """H17: nor does a fork of what is not there."""
    await aged(capped(engine, None), "abc")
    sessions = capped(engine, 2)
    with pytest.raises(SessionNotFoundError):
        await sessions.fork("nobody", new_id="new")
    with pytest.raises(SessionExistsError):
        await sessions.fork("a", new_id="b")
    assert await alive(sessions, "abc") == "abc"


async def test_the_cap_within_a_transaction_of_the_caller(lasting_url: str) -> None:
    """H03: best effort: what the transaction sees is brought down to the cap, and comes back with its rollback."""
    engine = callers_engine(lasting_url)
    async with capped(engine, 2) as outside:
        await aged(outside, "ab")
        async with engine.connect() as connection:
            inside = outside.within(connection)
            await inside.create("c")
            assert await alive(inside, "abc") == "bc"
            await connection.rollback()
        assert await alive(outside, "abc") == "ab"
        assert await stored(outside, "a") == talk(2)
    await engine.dispose()


async def test_every_new_session_within_a_transaction_of_the_caller_evicts(engine: AsyncEngine) -> None:
    """H03, H06: whichever verb brings it there, and whether it was looked for first."""
    for verb, newcomer in NEWCOMERS.items():
        await aged(capped(engine, None, verb), "abcde")
        outside = capped(engine, 3, verb)
        async with engine.connect() as connection:
            inside = outside.within(connection)
            await newcomer(inside)
            assert await alive(inside, "abcde") == "de", verb
            assert len((await inside.list_sessions()).rows) == 3, verb
            await connection.rollback()
        assert await alive(outside, "abcde") == "abcde", verb
