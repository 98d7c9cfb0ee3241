"""Forks: a new session with a copy of a prefix of its parent, and where sessions stand among them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    Lineage,
    NewMessage,
    SessionExistsError,
    SessionNotFoundError,
    SessionRepository,
    Transcript,
)
from tests.support.repositories import contents, execute, positions, row_counts, rows, say, stored, talk

if TYPE_CHECKING:
    from sessionstore import Message, Session

INHERITED = (
    *("user_id", "model", "max_turns", "system_message", "title", "summary"),
    *("active_seed_id", "active_persona_id", "metadata"),
)
LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


async def a_parent(sessions: SessionRepository, length: int = 4) -> Session:
    """A session with everything that goes along into a fork."""
    await sessions.create("parent", metadata={"k": [1], "nul": "a\0b"})
    batch = [NewMessage(body, message_id=f"m{at}", created_at=LONG_AGO) for at, body in enumerate(talk(length))]
    await sessions.append("parent", *batch)
    return await sessions.update(
        "parent",
        user_id="ana",
        model="model-1",
        max_turns=12,
        system_message="Be brief.",
        title="Ships",
        summary="short",
        active_seed_id="seed",
        active_persona_id="persona",
    )


def inherited(session: Session) -> dict[str, Any]:
    return {name: getattr(session, name) for name in INHERITED}


def copied(messages: list[Message]) -> list[tuple[Any, ...]]:
    """What a copy of a message keeps: all of it."""
    return [(m.position, m.role, m.body_json, m.message_id, m.created_at) for m in messages]


# --- fork -----------------------------------------------------------------------------------------


async def test_a_fork_has_all_of_its_parent(every_way: SessionRepository) -> None:
    """H16, H22: history with positions, ids and times, columns, metadata and summary."""
    parent = await a_parent(every_way)

    child = await every_way.fork("parent", new_id="child")

    assert child.id == "child"
    assert inherited(child) == inherited(parent)
    assert (child.parent_id, child.fork_position) == ("parent", 4)
    assert (child.first_position, child.next_position, child.version, child.next_event) == (0, 4, 0, 1)
    assert await every_way.get("child") == child
    assert copied(await every_way.messages("child")) == copied(await every_way.messages("parent"))
    assert {message.created_at for message in await every_way.messages("child")} == {LONG_AGO}


async def test_a_fork_copies_the_projected_columns(sessions: SessionRepository) -> None:
    """H16: those that DBAs filter on too."""
    await sessions.create("parent")
    await sessions.append("parent", say("assistant", "x", seed_id="s-1", phase_reached="p", evaluation_passed=True))
    await sessions.fork("parent", new_id="child")
    columns = "seed_id, phase_reached, evaluation_passed, plain"
    found = await rows(sessions, f"SELECT {columns} FROM sessionstore_messages ORDER BY session_id")  # noqa: S608
    assert found == [("s-1", "p", True, True)] * 2


async def test_a_fork_and_its_parent_are_separate(every_way: SessionRepository) -> None:
    """H16: whatever is done to the one later leaves the other as it was."""
    await a_parent(every_way)
    await every_way.fork("parent", new_id="child")
    parent, history = await every_way.get("parent"), await every_way.messages("parent")

    await every_way.append("child", say("user", "new"))
    await every_way.set_metadata("child", {"k": 2})
    await every_way.update("child", title="other")
    await every_way.trim("child", 3)
    await every_way.replace_messages("child", talk(1))
    assert (await every_way.get("parent"), await every_way.messages("parent")) == (parent, history)

    child, branch = await every_way.get("child"), await every_way.messages("child")
    await every_way.append("parent", NewMessage(say("user", "new"), message_id="m9"))
    await every_way.truncate("parent", 1)
    await every_way.reset("parent")
    await every_way.delete("parent")
    assert (await every_way.get("child"), await every_way.messages("child")) == (child, branch)


async def test_a_fork_of_a_trimmed_session(every_way: SessionRepository) -> None:
    """H22: positions are kept, not counted anew; the next append goes on after them."""
    await a_parent(every_way, 6)
    await every_way.trim("parent", 4)

    child = await every_way.fork("parent", new_id="child")

    assert (child.first_position, child.next_position, child.fork_position) == (2, 6, 6)
    assert positions(await every_way.messages("child")) == [2, 3, 4, 5]
    assert await every_way.append("child", *talk(1)) == [6]
    assert await every_way.append("parent", *talk(1)) == [6]


async def test_a_retry_after_a_fork_is_safe_in_the_child(sessions: SessionRepository) -> None:
    """H22: the message ids have come along."""
    await a_parent(sessions)
    await sessions.fork("parent", new_id="child")
    assert await sessions.append("child", NewMessage(talk(4)[2], message_id="m2")) == [2]
    assert await sessions.length("child") == 4


async def test_a_fork_without_an_id_mints_one(every_way: SessionRepository) -> None:
    """H18: a UUIDv7."""
    await a_parent(every_way)
    children = [await every_way.fork("parent"), await every_way.fork_at("parent", 1)]
    assert [uuid.UUID(child.id).version for child in children] == [7, 7]
    assert [child.length for child in children] == [4, 1]
    assert (await every_way.lineage("parent")).child_ids == tuple(sorted(child.id for child in children))


async def test_a_fork_of_a_fork(sessions: SessionRepository) -> None:
    """H16: its parent is the fork."""
    await a_parent(sessions)
    await sessions.fork_at("parent", 3, new_id="child")
    grandchild = await sessions.fork("child", new_id="grandchild")
    assert (grandchild.parent_id, grandchild.fork_position) == ("child", 3)


async def test_a_fork_of_an_empty_session(sessions: SessionRepository) -> None:
    """H16: is an empty session."""
    await sessions.create("parent", title="x")
    child = await sessions.fork("parent", new_id="child")
    assert (child.length, child.title, child.fork_position) == (0, "x", 0)


async def test_a_fork_of_an_unknown_session(every_way: SessionRepository) -> None:
    """H17, H24: raises and creates no row, also where it would replace."""
    before = await a_parent(every_way)
    counts = await row_counts(every_way)
    for call in (
        every_way.fork("nobody", new_id="child"),
        every_way.fork_at("nobody", 2, new_id="child"),
        every_way.fork("nobody", new_id="parent", replace=True),
        every_way.fork_at("nobody", 0),
    ):
        with pytest.raises(SessionNotFoundError) as error:
            await call
        assert error.value.session_id == "nobody"
    assert await row_counts(every_way) == counts
    assert await every_way.get("parent") == before


async def test_a_fork_onto_itself(every_way: SessionRepository) -> None:
    """H20: is refused and changes nothing, not even the recency."""
    before = await a_parent(every_way)
    for replace in (False, True):
        with pytest.raises(InvalidArgumentError):
            await every_way.fork("parent", new_id="parent", replace=replace)
        with pytest.raises(InvalidArgumentError):
            await every_way.fork_at("parent", 1, new_id="parent", replace=replace)
    assert await every_way.get("parent") == before
    assert await every_way.length("parent") == 4


async def test_a_fork_onto_an_existing_session(every_way: SessionRepository) -> None:
    """H19: is refused, and neither changes."""
    await a_parent(every_way)
    target = await every_way.create("target", title="other", metadata={"x": 1})
    counts = await row_counts(every_way)

    for call in (every_way.fork("parent", new_id="target"), every_way.fork_at("parent", 1, new_id="target")):
        with pytest.raises(SessionExistsError) as error:
            await call
        assert error.value.session_id == "target"

    assert await every_way.get("target") == target
    assert await row_counts(every_way) == counts
    assert (await every_way.lineage("parent")).child_ids == ()


async def test_a_fork_that_replaces(every_way: SessionRepository) -> None:
    """H19: the target's history is overwritten; its creation time and lineage stay."""
    parent = await a_parent(every_way)
    await every_way.create("grandparent")
    await every_way.append("grandparent", *talk(7))
    await every_way.fork("grandparent", new_id="target")
    target = await every_way.set_metadata("target", {"old": 1, "k": "old"})

    child = await every_way.fork_at("parent", 3, new_id="target", replace=True)

    assert (child.id, child.created_at) == ("target", target.created_at)
    assert (child.parent_id, child.fork_position) == ("grandparent", 7)
    assert (child.version, child.first_position, child.next_position) == (target.version + 1, 0, 3)
    assert child.generation > target.generation
    assert inherited(child) == inherited(parent)
    assert await every_way.get("target") == child
    assert copied(await every_way.messages("target")) == copied(await every_way.messages("parent"))[:3]
    assert (await every_way.lineage("parent")).child_ids == ()


async def test_a_fork_that_has_nothing_to_replace(sessions: SessionRepository) -> None:
    """H19: is a fork like any other."""
    await a_parent(sessions)
    child = await sessions.fork("parent", new_id="child", replace=True)
    assert (child.parent_id, child.fork_position, child.version, child.length) == ("parent", 4, 0, 4)


async def test_a_child_may_replace_its_parent(sessions: SessionRepository) -> None:
    """H19: going back to a branch keeps the id that others know."""
    await a_parent(sessions)
    await sessions.fork_at("parent", 2, new_id="child")
    await sessions.append("child", say("user", "better"))

    merged = await sessions.fork("child", new_id="parent", replace=True)

    assert merged.parent_id is None
    assert await stored(sessions, "parent") == [*talk(2), say("user", "better")]


# --- fork_at --------------------------------------------------------------------------------------


async def test_fork_at(every_way: SessionRepository) -> None:
    """H23: of four, two: the source keeps its four."""
    await a_parent(every_way)

    child = await every_way.fork_at("parent", 2, new_id="child")

    assert (child.length, child.fork_position) == (2, 2)
    assert copied(await every_way.messages("child")) == copied(await every_way.messages("parent"))[:2]
    assert await every_way.length("parent") == 4
    assert await every_way.append("child", *talk(1)) == [2]


async def test_fork_at_any_number(sessions: SessionRepository) -> None:
    """H24: 0 gives an empty child, beyond the end all."""
    parent = await a_parent(sessions)
    for keep, length in {0: 0, 1: 1, 4: 4, 5: 4, 100: 4, 2**63 - 1: 4}.items():
        name = f"child {keep}"
        child = await sessions.fork_at("parent", keep, new_id=name)

        assert (child.length, child.fork_position) == (length, length)
        assert await stored(sessions, name) == talk(4)[:length]
        assert inherited(child) == inherited(parent)
        assert await sessions.append(name, *talk(1)) == [length]


async def test_fork_at_counts_kept_messages(every_way: SessionRepository) -> None:
    """H23: of a trimmed session the first of those that are left."""
    await a_parent(every_way, 6)
    await every_way.trim("parent", 4)

    child = await every_way.fork_at("parent", 2, new_id="child")
    empty = await every_way.fork_at("parent", 0, new_id="empty")

    assert contents(await every_way.messages("child")) == ["message 2", "message 3"]
    assert (child.first_position, child.next_position, child.fork_position) == (2, 4, 4)
    assert (empty.length, empty.next_position, empty.fork_position) == (0, 2, 2)


async def test_a_child_has_one_event_a_message(every_way: SessionRepository) -> None:
    """H25: and the source is untouched."""
    await a_parent(every_way)
    source = await every_way.snapshot("parent")
    await every_way.fork_at("parent", 3, new_id="child")

    child = await every_way.snapshot("child")
    assert len(child.derived_events) == len(child.messages) == 3
    assert [event.text for event in child.derived_events] == [f"message {at}" for at in range(3)]
    assert (await every_way.snapshot("parent")).derived_events == source.derived_events
    assert len(source.derived_events) == 4


# --- lineage --------------------------------------------------------------------------------------


async def test_lineage(every_way: SessionRepository) -> None:
    """H16: parent, children in bytewise order, and the root, which is its own."""
    await every_way.create("root")
    for parent, child in (("root", "b"), ("root", "B"), ("root", "é"), ("b", "b1"), ("b1", "b2")):
        await every_way.fork(parent, new_id=child)

    assert await every_way.lineage("root") == Lineage(None, ("B", "b", "é"), "root")
    assert await every_way.lineage("b") == Lineage("root", ("b1",), "root")
    assert await every_way.lineage("b1") == Lineage("b", ("b2",), "root")
    assert await every_way.lineage("b2") == Lineage("b1", (), "root")


async def test_lineage_of_one_whose_parent_is_gone(every_way: SessionRepository) -> None:
    """H16: the parent is shown as missing, while the session still knows its name; the root is the oldest left."""
    for parent, child in ((None, "a"), ("a", "b"), ("b", "c")):
        await (every_way.create(child) if parent is None else every_way.fork(parent, new_id=child))
    await every_way.delete("a")

    assert await every_way.lineage("b") == Lineage(None, ("c",), "b")
    assert await every_way.lineage("c") == Lineage("b", (), "b")
    assert (await every_way.get("b")).parent_id == "a"
    assert await every_way.exists("a") is False


async def test_lineage_of_a_circle(sessions: SessionRepository) -> None:
    """H16: parents are names, and may be saved in a circle, or be made one by hand; it ends all the same."""
    for name, parent in (("a", "c"), ("b", "a"), ("c", "b"), ("self", None)):
        await sessions.save(Transcript.of(name, parent_id=parent))
    await execute(sessions, "UPDATE sessionstore_sessions SET parent_id = id WHERE id = 'self'")

    for name, parent, child in (("a", "c", "b"), ("b", "a", "c"), ("c", "b", "a"), ("self", "self", "self")):
        lineage = await sessions.lineage(name)
        assert (lineage.parent_id, lineage.child_ids) == (parent, (child,))
        assert lineage.root_id in ({"self"} if name == "self" else {"a", "b", "c"})


async def test_lineage_stays_within_a_tenant(sessions: SessionRepository) -> None:
    """H16: a parent of the same name elsewhere is none."""
    other = sessions.for_tenant("other")
    await sessions.create("root")
    await sessions.fork("root", new_id="child")
    await other.create("root")
    await other.save(Transcript.of("stray", parent_id="child"))

    assert await sessions.lineage("root") == Lineage(None, ("child",), "root")
    assert await other.lineage("root") == Lineage(None, (), "root")
    assert await other.lineage("stray") == Lineage(None, (), "stray")
