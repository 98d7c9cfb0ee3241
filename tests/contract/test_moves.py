"""What moves what: version, generation, updated_at and last_accessed_at before and after every verb."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sessionstore import (
    InvalidMessageError,
    MessageIdConflictError,
    NewMessage,
    SessionExistsError,
    SessionOwnerError,
    SessionRepository,
    SessionStoreError,
    Transcript,
    VersionConflictError,
)
from tests.support.repositories import MICROSECOND, backdate, micros, say, set_columns, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionstore import Session

    Verb = Callable[[SessionRepository], Awaitable[object]]


class Move(NamedTuple):
    """A row of the table: growth of the version, and what becomes new."""

    version: int
    generation: bool
    updated_at: bool
    last_accessed_at: bool


NOTHING = Move(0, generation=False, updated_at=False, last_accessed_at=False)
RECENCY = NOTHING._replace(last_accessed_at=True)
CHANGE = RECENCY._replace(version=1, updated_at=True)
REWRITE = CHANGE._replace(generation=True)

SUMMARY = say("system", "before")
SAVED_AT = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


VERBS: dict[str, tuple[Move, Verb]] = {
    "get": (NOTHING, lambda sessions: sessions.get("s")),
    "find": (NOTHING, lambda sessions: sessions.find("s")),
    "exists": (NOTHING, lambda sessions: sessions.exists("s")),
    "length": (NOTHING, lambda sessions: sessions.length("s")),
    "messages": (NOTHING, lambda sessions: sessions.messages("s")),
    "messages of a turn": (NOTHING, lambda sessions: sessions.messages("s", last=1, align="turn")),
    "messages_json": (NOTHING, lambda sessions: sessions.messages_json("s")),
    "lineage": (NOTHING, lambda sessions: sessions.lineage("s")),
    "snapshot": (NOTHING, lambda sessions: sessions.snapshot("s")),
    "list": (NOTHING, lambda sessions: sessions.list_sessions()),
    "open": (RECENCY, lambda sessions: sessions.open("s")),
    "open with other columns": (RECENCY, lambda sessions: sessions.open("s", title="x", metadata={"x": 1})),
    "append": (CHANGE, lambda sessions: sessions.append("s", *talk(3))),
    "append with ids": (CHANGE, lambda sessions: sessions.append("s", NewMessage(say("user", 1), message_id="n"))),
    "append of some known": (
        CHANGE,
        lambda sessions: sessions.append("s", NewMessage(say("user", 0), message_id="m"), say("user", 1)),
    ),
    "append to an expected length": (CHANGE, lambda sessions: sessions.append("s", *talk(1), expected_length=5)),
    "append that would create": (CHANGE, lambda sessions: sessions.append("s", *talk(1), create=True)),
    "update": (CHANGE, lambda sessions: sessions.update("s", title="new")),
    "update of many": (CHANGE, lambda sessions: sessions.update("s", active_seed_id="a", active_persona_id=None)),
    "set_metadata": (CHANGE, lambda sessions: sessions.set_metadata("s", {"k": 2})),
    "set_metadata that removes": (CHANGE, lambda sessions: sessions.set_metadata("s", {}, remove=["k"])),
    "trim": (CHANGE, lambda sessions: sessions.trim("s", 2)),
    "trim by turn": (CHANGE, lambda sessions: sessions.trim("s", 1, align="turn")),
    "trim to nothing": (CHANGE, lambda sessions: sessions.trim("s", 0)),
    "truncate": (REWRITE, lambda sessions: sessions.truncate("s", 2)),
    "pop": (REWRITE, lambda sessions: sessions.pop("s")),
    "replace": (REWRITE, lambda sessions: sessions.replace_messages("s", talk(2))),
    "replace by none": (REWRITE, lambda sessions: sessions.replace_messages("s", [])),
    "compact": (REWRITE, lambda sessions: sessions.compact("s", SUMMARY, keep_last=1)),
    "reset": (REWRITE, lambda sessions: sessions.reset("s")),
    "fork from it": (RECENCY, lambda sessions: sessions.fork("s", new_id="child")),
    "fork_at from it": (RECENCY, lambda sessions: sessions.fork_at("s", 1, new_id="child")),
    "fork from it onto another": (RECENCY, lambda sessions: sessions.fork("s", new_id="other", replace=True)),
    "fork onto it": (REWRITE, lambda sessions: sessions.fork("other", new_id="s", replace=True)),
    "an empty append": (RECENCY, lambda sessions: sessions.append("s")),
    "an empty append that would create": (RECENCY, lambda sessions: sessions.append("s", create=True)),
    "a pop of an empty session": (RECENCY, lambda sessions: sessions.pop("empty")),
    "a trim that drops nothing": (RECENCY, lambda sessions: sessions.trim("s", 5)),
    "a trim by turn that drops nothing": (RECENCY, lambda sessions: sessions.trim("s", 4, align="turn")),
    "a trim of an empty session": (RECENCY, lambda sessions: sessions.trim("empty", 0)),
}


async def prepare(sessions: SessionRepository) -> None:
    """Sessions of an hour ago: one of five messages, an empty one, and another."""
    await sessions.create("s", metadata={"k": 1}, title="old")
    roles = ("user", "assistant", "user", "assistant")
    batch = [say(role, at) for at, role in enumerate(roles)]
    await sessions.append("s", *batch, NewMessage(say("user", 0), message_id="m"))
    await sessions.update("s", summary="short")
    await sessions.create("empty")
    await sessions.create("other")
    await sessions.append("other", *talk(3))
    for name in ("s", "empty", "other"):
        await backdate(sessions, name)


def assert_moved(before: Session, after: Session, move: Move, began: datetime, ended: datetime) -> None:
    """What moves is of the time of the call; what does not is what it was."""
    assert after.version == before.version + move.version
    assert after.created_at == before.created_at
    for name in ("updated_at", "last_accessed_at"):
        if getattr(move, name):
            assert began <= getattr(after, name) <= ended, name
        else:
            assert getattr(after, name) == getattr(before, name), name
    if move.generation:
        assert micros(began) <= after.generation <= micros(ended)
    else:
        assert after.generation == before.generation


async def test_what_every_verb_moves(every_way: SessionRepository) -> None:
    """H08, H09, O02: the whole table, verb by verb."""
    handles = [every_way.for_tenant(f"tenant {at}") for at in range(len(VERBS))]
    for sessions, (verb, (move, call)) in zip(handles, VERBS.items(), strict=True):
        await prepare(sessions)
        name = "empty" if "empty session" in verb else "s"
        before = await sessions.get(name)

        began = datetime.now(UTC)
        await call(sessions)
        ended = datetime.now(UTC)

        try:
            assert_moved(before, await sessions.get(name), move, began, ended)
        except AssertionError as error:
            raise AssertionError(verb) from error


async def test_iterating_moves_nothing(sessions: SessionRepository) -> None:
    """H08: it reads."""
    await prepare(sessions)
    before = await sessions.get("s")
    assert len([message async for message in sessions.iter_messages("s", batch_size=2)]) == 5
    assert await sessions.get("s") == before


RETURNS: dict[str, Verb] = {
    name: VERBS[name][1]
    for name in ("open", "update", "set_metadata", "set_metadata that removes", "replace", "compact", "reset")
} | {"fork onto it": VERBS["fork onto it"][1]}


async def test_what_is_returned_is_what_is_stored(every_way: SessionRepository) -> None:
    """O02: verbs that return a session return it as it is now."""
    for at, (verb, call) in enumerate(RETURNS.items()):
        sessions = every_way.for_tenant(f"tenant {at}")
        await prepare(sessions)
        assert await call(sessions) == await sessions.get("s"), verb


async def test_a_new_session_has_one_time(every_way: SessionRepository) -> None:
    """O01: created_at, updated_at, last_accessed_at and generation are the moment of creation, the version is 0."""
    began = datetime.now(UTC)
    made = [await every_way.create("a"), await every_way.open("b", metadata={"k": 1}), await every_way.open()]
    ended = datetime.now(UTC)
    for session in made:
        assert began <= session.created_at <= ended
        assert session.created_at == session.updated_at == session.last_accessed_at
        assert (session.generation, session.version) == (micros(session.created_at), 0)
        assert await every_way.get(session.id) == session


async def test_a_child_begins_now(every_way: SessionRepository) -> None:
    """H09, H19: with version 0 and a generation of its own, whatever its parent had."""
    await prepare(every_way)
    began = datetime.now(UTC)
    children = [await every_way.fork("s"), await every_way.fork_at("s", 2), await every_way.fork("s", replace=True)]
    ended = datetime.now(UTC)
    for child in children:
        for name in ("created_at", "updated_at", "last_accessed_at"):
            assert began <= getattr(child, name) <= ended
        assert micros(began) <= child.generation <= micros(ended)
        assert child.version == 0


async def test_what_a_save_moves(every_way: SessionRepository) -> None:
    """H09, O05: updated_at is the transcript's, also an older one; the generation is new where history changed."""
    cases: dict[str, tuple[list[dict[str, Any]], bool]] = {
        "the same": (talk(4), False),
        "a new tail": (talk(6), False),
        "another history": ([*talk(3), say("user", "other")], True),
        "less": (talk(2), True),
    }
    for name, (messages, changed) in cases.items():
        await every_way.create(name)
        await every_way.append(name, *talk(4))
        before = await backdate(every_way, name)
        for updated_at, rewritten in ((SAVED_AT, changed), (before.updated_at + timedelta(days=9), False)):
            transcript = Transcript.of(name, messages, created_at=before.created_at, updated_at=updated_at)
            began = datetime.now(UTC)
            saved = await every_way.save(transcript)
            ended = datetime.now(UTC)

            assert saved == await every_way.get(name)
            move = Move(1, generation=rewritten, updated_at=False, last_accessed_at=True)
            assert_moved(replace(before, updated_at=updated_at), saved, move, began, ended)
            before = saved


async def test_a_saved_new_session(every_way: SessionRepository) -> None:
    """O05, O08: has version 0, a generation of now, and the transcript's times."""
    began = datetime.now(UTC)
    saved = await every_way.save(Transcript.of("new", talk(2), created_at=SAVED_AT, updated_at=SAVED_AT))
    ended = datetime.now(UTC)
    assert (saved.created_at, saved.updated_at, saved.version) == (SAVED_AT, SAVED_AT, 0)
    assert began <= saved.last_accessed_at <= ended
    assert micros(began) <= saved.generation <= micros(ended)


async def test_updated_at_never_goes_back(sessions: SessionRepository) -> None:
    """O02: also where the clock of another process has been ahead; all else moves as ever."""
    back = []
    for at, (verb, (move, call)) in enumerate(VERBS.items()):
        handle = sessions.for_tenant(f"tenant {at}")
        await prepare(handle)
        ahead = (await handle.get("s")).updated_at + timedelta(days=1)
        await set_columns(handle, "s", updated_at=ahead)
        before = await handle.get("s")
        await call(handle)
        after = await handle.get("s")
        if after.updated_at != ahead:
            back.append(verb)
        if "empty session" not in verb:
            assert after.version == before.version + move.version, verb
    assert back == []


async def test_updated_at_goes_back_by_save(sessions: SessionRepository) -> None:
    """O05: a saved transcript keeps its own."""
    saved = await sessions.save(Transcript.of("s", created_at=SAVED_AT, updated_at=SAVED_AT))
    saved = await sessions.save(Transcript.of("s", created_at=SAVED_AT, updated_at=SAVED_AT - MICROSECOND))
    assert saved.updated_at == SAVED_AT - MICROSECOND


FAILURES: dict[str, tuple[type[SessionStoreError], Verb]] = {
    "append": (InvalidMessageError, lambda sessions: sessions.append("s", say("user", 1), {})),
    "append of a taken id": (
        MessageIdConflictError,
        lambda sessions: sessions.append("s", NewMessage(say("user", 1), message_id="m")),
    ),
    "append to another length": (
        VersionConflictError,
        lambda sessions: sessions.append("s", say("user", 1), expected_length=4),
    ),
    "create": (SessionExistsError, lambda sessions: sessions.create("s")),
    "open": (SessionOwnerError, lambda sessions: sessions.open("s", user_id="bob")),
    "update": (VersionConflictError, lambda sessions: sessions.update("s", title="x", expected_version=0)),
    "replace": (VersionConflictError, lambda sessions: sessions.replace_messages("s", [], expected_version=0)),
    "compact": (VersionConflictError, lambda sessions: sessions.compact("s", SUMMARY, keep_last=1, expected_version=0)),
    "save": (VersionConflictError, lambda sessions: sessions.save(Transcript.of("s"), expected_version=0)),
    "fork onto it": (SessionExistsError, lambda sessions: sessions.fork("other", new_id="s")),
}


async def test_what_fails_moves_nothing(every_way: SessionRepository) -> None:
    """H29, X03: all of a call or none of it."""
    await prepare(every_way)
    await every_way.update("s", user_id="ana")
    before = await backdate(every_way, "s")
    for verb, (error, call) in FAILURES.items():
        with pytest.raises(error):
            await call(every_way)
        assert await every_way.get("s") == before, verb
