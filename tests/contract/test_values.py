"""What the store hands out: frozen, lazy, silent about what people said; and honest about damage."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import FrozenInstanceError, fields, is_dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    CorruptBodyError,
    InvalidArgumentError,
    InvalidMessageError,
    Lineage,
    Message,
    NewMessage,
    Session,
    SessionRepository,
    SessionStoreError,
    Transcript,
)
from tests.support.repositories import bodies, execute, on_postgresql, opened, read, say, set_body, talk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "s3cret-words"  # noqa: S105
LONG_AGO = datetime(2024, 5, 6, tzinfo=UTC)


async def a_session(sessions: SessionRepository, length: int = 3) -> Session:
    session = await sessions.create("s", metadata={"k": SECRET}, system_message=SECRET)
    await sessions.append("s", *[NewMessage(say("user", SECRET, at=at), message_id=f"m{at}") for at in range(length)])
    return session


# --- detached, frozen, silent ---------------------------------------------------------------------


async def test_values_are_frozen(sessions: SessionRepository) -> None:
    """H12: none of their fields can be set, and they have room for no other."""
    session = await a_session(sessions)
    transcript = await sessions.snapshot("s")
    page = await sessions.list_sessions()
    values = [session, transcript, page, page.rows[0], await sessions.lineage("s"), transcript.derived_events[0]]
    values.append(NewMessage(say("user", "x")))
    for value in values:
        assert is_dataclass(value)
        assert not hasattr(value, "__dict__")
        for field in fields(value):
            with pytest.raises(FrozenInstanceError):
                setattr(value, field.name, None)


async def test_messages_are_frozen(sessions: SessionRepository) -> None:
    """H12: like the other values."""
    await a_session(sessions)
    [message, *_] = await sessions.messages("s")
    assert not hasattr(message, "__dict__")
    for name in ("position", "role", "body", "message_id", "created_at", "body_json"):
        with pytest.raises(AttributeError):
            setattr(message, name, None)


async def test_values_travel(every_way: SessionRepository) -> None:
    """H12: they can be compared, hashed, copied and pickled, and need no connection any more."""
    await a_session(every_way)
    transcript = await every_way.snapshot("s")
    [message, *_] = messages = await every_way.messages("s")
    popped = await every_way.pop("s")

    for value in (transcript, message, popped, transcript.session):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
        assert copy.deepcopy(value) == value
    assert list(transcript.messages) == messages
    assert popped == messages[-1]
    assert len({*messages, *transcript.messages}) == 3
    assert messages[0] != messages[1]
    assert message != message.body


async def test_no_repr_shows_what_was_said(every_way: SessionRepository) -> None:
    """F14: neither bodies nor metadata, of no value that carries them."""
    await a_session(every_way)
    transcript, messages = await every_way.snapshot("s"), await every_way.messages("s")
    assert bodies(messages)[0]["content"] == SECRET
    built = Transcript.of("t", [say("user", SECRET), *messages], metadata={"k": SECRET}, summary=SECRET)
    values: list[object] = [transcript, transcript.session, messages, transcript.messages, transcript.derived_events]
    values += [NewMessage(say("user", SECRET)), built, built.derived_events, await every_way.list_sessions()]
    for value in values:
        assert SECRET not in repr(value)
        assert SECRET not in str(value)
    assert "position=0" in repr(messages[0])
    assert "'s'" in repr(transcript.session)


async def test_no_repr_of_a_listing_shows_metadata(sessions: SessionRepository) -> None:
    """F14: the project of a summary is a metadata value."""
    await sessions.create("s", metadata={"project_ids": SECRET}, title=SECRET)
    page = await sessions.list_sessions()
    assert page.rows[0].project_id == SECRET
    assert SECRET not in repr(page)


# --- lazy, and honest about damage ----------------------------------------------------------------

DAMAGED: list[tuple[str | bytes, bool]] = [
    ("[]", False),
    ('"text"', False),
    ("null", False),
    ("7", False),
    ('{"role": "us', True),
    ("", True),
    ("{'role': 'user'}", True),
    ('{"role": "user", "n": NaN}', True),
    ('{"role": "user"} {}', True),
    (b'{"role": "\xff\xfe"}', True),
]
"""What may stand in the place of a body, and whether only SQLite lets it."""


@pytest.mark.parametrize("plain", [True, False])
async def test_a_damaged_body_is_never_hidden(sessions: SessionRepository, plain: bool) -> None:
    """F11: it is told with session and position when it is asked for; the others can still be read."""
    for damaged, sqlite_only in DAMAGED:
        if on_postgresql(sessions) and sqlite_only:
            continue
        await a_session(sessions)
        await set_body(sessions, "s", 1, damaged)
        await execute(sessions, "UPDATE sessionstore_messages SET plain = :plain WHERE position = 1", plain=plain)

        messages, transcript = await sessions.messages("s"), await sessions.snapshot("s")
        [alone] = await sessions.messages("s", first=1, after=0)
        iterated = [message async for message in sessions.iter_messages("s")]

        assert [message.position for message in messages] == [0, 1, 2]
        for message in (messages[1], read(transcript)[1], alone, iterated[1]):
            _assert_damaged(message)
            _assert_damaged(message)
        with pytest.raises(CorruptBodyError):
            _ = transcript.derived_events
        assert [messages[at].body["at"] for at in (0, 2)] == [0, 2]
        assert await sessions.length("s") == 3
        assert [row.id for row in (await sessions.list_sessions()).rows] == ["s"]
        await sessions.delete("s")


def _assert_damaged(message: Message) -> None:
    with pytest.raises(CorruptBodyError) as error:
        _ = message.body
    assert (error.value.session_id, error.value.position) == ("s", 1)
    assert "'s'" in str(error.value)
    assert "1" in str(error.value)


async def test_a_damaged_body_can_be_removed(sessions: SessionRepository) -> None:
    """F11: the session is usable all the same: appended to, forked, and mended."""
    await a_session(sessions)
    await set_body(sessions, "s", 2, "[]")

    assert await sessions.append("s", *talk(1)) == [3]
    await sessions.fork("s", new_id="child")
    with pytest.raises(CorruptBodyError) as error:
        _ = (await sessions.messages("child"))[2].body
    assert (error.value.session_id, error.value.position) == ("child", 2)
    await sessions.pop("s")
    popped = await sessions.pop("s")
    assert popped is not None
    with pytest.raises(CorruptBodyError):
        _ = popped.body
    assert [body["at"] for body in bodies(await sessions.messages("s"))] == [0, 1]


async def test_a_body_is_decoded_once(sessions: SessionRepository) -> None:
    """F04: the second look is at the same object."""
    await a_session(sessions)
    [message, *_] = await sessions.messages("s")
    assert message.body is message.body


@pytest.fixture
async def own(database_url: str) -> AsyncIterator[SessionRepository]:
    """A repository on a database of its own, to be broken."""
    async with opened("connect", database_url) as repository:
        yield repository


async def test_a_failure_of_the_database_is_our_error(own: SessionRepository) -> None:
    """F14: without what was to be stored, and without the driver's text and URL."""
    await own.create("s")
    for view in ("texts", "facts"):
        await execute(own, f"DROP VIEW sessionstore_message_{view}")
    await execute(own, "ALTER TABLE sessionstore_messages RENAME TO hidden")

    for call in (
        own.append("s", say("user", SECRET)),
        own.append("s", NewMessage(say("user", SECRET), message_id="m")),
        own.replace_messages("s", [say("user", SECRET)]),
        own.save(Transcript.of("s", [say("user", SECRET)])),
        own.messages("s", roles=[SECRET]),
    ):
        with pytest.raises(SessionStoreError) as error:
            await call
        told = "".join(traceback.format_exception(error.value))
        assert SECRET not in told
        url = own._shared.engine.url
        assert url.password is None or url.password not in str(error.value)
        assert "://" not in str(error.value)

    await execute(own, "ALTER TABLE hidden RENAME TO sessionstore_messages")
    assert await own.append("s", *talk(1)) == [0]


async def test_refusals_do_not_repeat_what_was_said(sessions: SessionRepository) -> None:
    """F14: an error names the place, not the value."""
    await sessions.create("s")
    for call in (
        sessions.append("s", {"role": "user", "content": {SECRET}}),
        sessions.append("s", {"role": [SECRET]}),
        sessions.append("s", SECRET),  # type: ignore[arg-type]
        sessions.set_metadata("s", {"k": {SECRET}}),  # type: ignore[dict-item]
        sessions.update("s", title=f"{SECRET}\0"),
        sessions.replace_messages("s", [say("user", (SECRET,))]),
    ):
        with pytest.raises((InvalidMessageError, InvalidArgumentError)) as error:
            await call
        assert SECRET not in f"{error.value} {error.value!r}"


# --- transcripts ----------------------------------------------------------------------------------

IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/ship.png"}}
TOOL_USE = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
TOOL_RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a ship"}]}
TEXT = {"type": "text", "text": "look"}

EVENTS: list[tuple[dict[str, Any], str, str, str, tuple[Any, ...]]] = [
    (say("user", "hello"), "message", "public", "hello", ({"type": "text", "text": "hello"},)),
    (say("assistant", [TEXT, IMAGE]), "message", "public", "look", (TEXT, IMAGE)),
    (say("assistant", [TEXT, TEXT]), "message", "public", "look\nlook", (TEXT, TEXT)),
    (say("user", TEXT), "message", "public", "look", (TEXT,)),
    (say("assistant", None), "message", "public", "", ()),
    ({"role": "assistant"}, "message", "public", "", ()),
    (say("assistant", []), "message", "public", "", ()),
    (say("assistant", [TEXT, TOOL_USE]), "message", "public", "look", (TEXT, TOOL_USE)),
    (say("user", [TOOL_RESULT]), "message", "public", "a ship", (TOOL_RESULT,)),
    (say("user", [IMAGE]), "message", "public", "", (IMAGE,)),
    (say("tool_result", "42"), "tool_result", "internal", "42", ({"type": "text", "text": "42"},)),
    (say("tool_result", [TOOL_RESULT]), "tool_result", "internal", "a ship", (TOOL_RESULT,)),
    (say("system", "rules"), "message", "internal", "rules", ({"type": "text", "text": "rules"},)),
]
"""Body; kind, visibility, text and blocks of its event."""


async def test_derived_events(every_way: SessionRepository) -> None:
    """H34: one a message, for every form of content."""
    await every_way.create("s")
    await every_way.append("s", *[case[0] for case in EVENTS])

    events = (await every_way.snapshot("s")).derived_events

    assert [(e.kind, e.visibility, e.text, e.blocks) for e in events] == [case[1:] for case in EVENTS]
    assert [event.role for event in events] == [case[0]["role"] for case in EVENTS]
    assert len({event.id for event in events}) == len(EVENTS)
    assert events == Transcript.of("s", [case[0] for case in EVENTS]).derived_events


async def test_only_the_role_tool_result_makes_a_tool_result(sessions: SessionRepository) -> None:
    """H34: every other role, `tool` too, makes a message."""
    await sessions.create("s")
    await sessions.append("s", say("tool", "42"), say("function", "42"), say("tool_result", "42"))
    events = (await sessions.snapshot("s")).derived_events
    assert [event.kind for event in events] == ["message", "message", "tool_result"]


async def test_events_keep_their_ids(sessions: SessionRepository) -> None:
    """H34: while their message is kept, whatever is trimmed before it."""
    await sessions.create("s")
    await sessions.append("s", say("user", "a"), NewMessage(say("user", "b"), message_id="m"), say("user", "c"))
    before = (await sessions.snapshot("s")).derived_events
    await sessions.trim("s", 2)
    assert (await sessions.snapshot("s")).derived_events == before[1:]


async def test_the_counts_of_a_transcript(sessions: SessionRepository) -> None:
    """O03: exchanges are the smaller number; empty means that no user has spoken."""
    await sessions.create("s")
    history = [say("system", 0), say("user", 1), say("assistant", 2), say("tool", 3), say("assistant", 4)]
    await sessions.append("s", *history, NewMessage({"content": 5}, role="user"), say("user", 6))
    for transcript in (await sessions.snapshot("s"), Transcript.of("s", await sessions.messages("s"))):
        assert [message.body["content"] for message in transcript.user_messages] == [1, 5, 6]  # type: ignore[union-attr]
        assert [message.body["content"] for message in transcript.agent_responses] == [2, 4]  # type: ignore[union-attr]
        assert (transcript.exchange_count, transcript.is_empty) == (2, False)

    silent = Transcript.of("t", [say("system", 0), say("assistant", 1)])
    assert (silent.exchange_count, silent.is_empty) == (0, True)
    assert Transcript.of("t").is_empty


async def test_a_transcript_is_built_and_changed_by_copies(sessions: SessionRepository) -> None:
    """H31, H12: from messages of every kind; `replace` leaves the original alone."""
    await a_session(sessions, 1)
    [message] = await sessions.messages("s")
    parts: list[Message | NewMessage | dict[str, Any]] = [message, NewMessage({"n": 1}, role="bot"), say("user", 2)]
    built = Transcript.of("t", parts, title="one", metadata={"k": 1}, created_at=LONG_AGO, updated_at=LONG_AGO)
    assert (built.session.id, built.session.length, built.session.title) == ("t", 3, "one")
    assert (built.session.created_at, built.session.updated_at) == (LONG_AGO, LONG_AGO)
    assert [event.role for event in built.derived_events] == ["user", "bot", "user"]

    changed = built.replace(messages=parts[:1], title="two", metadata={"k": 2})
    assert (changed.session.length, changed.session.title, changed.session.metadata) == (1, "two", {"k": 2})
    assert (built.session.length, built.session.title, built.session.metadata) == (3, "one", {"k": 1})
    assert len(built.messages) == 3

    saved = await sessions.save(changed)
    assert (saved.title, saved.length) == ("two", 1)
    wrong: dict[str, Any] = {"tittle": "x"}
    with pytest.raises((InvalidArgumentError, TypeError)):
        Transcript.of("t", **wrong)
    with pytest.raises((InvalidArgumentError, TypeError)):
        built.replace(**wrong)


def test_a_lineage_is_a_value() -> None:
    """H12: like the others."""
    assert Lineage(None, (), "s") == Lineage(parent_id=None, child_ids=(), root_id="s")
