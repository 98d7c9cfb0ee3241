"""Verbs that change a history: replace, compact, trim, truncate, pop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    MessageIdConflictError,
    NewMessage,
    SessionRepository,
)
from tests.support.repositories import contents, positions, say, set_columns, stored, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sessionstore import Session

NO_COUNTS: tuple[Any, ...] = (-1, 1.5, True, "7", None, 2**63)
COLUMNS: dict[str, Any] = {
    "user_id": "ana",
    "model": "model-1",
    "max_turns": 12,
    "system_message": "Be brief.",
    "title": "Ships",
    "active_seed_id": "seed",
    "active_persona_id": "persona",
}


async def a_session(sessions: SessionRepository, length: int = 4) -> Session:
    """With everything that a rewrite might drop by accident."""
    await sessions.create("s", metadata={"k": [1]})
    await sessions.append("s", *talk(length))
    return await sessions.update("s", summary="short", **COLUMNS)


def kept(session: Session) -> dict[str, Any]:
    """What no rewrite of messages may change."""
    names = (*COLUMNS, "id", "metadata", "created_at", "parent_id", "fork_position")
    return {name: getattr(session, name) for name in names}


# --- trim -----------------------------------------------------------------------------------------


async def test_trim_keeps_the_last(every_way: SessionRepository) -> None:
    """H26: of four, two: they keep their positions, and the next append goes on after them."""
    before = await a_session(every_way)

    assert await every_way.trim("s", 2) == 2

    messages = await every_way.messages("s")
    assert (positions(messages), contents(messages)) == ([2, 3], ["message 2", "message 3"])
    after = await every_way.get("s")
    assert (after.first_position, after.next_position, after.length) == (2, 4, 2)
    assert kept(after) == kept(before)
    assert after.summary == "short"
    assert await every_way.append("s", *talk(1)) == [4]


LEFT_OF_FOUR = {0: 0, 1: 1, 3: 3, 4: 4, 5: 4, 100: 4, 2**63 - 1: 4}
"""How many of four messages are kept, by how many should be."""


async def test_trim_to_any_number(sessions: SessionRepository) -> None:
    """H26: 0 empties, beyond the length keeps all; again it drops nothing more."""
    for keep, left in LEFT_OF_FOUR.items():
        handle = sessions.for_tenant(str(keep))
        await a_session(handle)

        assert await handle.trim("s", keep) == left
        assert await handle.length("s") == left
        assert await stored(handle, "s") == talk(4)[4 - left :]
        assert await handle.trim("s", keep) == left
        assert await handle.append("s", *talk(1)) == [4]


async def test_trim_of_one_to_a_hundred(sessions: SessionRepository) -> None:
    """H26: keeps the one; and of an empty session nothing."""
    await a_session(sessions, 1)
    assert await sessions.trim("s", 100) == 1
    assert await sessions.trim("s", 0) == 0
    assert await sessions.trim("s", 0) == 0
    assert await sessions.trim("s", 5, align="turn") == 0


async def test_trim_never_reuses_a_position(sessions: SessionRepository) -> None:
    """H26: not even when all are dropped."""
    await sessions.create("s")
    for first in range(0, 9, 3):
        assert await sessions.append("s", *talk(3)) == [first, first + 1, first + 2]
        assert await sessions.trim("s", 0) == 0
    assert (await sessions.get("s")).first_position == 9


async def test_trim_by_turn(every_way: SessionRepository) -> None:
    """H26: the cut moves back to the nearest user message, and the number kept says so."""
    await every_way.create("s")
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant", "tool", "assistant"]
    await every_way.append("s", *[say(role, at) for at, role in enumerate(roles)])

    assert await every_way.trim("s", 7, align="turn") == 8
    assert await every_way.trim("s", 2, align="turn") == 4
    assert contents(await every_way.messages("s")) == [4, 5, 6, 7]
    assert await every_way.trim("s", 4, align="turn") == 4
    assert await every_way.trim("s", 0, align="turn") == 0


async def test_trim_by_turn_finds_no_user(sessions: SessionRepository) -> None:
    """H26: then the cut stays exact; what was trimmed away begins no turn."""
    await sessions.create("s")
    await sessions.append("s", say("user", 0), *[say("tool", at) for at in range(1, 6)])
    await sessions.trim("s", 5)
    assert await sessions.trim("s", 2, align="turn") == 2
    assert contents(await sessions.messages("s")) == [4, 5]


# --- truncate -------------------------------------------------------------------------------------


async def test_truncate_keeps_the_first(every_way: SessionRepository) -> None:
    """H27: the newest go, and the summary with them; the next append takes their positions."""
    before = await a_session(every_way, 5)
    await every_way.trim("s", 4)

    assert await every_way.truncate("s", 2) == 2

    assert positions(await every_way.messages("s")) == [1, 2]
    after = await every_way.get("s")
    assert (after.first_position, after.next_position, after.summary) == (1, 3, None)
    assert kept(after) == kept(before)
    assert after.generation > before.generation
    assert await every_way.append("s", *talk(1)) == [3]


async def test_truncate_to_any_number(sessions: SessionRepository) -> None:
    """H27: 0 empties, beyond the length keeps all."""
    for keep, left in LEFT_OF_FOUR.items():
        handle = sessions.for_tenant(str(keep))
        await a_session(handle)

        assert await handle.truncate("s", keep) == left
        assert await stored(handle, "s") == talk(4)[:left]
        assert await handle.append("s", *talk(1)) == [left]


async def test_truncate_of_a_trimmed_session_to_nothing(sessions: SessionRepository) -> None:
    """H27: what was trimmed stays trimmed."""
    await a_session(sessions, 5)
    await sessions.trim("s", 2)
    assert await sessions.truncate("s", 0) == 0
    session = await sessions.get("s")
    assert (session.first_position, session.next_position) == (3, 3)


# --- pop ------------------------------------------------------------------------------------------


async def test_pop_takes_the_newest(every_way: SessionRepository) -> None:
    """H27: until there is none; each comes back as it was stored."""
    before = await a_session(every_way, 0)
    await every_way.append("s", NewMessage(say("user", "a", x=1.0), message_id="m"), say("tool", "b"))
    history = await every_way.messages("s")

    assert await every_way.pop("s") == history[1]
    assert await every_way.messages("s") == history[:1]
    assert await every_way.pop("s") == history[0]
    assert await every_way.pop("s") is None

    after = await every_way.get("s")
    assert (after.first_position, after.next_position) == (0, 0)
    assert kept(after) == kept(before)
    assert await every_way.append("s", *talk(1)) == [0]


async def test_pop_after_a_trim(sessions: SessionRepository) -> None:
    """H27: the last kept one goes, and nothing below it."""
    await a_session(sessions)
    await sessions.trim("s", 1)
    popped = await sessions.pop("s")
    assert popped is not None
    assert (popped.position, popped.body) == (3, talk(4)[3])
    assert await sessions.pop("s") is None
    assert (await sessions.get("s")).first_position == 3


# --- replace_messages -----------------------------------------------------------------------------


async def test_replace_messages(every_way: SessionRepository) -> None:
    """H32: another history from position 0; title, metadata and columns stay."""
    before = await a_session(every_way, 5)
    await every_way.trim("s", 3)
    other = [say("user", "other", z=1, a=2), say("bot", "history")]

    after = await every_way.replace_messages("s", other)

    assert (after.first_position, after.next_position) == (0, 2)
    assert kept(after) == kept(before)
    assert after.summary == "short"
    assert after.generation > before.generation
    assert await every_way.get("s") == after
    assert await stored(every_way, "s") == other
    assert await every_way.append("s", *talk(1)) == [2]


async def test_replace_messages_by_none(sessions: SessionRepository) -> None:
    """H32: empties the history."""
    await a_session(sessions)
    assert (await sessions.replace_messages("s", [])).length == 0
    assert await sessions.messages("s") == []


async def test_replace_messages_by_many(sessions: SessionRepository) -> None:
    """H32: longer than a batch of `append` may be, from any iterable."""
    await a_session(sessions)
    length = 10_500
    session = await sessions.replace_messages("s", (say("user", at) for at in range(length)))

    assert session.length == length
    assert contents(await sessions.messages("s", first=2)) == [0, 1]
    assert contents(await sessions.messages("s", last=2)) == [length - 2, length - 1]


async def test_replace_messages_with_a_bad_one(every_way: SessionRepository) -> None:
    """F05: nothing changes, however late it comes."""
    before = await a_session(every_way)
    with pytest.raises(InvalidMessageError, match="message 5"):
        await every_way.replace_messages("s", [*talk(5), say("user", float("nan"))])
    assert await every_way.get("s") == before
    assert await stored(every_way, "s") == talk(4)


# --- compact --------------------------------------------------------------------------------------

SUMMARY = say("system", "what was said before", compacted=True)


async def test_compact_replaces_the_oldest(every_way: SessionRepository) -> None:
    """H37: by the summary, at the position before a suffix that begins at a user message."""
    before = await a_session(every_way, 10)

    after = await every_way.compact("s", SUMMARY, keep_last=3)

    assert (after.first_position, after.next_position, after.length) == (5, 10, 5)
    messages = await every_way.messages("s")
    assert positions(messages) == [5, 6, 7, 8, 9]
    assert await stored(every_way, "s") == [SUMMARY, *talk(10)[6:]]
    assert [message.role for message in messages[:2]] == ["system", "user"]
    assert kept(after) == kept(before)
    assert after.summary == "short"
    assert after.generation > before.generation
    assert await every_way.get("s") == after
    assert await every_way.append("s", *talk(1)) == [10]


async def test_compact_at_a_user_message(sessions: SessionRepository) -> None:
    """H37: a cut that is right already stays."""
    await a_session(sessions, 10)
    assert (await sessions.compact("s", SUMMARY, keep_last=4)).first_position == 5
    assert await stored(sessions, "s") == [SUMMARY, *talk(10)[6:]]


async def test_compact_again(every_way: SessionRepository) -> None:
    """H37: the old summary goes into the new one."""
    await a_session(every_way, 10)
    await every_way.compact("s", SUMMARY, keep_last=4)
    await every_way.append("s", *talk(4))
    again = say("system", "and before that")

    await every_way.compact("s", again, keep_last=4)

    messages = await every_way.messages("s")
    assert positions(messages) == [9, 10, 11, 12, 13]
    assert await stored(every_way, "s") == [again, *talk(4)]


async def test_compact_without_a_user_message(sessions: SessionRepository) -> None:
    """H37: the cut is exact."""
    await sessions.create("s")
    await sessions.append("s", *[say("tool", at) for at in range(6)])
    await sessions.compact("s", SUMMARY, keep_last=2)
    assert positions(await sessions.messages("s")) == [3, 4, 5]
    assert await stored(sessions, "s") == [SUMMARY, say("tool", 4), say("tool", 5)]


async def test_compact_everything(sessions: SessionRepository) -> None:
    """H37: keeping none leaves the summary alone, in the place of the newest."""
    await a_session(sessions, 6)
    after = await sessions.compact("s", NewMessage({"text": "all"}, role="note", message_id="m"), keep_last=0)
    assert (after.first_position, after.next_position) == (5, 6)
    [message] = await sessions.messages("s")
    assert (message.position, message.role, message.message_id, message.body) == (5, "note", "m", {"text": "all"})


NOTHING_TO_COMPACT: dict[str, tuple[int, int]] = {
    "as long as what is kept": (4, 4),
    "shorter than what is kept": (4, 2**63 - 1),
    "one turn that is longer than what is kept": (2, 1),
    "empty": (0, 0),
}
"""Length of the session, and keep_last."""


async def test_compact_of_nothing(every_way: SessionRepository) -> None:
    """H37: is a no-op."""
    for case, (length, keep) in NOTHING_TO_COMPACT.items():
        sessions = every_way.for_tenant(case)
        before = await a_session(sessions, length)

        after = await sessions.compact("s", SUMMARY, keep_last=keep)

        assert await stored(sessions, "s") == talk(length)
        for name in ("version", "generation", "updated_at", "first_position", "next_position", "summary"):
            assert getattr(after, name) == getattr(before, name), case
        assert await sessions.get("s") == after
        assert kept(after) == kept(before)


async def test_compact_with_a_bad_summary(every_way: SessionRepository) -> None:
    """H37, F05: nothing changes where the summary is no message, or its id is that of one that is kept."""
    await a_session(every_way, 6)
    await every_way.append("s", NewMessage(say("user", "kept"), message_id="m"))
    before, history = await every_way.get("s"), await every_way.messages("s")

    with pytest.raises(InvalidMessageError):
        await every_way.compact("s", {"content": "no role"}, keep_last=2)
    with pytest.raises(MessageIdConflictError) as error:
        await every_way.compact("s", NewMessage(SUMMARY, message_id="m"), keep_last=1)

    assert (error.value.session_id, error.value.message_id) == ("s", "m")
    after = await every_way.get("s")
    assert (after.version, after.generation, after.updated_at) == (before.version, before.generation, before.updated_at)
    assert await every_way.messages("s") == history


async def test_compact_may_use_the_id_of_what_it_replaces(sessions: SessionRepository) -> None:
    """H37: as when an older summary gives way to a newer one."""
    await sessions.create("s")
    await sessions.append("s", NewMessage(say("system", "old"), message_id="summary"), *talk(4))
    await sessions.compact("s", NewMessage(SUMMARY, message_id="summary"), keep_last=2)
    assert await stored(sessions, "s") == [SUMMARY, *talk(4)[2:]]


# --- all of them ----------------------------------------------------------------------------------

COUNTED: dict[str, Callable[[SessionRepository, Any], Awaitable[object]]] = {
    "trim": lambda sessions, keep: sessions.trim("s", keep),
    "trim by turn": lambda sessions, keep: sessions.trim("s", keep, align="turn"),
    "truncate": lambda sessions, keep: sessions.truncate("s", keep),
    "compact": lambda sessions, keep: sessions.compact("s", SUMMARY, keep_last=keep),
    "fork_at": lambda sessions, keep: sessions.fork_at("s", keep, new_id="child"),
}


async def test_what_is_no_count_is_refused(sessions: SessionRepository) -> None:
    """H24, H26: negative numbers and other types, before anything changes."""
    before = await a_session(sessions)
    for verb in COUNTED.values():
        for value in NO_COUNTS:
            with pytest.raises(InvalidArgumentError):
                await verb(sessions, value)
    assert await sessions.get("s") == before
    assert await stored(sessions, "s") == talk(4)
    assert not await sessions.exists("child")


async def test_an_align_that_is_unknown_is_refused(sessions: SessionRepository) -> None:
    """H26: not taken for the default."""
    await a_session(sessions)
    bad: list[Any] = ["turns", "", None]
    for align in bad:
        with pytest.raises(InvalidArgumentError):
            await sessions.trim("s", 1, align=align)
    assert await sessions.length("s") == 4


REWRITES: dict[str, Callable[[SessionRepository], Awaitable[object]]] = {
    "truncate": lambda sessions: sessions.truncate("s", 2),
    "pop": lambda sessions: sessions.pop("s"),
    "replace": lambda sessions: sessions.replace_messages("s", talk(2)),
    "replace by the same": lambda sessions: sessions.replace_messages("s", talk(6)),
    "compact": lambda sessions: sessions.compact("s", SUMMARY, keep_last=2),
    "reset": lambda sessions: sessions.reset("s"),
    "fork onto it": lambda sessions: sessions.fork("other", new_id="s", replace=True),
}


async def test_generations_only_grow(sessions: SessionRepository) -> None:
    """H27: by one at least, where a clock has once been ahead."""
    for verb, rewrite in REWRITES.items():
        handle = sessions.for_tenant(verb)
        await a_session(handle, 6)
        await handle.create("other")
        ahead = (await handle.get("s")).generation + 10**12
        await set_columns(handle, "s", generation=ahead)

        await rewrite(handle)
        assert (await handle.get("s")).generation == ahead + 1, verb


async def test_generations_of_a_reused_id_grow(every_way: SessionRepository) -> None:
    """H13, H27: (generation, position) never means two different messages."""
    generations = []
    for _ in range(3):
        await every_way.create("s")
        await every_way.append("s", *talk(2))
        generations.append((await every_way.get("s")).generation)
        await every_way.replace_messages("s", talk(1))
        generations.append((await every_way.get("s")).generation)
        await every_way.delete("s")
    assert generations == sorted(set(generations))


async def test_derived_events_follow_the_messages(every_way: SessionRepository) -> None:
    """H27: one to one after each kind of change."""
    await a_session(every_way, 8)
    steps: list[Callable[[], Awaitable[object]]] = [
        lambda: every_way.append("s", *talk(3)),
        lambda: every_way.trim("s", 9),
        lambda: every_way.truncate("s", 7),
        lambda: every_way.compact("s", SUMMARY, keep_last=3),
        lambda: every_way.pop("s"),
        lambda: every_way.replace_messages("s", talk(5)),
        lambda: every_way.fork_at("s", 3, new_id="child"),
        lambda: every_way.reset("s"),
    ]
    for step in steps:
        await step()
        for name in ("s", "child"):
            if await every_way.exists(name):
                transcript, messages = await every_way.snapshot(name), await every_way.messages(name)
                assert [event.text for event in transcript.derived_events] == contents(messages)
                assert [event.role for event in transcript.derived_events] == [message.role for message in messages]
