"""What of a session can be changed: its columns and its metadata, by whoever knows its version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    SessionRepository,
    VersionConflictError,
)
from tests.support.repositories import say, stored, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

COLUMNS: dict[str, tuple[Any, Any, Any]] = {
    "user_id": ("ana", "bob", ""),
    "model": ("m1", "m2", ""),
    "max_turns": (3, 4, 0),
    "system_message": ("one", "two", None),
    "title": ("one", "two", None),
    "summary": ("one", "two", None),
    "active_seed_id": ("seed-1", "seed-2", None),
    "active_persona_id": ("persona-1", "persona-2", None),
}
"""First value, next value, and what None clears it to."""


async def test_update_changes_one_column(every_way: SessionRepository) -> None:
    """O02: the others stay; None clears."""
    await every_way.create("s", metadata={"k": 1})
    expected: dict[str, Any] = {name: values[0] for name, values in COLUMNS.items()}
    before = await every_way.update("s", **expected)
    assert {name: getattr(before, name) for name in COLUMNS} == expected

    for column, (_, other, cleared) in COLUMNS.items():
        for given, stored_ in ((other, other), (None, cleared)):
            change: dict[str, Any] = {column: given}
            expected[column] = stored_
            after = await every_way.update("s", **change)
            assert {name: getattr(after, name) for name in COLUMNS} == expected
            assert after.metadata == {"k": 1}
            assert await every_way.get("s") == after


async def test_text_columns_refuse_what_postgresql_cannot_hold(sessions: SessionRepository) -> None:
    """F13: on both databases alike, and nothing changes."""
    before = await sessions.create("s")
    for text in ("a\0b", "\ud800", "x\udfff"):
        for column in ("title", "summary", "system_message", "model", "user_id"):
            changes: dict[str, Any] = {column: text}
            with pytest.raises(InvalidArgumentError):
                await sessions.update("s", **changes)
            if column != "summary":
                with pytest.raises(InvalidArgumentError):
                    await sessions.create("other", **changes)

    assert await sessions.get("s") == before
    assert not await sessions.exists("other")


async def test_text_columns_hold_everything_else(sessions: SessionRepository) -> None:
    """F08: also line ends, quotes, look-alikes and characters beyond the basic plane."""
    text = "\x01\t\r\n 'x' \"y\" \\ \u200b\u202e\ufeff\uffff\U0010ffff é e\u0301 🚢"
    await sessions.create("s", title=text, system_message=text, model=text)
    await sessions.update("s", summary=text, active_seed_id=text, active_persona_id=text)

    after = await sessions.get("s")
    assert {getattr(after, name) for name in COLUMNS if name not in {"user_id", "max_turns"}} == {text}


NO_COUNTS: tuple[Any, ...] = (-1, 1.5, True, "7", 2**63)


async def test_max_turns_is_a_count(sessions: SessionRepository) -> None:
    """F13: nothing is rounded or parsed."""
    await sessions.create("s", max_turns=2**63 - 1)
    for value in NO_COUNTS:
        with pytest.raises(InvalidArgumentError):
            await sessions.create("other", max_turns=value)
        with pytest.raises(InvalidArgumentError):
            await sessions.update("s", max_turns=value)
    assert (await sessions.get("s")).max_turns == 2**63 - 1
    assert not await sessions.exists("other")


METADATA: dict[str, Any] = {
    "text": "hello",
    "empty": "",
    "one": 1,
    "float": 1.0,
    "true": True,
    "null": None,
    "negative zero": -0.0,
    "big": 2**70,
    "nested": {"z": [1, {"a": []}], "a": {}},
    "nul": "a\0b",
    "surrogate": "\ud800",
    'a"b': 1,
    "a.b": 2,
    "a\nb": 4,
    'a"."owner': 5,
    "[0]": 6,
    "ключ": 3,
}


async def test_metadata_round_trips(every_way: SessionRepository) -> None:
    """F09: keys and values come back equal in type and value, set at creation or later."""
    await every_way.create("s", metadata=METADATA)
    await every_way.create("t")
    changed = await every_way.set_metadata("t", METADATA)

    for name in "st":
        found = (await every_way.get(name)).metadata
        assert {key: repr(value) for key, value in found.items()} == {k: repr(v) for k, v in METADATA.items()}
    assert changed == await every_way.get("t")


async def test_metadata_has_an_order(every_way: SessionRepository) -> None:
    """F09: bytewise by key, the same from every verb and on every database."""
    keys = ["b", "B", "é", "a", "🚢", "e\u0301", "Z", "\uffff", "~"]
    created = await every_way.create("s", metadata=dict.fromkeys(keys, 1))
    changed = await every_way.set_metadata("s", {"c": 1})

    expected = sorted([*keys, "c"], key=str.encode)
    assert list(created.metadata) == [key for key in expected if key != "c"]
    for session in (changed, await every_way.get("s"), (await every_way.snapshot("s")).session):
        assert list(session.metadata) == expected


async def test_set_metadata_sets_and_removes(every_way: SessionRepository) -> None:
    """F09, O02: what is not named stays; removing what is not there is nothing."""
    await every_way.create("s", title="kept", metadata={"a": 1, "b": 2, "c": 3})

    after = await every_way.set_metadata("s", {"b": [2], "d": None}, remove=["c", "nothing"])

    assert after.metadata == {"a": 1, "b": [2], "d": None}
    assert after.title == "kept"
    assert await every_way.get("s") == after


async def test_what_is_no_key_is_refused(sessions: SessionRepository) -> None:
    """F09: with a clear error, at creation, later, and for removal; nothing is stored."""
    before = await sessions.create("s")
    bad: list[Any] = ["", " ", "x" * 256, "a\0b", "\ud800", 1, None]
    for key in bad:
        for call in (
            sessions.set_metadata("s", {"good": 1, key: 1}),
            sessions.create("other", metadata={key: 1}),
            sessions.set_metadata("s", {}, remove=[key]),
        ):
            with pytest.raises(InvalidArgumentError, match="key"):
                await call

    assert await sessions.get("s") == before
    assert not await sessions.exists("other")


async def test_a_metadata_value_that_is_no_json_is_refused(sessions: SessionRepository) -> None:
    """F09: nothing is converted in silence."""
    before = await sessions.create("s")
    bad: list[Any] = [float("nan"), float("inf"), (1,), {1}, b"x", object(), {1: 2}, [10**1000]]
    for value in bad:
        with pytest.raises((InvalidArgumentError, InvalidMessageError)):
            await sessions.set_metadata("s", {"good": 1, "bad": value})
    assert await sessions.get("s") == before


async def test_metadata_values_have_a_limit(sessions: SessionRepository) -> None:
    """F09: 64 KiB of encoded JSON, not a byte more."""
    await sessions.create("s")
    largest = "x" * (64 * 1024 - 2)  # and two quotes
    assert (await sessions.set_metadata("s", {"k": largest})).metadata == {"k": largest}

    with pytest.raises((InvalidArgumentError, InvalidMessageError), match="65536"):
        await sessions.set_metadata("s", {"k": largest + "x"})
    assert (await sessions.get("s")).metadata == {"k": largest}


# --- expected_version -----------------------------------------------------------------------------

CHANGES: dict[str, Callable[..., Awaitable[object]]] = {
    "update": lambda sessions, **expected: sessions.update("s", title="new", **expected),
    "set_metadata": lambda sessions, **expected: sessions.set_metadata("s", {"new": 1}, **expected),
    "replace_messages": lambda sessions, **expected: sessions.replace_messages("s", talk(1), **expected),
    "compact": lambda sessions, **expected: sessions.compact("s", say("system", "x"), keep_last=1, **expected),
}


async def test_a_stale_version_changes_nothing(every_way: SessionRepository) -> None:
    """X03: raises with both numbers; with the right one it changes."""
    await every_way.create("s", metadata={"k": 1})
    await every_way.append("s", *talk(4))
    before = await every_way.update("s", title="old")
    assert before.version == 2

    for change in CHANGES.values():
        for stale in (0, 1, 3, 2**63 - 1):
            with pytest.raises(VersionConflictError) as error:
                await change(every_way, expected_version=stale)
            assert (error.value.session_id, error.value.expected, error.value.actual) == ("s", stale, 2)
        after = await every_way.get("s")
        assert (after.version, after.title, after.metadata, after.generation) == (2, "old", {"k": 1}, before.generation)
        assert after.updated_at == before.updated_at
    assert await stored(every_way, "s") == talk(4)

    for at, change in enumerate(reversed(CHANGES.values())):
        await change(every_way, expected_version=2 + at)
        assert (await every_way.get("s")).version == 3 + at


async def test_a_version_is_a_count(sessions: SessionRepository) -> None:
    """X03: and nothing else."""
    before = await sessions.create("s")
    for version in NO_COUNTS:
        for change in CHANGES.values():
            with pytest.raises(InvalidArgumentError):
                await change(sessions, expected_version=version)
    assert await sessions.get("s") == before
