"""Message ids make a retry safe: what is stored is not stored again."""

from __future__ import annotations

from typing import Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    MessageIdConflictError,
    NewMessage,
    SessionRepository,
    VersionConflictError,
)
from tests.support.repositories import contents, positions, row_counts, say, stored, talk


def named(*names: str) -> list[NewMessage]:
    """Messages whose ids are their contents."""
    return [NewMessage(say("user", name), message_id=name) for name in names]


async def test_ids_are_kept(every_way: SessionRepository) -> None:
    """H22: and None where there is none."""
    await every_way.create("s")
    await every_way.append("s", *named("a"), say("user", "x"), *named("b"))
    assert [message.message_id for message in await every_way.messages("s")] == ["a", None, "b"]


async def test_a_retry_stores_nothing_again(every_way: SessionRepository) -> None:
    """H28: it gives the old positions, also in another order, after other appends, and with the session created."""
    assert await every_way.append("s", *named("a", "b", "c"), create=True) == [0, 1, 2]
    await every_way.append("s", *talk(2))

    assert await every_way.append("s", *named("a", "b", "c"), create=True) == [0, 1, 2]
    assert await every_way.append("s", *named("c", "a")) == [2, 0]
    assert contents(await every_way.messages("s")) == ["a", "b", "c", "message 0", "message 1"]


async def test_a_retry_is_safe_with_an_expected_length(every_way: SessionRepository) -> None:
    """H28, X03: the length has changed by the first try itself, which is no conflict."""
    await every_way.create("s")
    await every_way.append("s", *talk(2))

    assert await every_way.append("s", *named("a", "b"), expected_length=2) == [2, 3]
    assert await every_way.append("s", *named("a", "b"), expected_length=2) == [2, 3]
    assert await every_way.length("s") == 4


async def test_a_batch_of_which_some_are_stored(every_way: SessionRepository) -> None:
    """H28: the rest is appended in order; all positions come back in argument order."""
    await every_way.create("s")
    await every_way.append("s", *named("b", "d"))

    assert await every_way.append("s", *named("a", "b", "c", "d", "e")) == [2, 0, 3, 1, 4]
    assert contents(await every_way.messages("s")) == ["b", "d", "a", "c", "e"]
    assert positions(await every_way.messages("s")) == [0, 1, 2, 3, 4]


async def test_messages_without_an_id_are_new_each_time(every_way: SessionRepository) -> None:
    """H28: only those with one are recognised."""
    await every_way.create("s")
    batch: list[dict[str, Any] | NewMessage] = [say("user", "plain"), *named("a"), say("user", "plain")]
    assert await every_way.append("s", *batch) == [0, 1, 2]
    assert await every_way.append("s", *batch) == [3, 1, 4]
    assert await every_way.length("s") == 5


async def test_an_id_with_another_body_is_a_conflict(every_way: SessionRepository) -> None:
    """H29: it names the id, shows no body, and nothing of the batch is stored."""
    await every_way.create("s")
    await every_way.append("s", NewMessage({"role": "user", "a": 1, "b": "secret-1"}, message_id="m"))
    before = await every_way.get("s")

    others: list[dict[str, Any]] = [
        {"role": "user", "a": 1, "b": "secret-2"},
        {"role": "user", "a": 1.0, "b": "secret-1"},
        {"role": "user", "b": "secret-1", "a": 1},
        {"role": "assistant", "a": 1, "b": "secret-1"},
    ]
    for body in others:
        with pytest.raises(MessageIdConflictError) as error:
            await every_way.append("s", *named("new"), NewMessage(body, message_id="m"), *talk(1))
        assert (error.value.session_id, error.value.message_id) == ("s", "m")
        assert "secret" not in f"{error.value} {error.value!r}"

    after = await every_way.get("s")
    assert (after.version, after.generation, after.updated_at) == (before.version, before.generation, before.updated_at)
    assert await every_way.length("s") == 1
    assert await every_way.append("s", *named("new")) == [1]


async def test_an_id_twice_in_one_call_is_refused(every_way: SessionRepository) -> None:
    """H29: before anything is stored, also where the bodies are equal or the id is stored already."""
    before = await every_way.create("s")
    for batch in (named("a", "a"), [*named("a"), NewMessage(say("user", "other"), message_id="a")]):
        with pytest.raises(InvalidArgumentError, match="twice"):
            await every_way.append("s", *batch)
        with pytest.raises(InvalidArgumentError, match="twice"):
            await every_way.append("other", *batch, create=True)
        with pytest.raises(InvalidArgumentError, match="twice"):
            await every_way.replace_messages("s", batch)
    assert await every_way.get("s") == before
    assert (await row_counts(every_way))["sessionstore_sessions"] == 1


async def test_what_is_no_id_is_refused(sessions: SessionRepository) -> None:
    """H29: message ids obey the rules of session ids."""
    await sessions.create("s")
    bad: list[Any] = ["", " ", " x", "x" * 256, "a\0b", "a\nb", "\ud800", "\u200b", 7, b"x"]
    for name in bad:
        with pytest.raises(InvalidArgumentError, match="id"):
            await sessions.append("s", NewMessage(say("user", "x"), message_id=name))
    assert await sessions.length("s") == 0


async def test_ids_compare_bytewise(sessions: SessionRepository) -> None:
    """F13: look-alikes are different ids, and each is found again."""
    await sessions.create("s")
    names = ["a", "A", "é", "e\u0301", "%", "_", "x" * 255, "🚢"]
    assert await sessions.append("s", *named(*names)) == list(range(len(names)))
    assert await sessions.append("s", *named(*reversed(names))) == list(reversed(range(len(names))))


async def test_an_id_belongs_to_its_session(sessions: SessionRepository) -> None:
    """H28: the same one in another session, or of another tenant, is another message."""
    other = sessions.for_tenant("other")
    for handle, name in ((sessions, "s"), (sessions, "t"), (other, "s")):
        await handle.create(name)
        assert await handle.append(name, *named("b", "a") if name == "t" else named("a")) == [0, 1][: 1 + (name == "t")]


async def test_an_id_is_free_once_its_message_is_gone(every_way: SessionRepository) -> None:
    """H28: a retry is safe as long as the message is kept."""
    await every_way.create("s")
    await every_way.append("s", *named("a", "b", "c"))

    await every_way.trim("s", 2)
    assert await every_way.append("s", *named("a")) == [3]
    await every_way.pop("s")
    assert await every_way.append("s", *named("a", "b")) == [3, 1]
    await every_way.truncate("s", 0)
    assert await every_way.append("s", NewMessage(say("user", "another"), message_id="a")) == [1]
    await every_way.reset("s")
    assert await every_way.append("s", *named("a")) == [0]
    await every_way.delete("s")
    await every_way.create("s")
    assert await every_way.append("s", *named("a")) == [0]


async def test_a_replacement_may_use_the_ids_again(every_way: SessionRepository) -> None:
    """H32: with other bodies too, in another order."""
    await every_way.create("s")
    await every_way.append("s", *named("a", "b"))
    await every_way.replace_messages("s", [NewMessage(say("user", "new"), message_id="b"), *named("a")])

    assert [message.message_id for message in await every_way.messages("s")] == ["b", "a"]
    assert await every_way.append("s", *named("a")) == [1]


async def test_an_unmet_expectation_with_new_ids(every_way: SessionRepository) -> None:
    """X03: a batch that would append anything needs the expected length."""
    await every_way.create("s")
    await every_way.append("s", *named("a", "b"))

    with pytest.raises(VersionConflictError) as error:
        await every_way.append("s", *named("b", "c"), expected_length=1)

    assert (error.value.expected, error.value.actual) == (1, 2)
    assert await stored(every_way, "s") == [say("user", "a"), say("user", "b")]
