"""What a session is: created, opened, read, changed, reset and deleted."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    NewMessage,
    PrunePolicy,
    PruneThrottle,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    SessionRepository,
    StoreSettings,
)
from tests.support.repositories import backdate, callers_engine, contents, row_counts, say, stored, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncEngine

EVERYTHING: dict[str, Any] = {
    "user_id": "ana",
    "model": "model-1",
    "max_turns": 12,
    "system_message": "Be brief.",
    "title": "Über Schiffe 🚢",
    "metadata": {"project_ids": "p-1", "tags": ["a", {"b": None}]},
}


# --- create and open ------------------------------------------------------------------------------


async def test_create_gives_defaults(every_way: SessionRepository) -> None:
    """F01: nothing given, nothing there; all three times are the one of creation."""
    session = await every_way.create()

    assert (session.model, session.max_turns, session.system_message, session.title) == ("", 0, None, None)
    assert (session.user_id, session.summary, session.metadata) == ("", None, {})
    assert (session.active_seed_id, session.active_persona_id) == (None, None)
    assert (session.parent_id, session.fork_position) == (None, None)
    assert (session.first_position, session.next_position, session.length) == (0, 0, 0)
    assert (session.version, session.next_event) == (0, 1)
    assert session.created_at == session.updated_at == session.last_accessed_at
    assert await every_way.get(session.id) == session
    assert await every_way.messages(session.id) == []


async def test_create_keeps_what_is_given(every_way: SessionRepository) -> None:
    """F02: columns and metadata come back equal."""
    session = await every_way.create("s", **EVERYTHING)

    assert {name: getattr(session, name) for name in EVERYTHING} == EVERYTHING
    assert await every_way.get("s") == session


@pytest.mark.parametrize("verb", ["create", "open"])
async def test_no_id_mints_one(every_way: SessionRepository, verb: str) -> None:
    """H01: the minted id is a UUIDv7, another one each time, and the session is empty."""
    first = await getattr(every_way, verb)()
    second = await getattr(every_way, verb)(None)

    assert [uuid.UUID(session.id).version for session in (first, second)] == [7, 7]
    assert first.id < second.id
    assert await every_way.messages(first.id) == []
    assert (await every_way.snapshot(first.id)).derived_events == ()
    assert (first.summary, first.metadata) == (None, {})


async def test_create_refuses_an_id_that_exists(every_way: SessionRepository) -> None:
    """H02: the existing session stays as it is."""
    before = await every_way.create("s", **EVERYTHING)

    with pytest.raises(SessionExistsError) as error:
        await every_way.create("s", title="another", metadata={"x": 1})

    assert error.value.session_id == "s"
    assert await every_way.get("s") == before


async def test_open_twice_is_one_session(every_way: SessionRepository) -> None:
    """H02, O09: the second open changes only the recency, whatever it is given."""
    await every_way.open("s", **EVERYTHING)
    await every_way.append("s", *talk(3))
    before = await backdate(every_way, "s")

    again = await every_way.open("s", user_id="ana", model="other", title="other", metadata={"other": 1})

    assert again.last_accessed_at > before.last_accessed_at
    after = await every_way.get("s")
    assert after == again
    assert {name: getattr(after, name) for name in EVERYTHING} == EVERYTHING
    unmoved = ("version", "generation", "created_at", "updated_at", "first_position", "next_position")
    assert [getattr(after, name) for name in unmoved] == [getattr(before, name) for name in unmoved]
    assert await row_counts(every_way, ["sessionstore_sessions"]) == {"sessionstore_sessions": 1}


async def test_open_creates_what_is_missing(sessions: SessionRepository) -> None:
    """O09: with all it is given."""
    session = await sessions.open("s", **EVERYTHING)

    assert {name: getattr(session, name) for name in EVERYTHING} == EVERYTHING
    assert session.version == 0
    assert await sessions.get("s") == session


async def test_open_refuses_the_session_of_another_user(every_way: SessionRepository) -> None:
    """O09: a session is not handed over to who happens to know its id; nothing moves."""
    await every_way.create("s", user_id="ana")
    before = await backdate(every_way, "s")

    with pytest.raises(SessionOwnerError) as error:
        await every_way.open("s", user_id="bob")

    assert error.value.session_id == "s"
    assert await every_way.get("s") == before


@pytest.mark.parametrize(("owner", "asking"), [("", "bob"), ("ana", ""), ("ana", "ana"), ("", "")])
async def test_open_without_a_conflict_of_owners(sessions: SessionRepository, owner: str, asking: str) -> None:
    """O09: an empty user id conflicts with nobody, and opening never changes the owner."""
    await sessions.create("s", user_id=owner)

    assert (await sessions.open("s", user_id=asking)).user_id == owner
    assert (await sessions.get("s")).user_id == owner


# --- read -----------------------------------------------------------------------------------------


async def test_find_and_get_of_a_missing_session(every_way: SessionRepository) -> None:
    """F07, O08: find gives None where get raises and names the id."""
    assert await every_way.find("nobody") is None
    with pytest.raises(SessionNotFoundError, match="nobody") as error:
        await every_way.get("nobody")
    assert error.value.session_id == "nobody"


async def test_find_and_get_for_a_user(sessions: SessionRepository) -> None:
    """O09: the session of another user is answered like a missing one."""
    session = await sessions.create("s", user_id="ana")

    assert await sessions.get("s", user_id="ana") == await sessions.find("s", user_id="ana") == session
    assert await sessions.find("s", user_id="bob") is None
    with pytest.raises(SessionNotFoundError) as other:
        await sessions.get("s", user_id="bob")
    await sessions.delete("s")
    with pytest.raises(SessionNotFoundError) as missing:
        await sessions.get("s", user_id="bob")
    assert str(other.value) == str(missing.value)


async def test_exists(every_way: SessionRepository) -> None:
    """H10: false for unknown and deleted ids."""
    assert not await every_way.exists("s")
    await every_way.create("s")
    assert await every_way.exists("s") is True
    await every_way.delete("s")
    assert await every_way.exists("s") is False


async def test_length(every_way: SessionRepository) -> None:
    """H11: unknown raises, 0 when empty, n otherwise; what was trimmed does not count."""
    with pytest.raises(SessionNotFoundError):
        await every_way.length("s")
    await every_way.create("s")
    assert await every_way.length("s") == 0
    await every_way.append("s", *talk(5))
    assert await every_way.length("s") == 5
    await every_way.trim("s", 2)
    assert await every_way.length("s") == 2
    assert (await every_way.get("s")).length == 2


async def test_pages_give_every_session_once(every_way: SessionRepository) -> None:
    """F12: newest change first, ties by id, page by page."""
    for name in "abcde":
        await every_way.create(name)
    await every_way.append("b", say("user", "hello"))

    first = await every_way.list_sessions(limit=2)
    second = await every_way.list_sessions(limit=2, cursor=first.cursor)
    third = await every_way.list_sessions(limit=2, cursor=second.cursor)

    listed = [row.id for page in (first, second, third) for row in page.rows]
    assert listed[0] == "b"
    assert sorted(listed) == list("abcde")
    assert third.cursor is None


# --- ids ------------------------------------------------------------------------------------------

ODD_IDS = (
    "x",
    "../../etc/passwd",
    "a/b\\c",
    "'; drop table sessionstore_sessions; --",
    "%",
    "_",
    "a b",
    "ключ",
    "é",
    "e\u0301",
    "A",
    "a",
    "🚢" * 128,
    "x" * 255,
    "{}",
    '"',
)


async def test_ids_are_opaque_text(sessions: SessionRepository) -> None:
    """F13, O07: ids that look alike, or like paths and SQL, are as many different sessions."""
    for at, name in enumerate(ODD_IDS):
        await sessions.create(name, title=str(at))
        await sessions.append(name, say("user", at))

    assert [(await sessions.get(name)).title for name in ODD_IDS] == [str(at) for at in range(len(ODD_IDS))]
    assert [contents(await sessions.messages(name)) for name in ODD_IDS] == [[at] for at in range(len(ODD_IDS))]
    assert await row_counts(sessions, ["sessionstore_sessions"]) == {"sessionstore_sessions": len(ODD_IDS)}


async def test_a_uuid_is_its_text(sessions: SessionRepository) -> None:
    """F13: UUID objects are taken as ids everywhere."""
    name = uuid.uuid4()
    session = await sessions.create(name)  # type: ignore[arg-type]

    assert session.id == str(name)
    assert await sessions.exists(str(name))
    assert await sessions.append(name, say("user", "hello")) == [0]  # type: ignore[arg-type]


async def test_what_is_no_id_is_refused(sessions: SessionRepository) -> None:
    """O07: by every verb, before anything is stored."""
    await sessions.create("s")
    bad: list[Any] = ["", " ", " x", "x ", "a\nb", "a\0b", "\ud800", "x" * 256, "🚢" * 129, "a\u200bb", 1, b"x", 1.0]
    for value in bad:
        for call in _calls(sessions, value):
            with pytest.raises(InvalidArgumentError):
                await call
        for refused in (sessions.create(value), sessions.open(value), sessions.fork("s", new_id=value)):
            with pytest.raises(InvalidArgumentError):
                await refused
    assert await row_counts(sessions, ["sessionstore_sessions"]) == {"sessionstore_sessions": 1}


async def test_an_id_is_required_where_nothing_is_made(sessions: SessionRepository) -> None:
    """O07: None mints an id only for a new session."""
    for call in _calls(sessions, None):
        with pytest.raises(InvalidArgumentError):
            await call


def _calls(sessions: SessionRepository, session_id: Any) -> list[Awaitable[object]]:
    """Every verb on one session."""
    return [
        sessions.get(session_id),
        sessions.find(session_id),
        sessions.exists(session_id),
        sessions.length(session_id),
        sessions.update(session_id, title="x"),
        sessions.set_metadata(session_id, {"x": 1}),
        sessions.reset(session_id),
        sessions.delete(session_id),
        sessions.append(session_id, say("user", "x")),
        sessions.append(session_id),
        sessions.append(session_id, say("user", "x"), create=True),
        sessions.messages(session_id),
        sessions.messages_json(session_id),
        anext(sessions.iter_messages(session_id)),
        sessions.replace_messages(session_id, []),
        sessions.compact(session_id, say("system", "x"), keep_last=1),
        sessions.trim(session_id, 1),
        sessions.truncate(session_id, 1),
        sessions.pop(session_id),
        sessions.fork(session_id),
        sessions.fork_at(session_id, 1),
        sessions.lineage(session_id),
        sessions.snapshot(session_id),
    ]


NEED_ONE: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "get": lambda sessions: sessions.get("nobody"),
    "length": lambda sessions: sessions.length("nobody"),
    "update": lambda sessions: sessions.update("nobody", title="x"),
    "set_metadata": lambda sessions: sessions.set_metadata("nobody", {"x": 1}),
    "reset": lambda sessions: sessions.reset("nobody"),
    "append": lambda sessions: sessions.append("nobody", *talk(2)),
    "append nothing": lambda sessions: sessions.append("nobody"),
    "append with an id": lambda sessions: sessions.append("nobody", NewMessage(say("user", "x"), message_id="m")),
    "append expecting": lambda sessions: sessions.append("nobody", *talk(2), expected_length=0),
    "messages": lambda sessions: sessions.messages("nobody"),
    "messages, last": lambda sessions: sessions.messages("nobody", last=2, align="turn"),
    "messages_json": lambda sessions: sessions.messages_json("nobody"),
    "replace_messages": lambda sessions: sessions.replace_messages("nobody", talk(2)),
    "compact": lambda sessions: sessions.compact("nobody", say("system", "x"), keep_last=1),
    "trim": lambda sessions: sessions.trim("nobody", 1),
    "trim, by turn": lambda sessions: sessions.trim("nobody", 1, align="turn"),
    "truncate": lambda sessions: sessions.truncate("nobody", 1),
    "pop": lambda sessions: sessions.pop("nobody"),
    "fork": lambda sessions: sessions.fork("nobody", new_id="child"),
    "fork, replacing": lambda sessions: sessions.fork("nobody", new_id="child", replace=True),
    "fork_at": lambda sessions: sessions.fork_at("nobody", 1, new_id="child"),
    "lineage": lambda sessions: sessions.lineage("nobody"),
    "snapshot": lambda sessions: sessions.snapshot("nobody"),
}


async def test_every_verb_on_an_unknown_session(every_way: SessionRepository) -> None:
    """H11, H13, H17, H24, H26, H29, H30, F03, F04: raises naming the id, and creates no row."""
    for call in NEED_ONE.values():
        with pytest.raises(SessionNotFoundError, match="nobody") as error:
            await call(every_way)
        assert error.value.session_id == "nobody"

    assert await every_way.find("nobody") is None
    assert await every_way.exists("nobody") is False
    assert await every_way.delete("nobody") is False
    assert set((await row_counts(every_way)).values()) == {0}


# --- reset and delete -----------------------------------------------------------------------------


async def test_reset_empties_and_keeps(every_way: SessionRepository) -> None:
    """H14: history, summary and metadata go; who and what the session is stays, and positions begin at 0."""
    await every_way.create("parent")
    await every_way.append("parent", *talk(4))
    await every_way.fork("parent", new_id="s")
    await every_way.set_metadata("s", {"k": 1})
    columns: dict[str, Any] = {
        **{name: EVERYTHING[name] for name in ("user_id", "model", "max_turns", "system_message", "title")},
        "active_seed_id": "seed",
        "active_persona_id": "persona",
    }
    before = await every_way.update("s", summary="short", **columns)

    after = await every_way.reset("s")

    assert (after.first_position, after.next_position, after.summary, after.metadata) == (0, 0, None, {})
    assert {name: getattr(after, name) for name in columns} == columns
    for name in ("id", "created_at", "parent_id", "fork_position"):
        assert getattr(after, name) == getattr(before, name)
    assert (after.parent_id, after.fork_position) == ("parent", 4)
    assert await every_way.get("s") == after
    assert await every_way.messages("s") == []
    assert await every_way.append("s", *talk(2)) == [0, 1]
    assert await every_way.length("parent") == 4


async def test_delete_leaves_nothing(every_way: SessionRepository) -> None:
    """H13, O10, X05: true once, then false; no row is left in any table, and a reused id starts empty."""
    await every_way.create("s", **EVERYTHING)
    await every_way.append("s", *talk(3))
    before = await every_way.get("s")

    assert await every_way.delete("s") is True
    assert set((await row_counts(every_way)).values()) == {0}
    assert await every_way.find("s") is None
    assert await every_way.delete("s") is False

    again = await every_way.open("s")
    assert (again.metadata, again.length, again.title, again.version) == ({}, 0, None, 0)
    assert again.generation > before.generation
    assert await every_way.append("s", *talk(1)) == [0]


async def test_delete_spares_the_others(sessions: SessionRepository) -> None:
    """H13: also those of nearly the same id, and the same id of another tenant."""
    other = sessions.for_tenant("other")
    for handle, name in ((sessions, "s"), (sessions, "S"), (sessions, "s%"), (other, "s")):
        await handle.create(name, metadata={"k": 1})
        await handle.append(name, *talk(2))

    await sessions.delete("s")

    assert not await sessions.exists("s")
    for handle, name in ((sessions, "S"), (sessions, "s%"), (other, "s")):
        assert await stored(handle, name) == talk(2)
        assert (await handle.get(name)).metadata == {"k": 1}


async def test_delete_all_empties_one_tenant(engine: AsyncEngine) -> None:
    """H15: and its cap stays."""
    sessions = SessionRepository(engine, tenant="one", settings=StoreSettings(session_cap=2))
    other = SessionRepository(engine, tenant="two")
    for name in "ab":
        await sessions.create(name, metadata={"k": 1})
        await sessions.append(name, *talk(2))
    await other.create("a", metadata={"k": 1})
    await other.append("a", *talk(3))

    assert await sessions.delete_all() == 2

    assert [await sessions.exists(name) for name in "ab"] == [False, False]
    assert await stored(other, "a") == talk(3)
    assert await row_counts(other) == {
        "sessionstore_sessions": 1,
        "sessionstore_messages": 3,
        "sessionstore_metadata": 1,
        "sessionstore_events": 1,
    }
    for name in "abc":
        await sessions.create(name)
    assert [await sessions.exists(name) for name in "abc"] == [False, True, True]


# --- within a transaction of the caller -----------------------------------------------------------


async def test_verbs_of_many_transactions_are_refused_within_one(joined: SessionRepository) -> None:
    """H15: they would commit what is not theirs to commit."""
    await joined.create("s")
    policy, throttle = PrunePolicy(), PruneThrottle(0)
    for call in (
        joined.delete_all(),
        joined.delete_user("ana"),
        joined.prune(policy),
        joined.append_and_prune("s", say("user", "x"), policy=policy, throttle=throttle),
        anext(joined.iter_messages("s")),
    ):
        with pytest.raises(InvalidArgumentError):
            await call
    assert await joined.length("s") == 0


async def test_the_caller_commits(lasting_url: str) -> None:
    """X08: what was done within a transaction is there once the caller commits, and nobody sees it before."""
    engine = callers_engine(lasting_url)
    async with SessionRepository(engine) as outside:
        async with engine.connect() as connection:
            inside = outside.within(connection)
            await inside.create("s", metadata={"k": 1})
            await inside.append("s", *talk(2))
            assert await inside.length("s") == 2
            assert not await outside.exists("s")
            await connection.commit()
        assert await stored(outside, "s") == talk(2)
    await engine.dispose()


async def test_an_empty_user_finds_only_what_is_nobodys(sessions: SessionRepository) -> None:
    """O09: a user that came out empty by mistake reads nobody else's session."""
    await sessions.create("hers", user_id="ada")
    await sessions.create("nobodys")

    assert await sessions.find("hers", user_id="") is None
    with pytest.raises(SessionNotFoundError):
        await sessions.get("hers", user_id="")
    assert (await sessions.get("nobodys", user_id="")).id == "nobodys"
    assert (await sessions.get("hers")).user_id == "ada"
