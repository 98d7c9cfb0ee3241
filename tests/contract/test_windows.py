"""Reading a part of a history: by number, position, role and turn, and in batches."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    NewMessage,
    SessionNotFoundError,
    SessionRepository,
    VersionConflictError,
)
from tests.support.repositories import bodies, contents, positions, say, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from sessionstore import Message

ROLES = (
    *("user", "assistant", "tool", "tool", "assistant"),
    *("user", "assistant"),
    *("user", "user", "assistant", "tool", "assistant"),
)
TURN_SCAN = 1_000


async def a_conversation(sessions: SessionRepository) -> list[Message]:
    """Twelve kept messages after two that were trimmed away."""
    await sessions.create("s")
    await sessions.append("s", say("user", "gone"), say("assistant", "gone"))
    await sessions.append("s", *[say(role, at) for at, role in enumerate(ROLES)])
    await sessions.trim("s", len(ROLES))
    return await sessions.messages("s")


def expected(
    history: Sequence[Message],
    *,
    last: int | None = None,
    first: int | None = None,
    after: int | None = None,
    before: int | None = None,
    roles: Sequence[str] | None = None,
    align: str = "message",
) -> list[int]:
    """The window by a plain reading of the rules."""
    lower = -1 if after is None else after
    chosen = [
        message
        for message in history
        if message.position > lower
        and (before is None or message.position < before)
        and (roles is None or message.role in roles)
    ]
    if first is not None:
        return positions(chosen[:first])
    if last is None:
        return positions(chosen)
    window = chosen[max(0, len(chosen) - last) :]
    if align == "message" or not window:
        return positions(window)
    cut = window[0].position
    starts = [m.position for m in history if m.role == "user" and max(lower + 1, cut - TURN_SCAN) <= m.position <= cut]
    return positions([message for message in chosen if message.position >= max(starts, default=cut)])


async def test_no_argument_means_all(every_way: SessionRepository) -> None:
    """H30, F04: in order of position."""
    history = await a_conversation(every_way)
    assert positions(history) == list(range(2, 14))
    assert [message.role for message in history] == list(ROLES)
    assert contents(history) == list(range(12))


async def test_every_window(sessions: SessionRepository) -> None:
    """H30: numbers, exclusive positions and roles in all their combinations; roles filter before the numbers cut."""
    history = await a_conversation(sessions)
    many = 2**63 - 1
    numbers: list[dict[str, Any]] = [{}, *({"first": n} for n in (0, 1, 5, 99, many))]
    numbers += [{"last": n, "align": align} for n, align in product((0, 1, 3, 8, 99, many), ("message", "turn"))]
    afters, befores = (None, 1, 4, 8, many), (None, 2, 9, many)
    roles: tuple[list[str] | None, ...] = (None, ["user"], ["tool", "assistant"], [])
    for number, after, before, role in product(numbers, afters, befores, roles):
        window = {**number, "after": after, "before": before, "roles": role}
        found = positions(await sessions.messages("s", **window))
        assert found == expected(history, **window), window


async def test_some_windows(every_way: SessionRepository) -> None:
    """H30: also as JSON, with every parameter in use."""
    history = await a_conversation(every_way)
    windows: list[dict[str, Any]] = [
        {},
        {"first": 3},
        {"last": 3},
        {"last": 2, "align": "turn"},
        {"after": 3, "before": 9},
        {"last": 2, "after": 3, "before": 9, "roles": ["assistant", "tool"]},
        {"last": 1, "before": 13, "roles": ["assistant", "tool"], "align": "turn"},
    ]
    for window in windows:
        wanted = expected(history, **window)
        assert wanted
        found = await every_way.messages("s", **window)
        assert positions(found) == wanted
        assert json.loads(await every_way.messages_json("s", **window)) == bodies(found)


async def test_a_window_begins_with_a_turn(every_way: SessionRepository) -> None:
    """H30: a tool result is never separated from its call; a window that begins at a user message stays."""
    history = await a_conversation(every_way)
    for last in range(1, len(ROLES) + 1):
        window = await every_way.messages("s", last=last, align="turn")
        assert window[0].role == "user"
        assert len(window) >= last
        assert positions(window) == positions(history)[-len(window) :]
        assert "user" not in [message.role for message in window[1 : len(window) - last + 1]]
    assert await every_way.messages("s", last=0, align="turn") == []


async def test_a_turn_that_begins_too_far_back(every_way: SessionRepository) -> None:
    """H30: over at most 1,000 messages the window moves back, over more it stays exact."""
    await every_way.create("s")
    await every_way.append("s", say("user", "long ago"), *[say("tool", at) for at in range(1, TURN_SCAN + 4)])

    assert positions(await every_way.messages("s", last=4, align="turn"))[0] == 0
    assert positions(await every_way.messages("s", last=3, align="turn")) == [1001, 1002, 1003]
    assert await every_way.trim("s", 3, align="turn") == 3
    assert positions(await every_way.messages("s")) == [1001, 1002, 1003]


async def test_trim_to_a_turn_just_within_reach(every_way: SessionRepository) -> None:
    """H26: the cut of a trim moves back as far as that of a window."""
    await every_way.create("s")
    await every_way.append("s", *talk(2), say("user", "2"), *[say("tool", at) for at in range(TURN_SCAN + 2)])

    assert await every_way.trim("s", 3, align="turn") == TURN_SCAN + 3
    session = await every_way.get("s")
    assert (session.first_position, session.length) == (2, TURN_SCAN + 3)


async def test_no_user_message_at_all(sessions: SessionRepository) -> None:
    """H30: then the cut stays exact."""
    await sessions.create("s")
    await sessions.append("s", *[say("tool", at) for at in range(5)])
    assert positions(await sessions.messages("s", last=2, align="turn")) == [3, 4]
    assert positions(await sessions.messages("s", last=9, align="turn")) == [0, 1, 2, 3, 4]


async def test_the_role_beside_the_body_begins_a_turn(sessions: SessionRepository) -> None:
    """H30: what counts is the role of the message, wherever it was stated."""
    await sessions.create("s")
    await sessions.append("s", NewMessage({"text": "hi"}, role="user"), say("assistant", "ho"))
    assert positions(await sessions.messages("s", last=1, align="turn")) == [0, 1]


async def test_an_empty_window(every_way: SessionRepository) -> None:
    """F04: of a session that exists it is an empty list, of one that does not an error."""
    await every_way.create("s")
    windows: list[dict[str, Any]] = [{}, {"first": 1}, {"last": 1}, {"last": 1, "align": "turn"}, {"roles": ["user"]}]
    for window in windows:
        assert await every_way.messages("s", **window) == []
        assert await every_way.messages_json("s", **window) == b"[]"
        with pytest.raises(SessionNotFoundError):
            await every_way.messages("t", **window)
        with pytest.raises(SessionNotFoundError):
            await every_way.messages_json("t", **window)


async def test_windows_that_make_no_sense(sessions: SessionRepository) -> None:
    """F04: are refused, not guessed at."""
    await a_conversation(sessions)
    bad: list[dict[str, Any]] = [{"first": 1, "last": 1}, {"first": 0, "last": 0}]
    bad += [{name: value} for name in ("first", "last", "after", "before") for value in (-1, 1.5, True, "7", 2**63)]
    bad += [{"last": 1, "align": value} for value in ("", "user", None, 1)]
    bad += [{"align": "turn"}, {"first": 1, "align": "turn"}]
    bad += [{"roles": "user"}, {"roles": [1]}, {"roles": 7}, {"roles": [None]}]
    for window in bad:
        with pytest.raises(InvalidArgumentError):
            await sessions.messages("s", **window)
        with pytest.raises(InvalidArgumentError):
            await sessions.messages_json("s", **window)


async def test_roles_may_be_any_iterable(sessions: SessionRepository) -> None:
    """H30: a set or a generator as well as a list, with roles of any text."""
    await sessions.create("s")
    await sessions.append("s", say("user", 0), say('a"b', 1), say("роль", 2), say("%", 3), say("x" * 255, 4))
    assert contents(await sessions.messages("s", roles={'a"b', "роль", "x" * 255})) == [1, 2, 4]
    assert contents(await sessions.messages("s", roles=(role for role in ("%", "user", "%")))) == [0, 3]


# --- iter_messages --------------------------------------------------------------------------------


async def collected(messages: AsyncIterator[Message]) -> list[Message]:
    return [message async for message in messages]


async def test_iter_messages_gives_all(sessions: SessionRepository) -> None:
    """F04: equal to `messages`, whatever the size of a batch."""
    history = await a_conversation(sessions)
    for batch_size in (1, 4, 5, 11, 12, 13, 500):
        assert await collected(sessions.iter_messages("s", batch_size=batch_size)) == history
    assert await collected(sessions.iter_messages("s")) == history


async def test_iter_messages_of_nothing(sessions: SessionRepository) -> None:
    """F04: an empty session gives nothing, a missing one raises."""
    await sessions.create("s")
    assert await collected(sessions.iter_messages("s")) == []
    with pytest.raises(SessionNotFoundError):
        await anext(sessions.iter_messages("t"))


async def test_a_batch_size_is_a_count(sessions: SessionRepository) -> None:
    """F04: of at least one."""
    await sessions.create("s")
    bad: list[Any] = [0, -1, 1.5, True, "7", 2**63]
    for batch_size in bad:
        with pytest.raises(InvalidArgumentError):
            await anext(sessions.iter_messages("s", batch_size=batch_size))


async def test_iter_messages_beside_appends_and_trims(sessions: SessionRepository) -> None:
    """F04: positions only grow; what is appended on the way comes too, what is trimmed may be missing."""
    await sessions.create("s")
    await sessions.append("s", *talk(6))
    found = []
    async for message in sessions.iter_messages("s", batch_size=2):
        found.append(message.position)
        if message.position == 1:
            await sessions.append("s", *talk(2))
            await sessions.trim("s", 3)
    assert found == [0, 1, 5, 6, 7]


REWRITES: dict[str, Callable[[SessionRepository], Any]] = {
    "reset": lambda sessions: sessions.reset("s"),
    "truncate below": lambda sessions: sessions.truncate("s", 1),
    "truncate above": lambda sessions: sessions.truncate("s", 5),
    "pop": lambda sessions: sessions.pop("s"),
    "replace with more": lambda sessions: sessions.replace_messages("s", talk(8)),
    "replace with less": lambda sessions: sessions.replace_messages("s", talk(1)),
    "compact": lambda sessions: sessions.compact("s", say("system", "summary"), keep_last=2),
    "fork onto it": lambda sessions: sessions.fork("other", new_id="s", replace=True),
}


async def test_iter_messages_never_lies(sessions: SessionRepository) -> None:
    """F11: a history that is rewritten on the way is not passed off as whole: the reader is told."""
    for name, rewrite in REWRITES.items():
        handle = sessions.for_tenant(name)
        await handle.create("other")
        await handle.create("s")
        await handle.append("s", *talk(6))
        messages = handle.iter_messages("s", batch_size=2)
        assert [(await anext(messages)).position for _ in range(2)] == [0, 1]

        await rewrite(handle)

        with pytest.raises(VersionConflictError):
            await collected(messages)


async def test_iter_messages_of_a_session_that_goes(sessions: SessionRepository) -> None:
    """F11: deleted on the way it raises; created again it is another history."""
    await sessions.create("s")
    await sessions.append("s", *talk(6))
    first, second = (sessions.iter_messages("s", batch_size=2) for _ in range(2))
    for messages in (first, second):
        assert [(await anext(messages)).position for _ in range(2)] == [0, 1]

    await sessions.delete("s")
    with pytest.raises(SessionNotFoundError):
        await collected(first)
    await sessions.create("s")
    await sessions.append("s", *talk(6))
    with pytest.raises(VersionConflictError):
        await collected(second)
