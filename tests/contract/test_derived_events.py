"""Derived events: one a message, and the caller's own at their place, whatever was done to the history."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sessionstore import SessionRepository
from tests.support.repositories import say, talk

Verb = Callable[[SessionRepository], Awaitable[Any]]


async def _derived(sessions: SessionRepository, session_id: str = "s") -> list[str]:
    """Kinds of the caller's own, and texts of messages."""
    events = (await sessions.snapshot(session_id)).derived_events
    return [event.text if event.kind == "message" else event.kind for event in events]


async def _filled(sessions: SessionRepository) -> None:
    """Own events before, between and after four messages."""
    await sessions.create("s")
    await sessions.record_event("s", "e0")
    for at in range(4):
        await sessions.append("s", say(("user", "assistant")[at % 2], f"m{at}"))
        await sessions.record_event("s", f"e{at + 1}")


CHANGES: dict[str, tuple[Verb, list[str]]] = {
    "nothing": (lambda s: s.open("s"), ["e0", "m0", "e1", "m1", "e2", "m2", "e3", "m3", "e4"]),
    "append": (
        lambda s: s.append("s", say("user", "m4")),
        ["e0", "m0", "e1", "m1", "e2", "m2", "e3", "m3", "e4", "m4"],
    ),
    "columns": (lambda s: s.update("s", title="t"), ["e0", "m0", "e1", "m1", "e2", "m2", "e3", "m3", "e4"]),
    "metadata": (lambda s: s.set_metadata("s", {"k": 1}), ["e0", "m0", "e1", "m1", "e2", "m2", "e3", "m3", "e4"]),
    "trim": (lambda s: s.trim("s", 2), ["e2", "m2", "e3", "m3", "e4"]),
    "trim all": (lambda s: s.trim("s", 0), ["e4"]),
    "truncate": (lambda s: s.truncate("s", 2), ["e0", "m0", "e1", "m1", "e2"]),
    "truncate all": (lambda s: s.truncate("s", 0), ["e0"]),
    "pop": (lambda s: s.pop("s"), ["e0", "m0", "e1", "m1", "e2", "m2", "e3"]),
    "compact": (lambda s: s.compact("s", say("system", "sum"), keep_last=2), ["sum", "e2", "m2", "e3", "m3", "e4"]),
    "replace": (lambda s: s.replace_messages("s", talk(2)), ["message 0", "message 1"]),
    "reset": (lambda s: s.reset("s"), []),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_own_events_have_a_place(every_way: SessionRepository, name: str) -> None:
    """H34, H27: as long as that place is there; what comes after takes its own."""
    verb, expected = CHANGES[name]
    await _filled(every_way)
    await verb(every_way)
    assert [one for one in await _derived(every_way) if one not in {"e0", "e1"} or name != "compact"] == expected
    await every_way.record_event("s", "later")
    await every_way.append("s", say("user", "last"))
    assert (await _derived(every_way))[-2:] == ["later", "last"]


async def test_events_of_a_place_that_is_used_again(every_way: SessionRepository) -> None:
    """H34: an event after messages that were taken away is not one of those in their place."""
    await _filled(every_way)
    await every_way.truncate("s", 2)
    await every_way.append("s", say("user", "n2"), say("assistant", "n3"), say("user", "n4"))
    assert await _derived(every_way) == ["e0", "m0", "e1", "m1", "e2", "n2", "n3", "n4"]


async def test_a_fork_has_none(every_way: SessionRepository) -> None:
    """H18, H34: its events are its own; overwritten by one, a session has those after that."""
    await _filled(every_way)
    child = await every_way.fork("s", new_id="child")
    assert await _derived(every_way, child.id) == ["m0", "m1", "m2", "m3"]
    await every_way.record_event("child", "mine")
    assert await _derived(every_way, "child") == ["m0", "m1", "m2", "m3", "mine"]
    await every_way.fork("child", new_id="s", replace=True)
    assert await _derived(every_way) == ["m0", "m1", "m2", "m3"]


async def test_ids_are_stable(every_way: SessionRepository) -> None:
    """H34: the same whenever they are derived, and no two alike."""
    await _filled(every_way)
    before = (await every_way.snapshot("s")).derived_events
    await every_way.append("s", say("user", "new"))
    await every_way.trim("s", 4)
    after = (await every_way.snapshot("s")).derived_events
    ids = {event.id for event in before}
    assert len(ids) == len(before) == 9
    kept = [event.id for event in after if event.id in ids]
    assert kept == [event.id for event in before][-len(kept) :]
    assert len(after) == len(kept) + 1


@pytest.mark.parametrize(
    "payload", [None, "text", 5, ["a", "b"], {"text": "x"}, "\ud800", [{"type": "text", "text": "t"}]]
)
async def test_any_payload_can_be_derived(every_way: SessionRepository, payload: Any) -> None:
    """H34: from a payload of any kind; text where there is one."""
    await every_way.create("s")
    await every_way.record_event("s", "mine", payload=payload)
    [event] = (await every_way.snapshot("s")).derived_events
    assert event.kind == "mine"
    if isinstance(payload, str):
        assert event.text == payload


async def test_saving_keeps_own_events(every_way: SessionRepository) -> None:
    """H34: saving one more message moves none of them and writes none."""
    await _filled(every_way)
    transcript = await every_way.snapshot("s")
    await every_way.append("s", say("user", "m4"))
    await every_way.save(await every_way.snapshot("s"))
    assert await _derived(every_way) == ["e0", "m0", "e1", "m1", "e2", "m2", "e3", "m3", "e4", "m4"]
    await every_way.save(transcript)
    assert [one for one in await _derived(every_way) if one.startswith("m")] == ["m0", "m1", "m2", "m3"]
