"""Whole sessions: read as of one moment, and saved by writing only what changed."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    NewMessage,
    SessionRepository,
    Transcript,
    VersionConflictError,
)
from tests.support.repositories import (
    bodies,
    check_invariants,
    execute,
    on_postgresql,
    opened,
    positions,
    read,
    row_counts,
    rows,
    say,
    set_columns,
    stored,
    talk,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
LATER = LONG_AGO + timedelta(days=3, microseconds=1)
COLUMNS: dict[str, Any] = {
    "user_id": "ana",
    "model": "model-1",
    "max_turns": 12,
    "system_message": None,
    "title": "Über Schiffe 🚢",
    "summary": "short",
    "active_seed_id": "seed",
    "active_persona_id": "persona",
    "parent_id": "gone",
    "fork_position": 1,
}
METADATA: dict[str, Any] = {"k": [1, 1.0, None], "nul": "a\0b", "big": 2**70}


def a_transcript(length: int = 4, **changes: Any) -> Transcript:
    """With a value in everything."""
    messages = [NewMessage(body, message_id=f"m{at}", created_at=LONG_AGO) for at, body in enumerate(talk(length))]
    values: dict[str, Any] = {**COLUMNS, "metadata": METADATA, "created_at": LONG_AGO, "updated_at": LATER, **changes}
    return Transcript.of("s", messages, **values)


# --- snapshot -------------------------------------------------------------------------------------


async def test_a_snapshot_is_the_session_and_its_messages(every_way: SessionRepository) -> None:
    """H12, F04: as `get` and `messages` give them."""
    await every_way.create("s", metadata=METADATA, title="x")
    await every_way.append("s", *talk(5))
    await every_way.trim("s", 3)

    transcript = await every_way.snapshot("s")

    assert transcript.session == await every_way.get("s")
    assert list(transcript.messages) == await every_way.messages("s")
    assert (await every_way.snapshot((await every_way.create("empty")).id)).messages == ()


async def test_a_snapshot_is_detached(every_way: SessionRepository) -> None:
    """H12, F04: whatever is done to what was read, the store and the next reader do not notice."""
    await every_way.create("s", metadata={"list": [1]})
    await every_way.append("s", say("user", [{"text": "hello"}]))

    transcript, messages, session = (
        await every_way.snapshot("s"),
        await every_way.messages("s"),
        await every_way.get("s"),
    )
    for found in (transcript.session, session):
        found.metadata["list"].append(2)  # type: ignore[union-attr]
        found.metadata["new"] = 1
    for message in (*read(transcript), *messages):
        message.body["content"][0]["text"] = "changed"
        message.body["role"] = "changed"
    messages.clear()

    again = await every_way.snapshot("s")
    assert again.session.metadata == (await every_way.get("s")).metadata == {"list": [1]}
    assert bodies(read(again)) == [say("user", [{"text": "hello"}])]
    assert await stored(every_way, "s") == [say("user", [{"text": "hello"}])]


async def test_what_was_put_in_is_detached(every_way: SessionRepository) -> None:
    """H12: the caller's own objects are not kept, nor changed."""
    body, metadata = say("user", ["hello"]), {"list": [1]}
    session = await every_way.create("s", metadata=metadata)  # type: ignore[arg-type]
    await every_way.append("s", body)
    body["content"].append("changed")
    metadata["list"].append(2)

    assert session.metadata == (await every_way.get("s")).metadata == {"list": [1]}
    assert await stored(every_way, "s") == [say("user", ["hello"])]


# --- save -----------------------------------------------------------------------------------------


async def test_save_and_load_are_equal(every_way: SessionRepository) -> None:
    """F08, O05, O08: field by field; saving what is missing creates it."""
    transcript = a_transcript()

    saved = await every_way.save(transcript)

    loaded = await every_way.get("s")
    assert loaded == saved
    for field in fields(saved):
        if field.name not in {"generation", "next_event", "last_accessed_at"}:
            assert getattr(saved, field.name) == getattr(transcript.session, field.name), field.name
    assert (saved.updated_at, saved.created_at, saved.version) == (LATER, LONG_AGO, 0)
    messages = await every_way.messages("s")
    assert bodies(messages) == talk(4)
    assert [(m.message_id, m.created_at) for m in messages] == [(f"m{at}", LONG_AGO) for at in range(4)]


async def test_a_second_save_replaces_the_first(every_way: SessionRepository) -> None:
    """F06, H31: the whole; listed once; unknown keys of bodies are kept."""
    await every_way.save(a_transcript())
    body = {"unknown": {"z": 1, "a": [None]}, "role": "narrator", "more": 1.0}
    second = Transcript.of("s", [body], title="second", metadata={"new": 1}, created_at=LATER, updated_at=LONG_AGO)

    saved = await every_way.save(second)

    assert saved == await every_way.get("s")
    assert (saved.title, saved.metadata, saved.length) == ("second", {"new": 1}, 1)
    assert [getattr(saved, name) for name in COLUMNS if name != "title"] == ["", "", 0, *[None] * 6]
    assert (saved.created_at, saved.updated_at, saved.version) == (LATER, LONG_AGO, 1)
    assert [repr(found) for found in await stored(every_way, "s")] == [repr(body)]
    assert [row.id for row in (await every_way.list_sessions()).rows] == ["s"]


async def test_a_snapshot_can_be_saved_again(every_way: SessionRepository) -> None:
    """F06, H31: after changes to it, and of a trimmed session at its positions."""
    await every_way.create("s", metadata={"k": 1})
    await every_way.append("s", *talk(6))
    await every_way.trim("s", 3)
    transcript = await every_way.snapshot("s")

    same = await every_way.save(transcript)
    assert (same.first_position, same.next_position) == (3, 6)
    assert await every_way.messages("s") == list(transcript.messages)

    longer = transcript.replace(messages=[*transcript.messages, say("user", "new")], title="changed")
    saved = await every_way.save(longer)
    assert (saved.first_position, saved.next_position, saved.title, saved.metadata) == (3, 7, "changed", {"k": 1})
    assert positions(await every_way.messages("s")) == [3, 4, 5, 6]
    assert await stored(every_way, "s") == [*talk(6)[3:], say("user", "new")]


async def test_a_snapshot_can_be_saved_elsewhere(sessions: SessionRepository) -> None:
    """H31: for another tenant it is the same session."""
    await sessions.save(a_transcript())
    other = sessions.for_tenant("other")
    transcript = await sessions.snapshot("s")

    await other.save(transcript)

    found = await other.snapshot("s")
    assert found.messages == transcript.messages
    assert found.session.metadata == METADATA
    assert found.session.updated_at == LATER


async def test_a_bad_transcript_changes_nothing(every_way: SessionRepository) -> None:
    """F05: it is refused before any write."""
    await every_way.save(a_transcript())
    before, history = await every_way.get("s"), await every_way.messages("s")

    bad_messages: list[Any] = [{}, {"role": ""}, "text", say("user", float("nan")), NewMessage({}, role=None)]
    for message in bad_messages:
        with pytest.raises(InvalidMessageError, match="message 4"):
            await every_way.save(a_transcript().replace(messages=[*talk(4), message]))
    naive = datetime(2024, 1, 1)  # noqa: DTZ001
    changes: list[dict[str, Any]] = [
        {"title": "a\0b"},
        {"user_id": " "},
        {"max_turns": -1},
        {"parent_id": ""},
        {"parent_id": "s"},
        {"parent_id": None, "fork_position": 1},
        {"metadata": {"": 1}},
        {"metadata": {"k": float("nan")}},
        {"created_at": naive},
        {"updated_at": naive},
    ]
    for change in changes:
        with pytest.raises((InvalidArgumentError, InvalidMessageError)):
            await every_way.save(a_transcript().replace(**change))

    assert await every_way.get("s") == before
    assert await every_way.messages("s") == history


async def test_save_at_an_expected_version(every_way: SessionRepository) -> None:
    """X03: or not at all."""
    await every_way.save(a_transcript())
    await every_way.append("s", say("user", "x"))
    before = await every_way.get("s")

    with pytest.raises(VersionConflictError) as error:
        await every_way.save(a_transcript(1), expected_version=0)
    assert (error.value.session_id, error.value.expected, error.value.actual) == ("s", 0, 1)
    assert await every_way.get("s") == before

    assert (await every_way.save(a_transcript(1), expected_version=1)).version == 2
    assert await every_way.length("s") == 1


async def test_save_of_many_messages(sessions: SessionRepository) -> None:
    """F06: a history longer than a batch of `append` may be."""
    length = 10_500
    saved = await sessions.save(Transcript.of("s", [say("user", at) for at in range(length)]))
    assert saved.length == length
    assert await stored(sessions, "s") == [say("user", at) for at in range(length)]


async def test_save_over_other_positions(sessions: SessionRepository) -> None:
    """H31, F16: whatever part of a history is stored, and whatever part is saved over it, also of another history."""
    ranges = [(first, head) for head in range(4) for first in range(head + 1)]

    async def make(role: str, first: int, head: int) -> Transcript:
        await sessions.delete("s")
        await sessions.append("s", *[say(role, at) for at in range(head)], create=True)
        await sessions.trim("s", head - first)
        return await sessions.snapshot("s")

    for new, role in product(ranges, ("user", "other")):
        wanted = await make("user", *new)
        for old in ranges:
            before = await make(role, *old)
            saved = await sessions.save(wanted)
            assert (saved.first_position, saved.next_position) == new, (old, new)
            found = await sessions.messages("s")
            assert found == read(wanted), (old, new)
            # What a reader has seen at a position is no longer so, or is gone from the end.
            seen = {message.position: message for message in read(before)}
            kept = {message.position: message for message in found}
            changed = any(at >= new[0] and kept.get(at) != message for at, message in seen.items())
            assert saved.generation > before.session.generation or not changed, (old, new)
    await check_invariants(sessions)


GENERATIONS: dict[str, tuple[list[dict[str, Any]], bool]] = {
    "the same": (talk(4), False),
    "a new tail": (talk(7), False),
    "another last message": ([*talk(3), say("assistant", "other")], True),
    "another first message": ([say("user", "other"), *talk(4)[1:]], True),
    "less": (talk(3), True),
    "nothing": ([], True),
}
"""The messages to be saved over four, and whether a stored one changes."""


async def test_a_save_gives_a_new_generation_if_a_stored_message_changed(sessions: SessionRepository) -> None:
    """F16: and only then; by one at least, where a clock has once been ahead."""
    for case, (messages, rewritten) in GENERATIONS.items():
        await sessions.save(Transcript.of(case, talk(4)))
        ahead = (await sessions.get(case)).generation + 10**12
        await set_columns(sessions, case, generation=ahead)

        saved = await sessions.save(Transcript.of(case, messages))

        assert saved.generation == ahead + rewritten, case
        assert await stored(sessions, case) == messages


# --- what a save writes ---------------------------------------------------------------------------

_SQLITE_COUNTER = """
CREATE TRIGGER count_{table}_{event} AFTER {event} ON sessionstore_{table}
BEGIN INSERT INTO written VALUES ('{table}', '{event}'); END
"""
_POSTGRES_FUNCTION = """
CREATE FUNCTION count_rows() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN INSERT INTO written VALUES (TG_ARGV[0], TG_ARGV[1]); RETURN NULL; END $$
"""
_POSTGRES_COUNTER = """
CREATE TRIGGER count_{table}_{event} AFTER {event} ON sessionstore_{table}
FOR EACH ROW EXECUTE FUNCTION count_rows('{table}', '{event}')
"""


class Written:
    """Counts the rows that are written, as the database itself sees them."""

    def __init__(self, sessions: SessionRepository) -> None:
        self.sessions = sessions

    async def install(self) -> None:
        await execute(self.sessions, "CREATE TABLE written (name TEXT, event TEXT)")
        if on_postgresql(self.sessions):
            await execute(self.sessions, _POSTGRES_FUNCTION)
        counter = _POSTGRES_COUNTER if on_postgresql(self.sessions) else _SQLITE_COUNTER
        for table in ("messages", "metadata"):
            for event in ("INSERT", "UPDATE", "DELETE"):
                await execute(self.sessions, counter.format(table=table, event=event))

    async def since(self) -> dict[str, int]:
        """Rows written since the last time, by kind."""
        counted = await rows(self.sessions, "SELECT name, event, count(*) FROM written GROUP BY name, event")
        await execute(self.sessions, "DELETE FROM written")
        return {f"{event} {name}": count for name, event, count in counted}


@pytest.fixture
async def counted(database_url: str) -> AsyncIterator[SessionRepository]:
    """A repository on a database of its own, for triggers."""
    async with opened("connect", database_url) as repository:
        yield repository


async def test_saving_after_every_turn_writes_the_tail(counted: SessionRepository) -> None:
    """F16: only the new messages, each once; in the end the full state is stored."""
    written = Written(counted)
    await written.install()
    history: list[dict[str, Any]] = []
    for turn in range(10):
        history += [say("user", f"question {turn}"), say("assistant", f"answer {turn}")]
        await counted.save(Transcript.of("s", history, metadata={"k": 1, "l": [2]}, title=f"turn {turn}"))
        expected = {"INSERT messages": 2} | ({"INSERT metadata": 2} if turn == 0 else {})
        assert await written.since() == expected

    assert await stored(counted, "s") == history
    session = await counted.get("s")
    assert (session.title, session.metadata, session.version) == ("turn 9", {"k": 1, "l": [2]}, 9)
    assert await row_counts(counted) == {
        "sessionstore_sessions": 1,
        "sessionstore_messages": 20,
        "sessionstore_metadata": 2,
        "sessionstore_events": 10,
    }


async def test_saving_a_grown_snapshot_writes_the_tail(counted: SessionRepository) -> None:
    """F16: also where the messages are those that were read, with ids and times, of a trimmed session."""
    written = Written(counted)
    await counted.save(a_transcript(8))
    await counted.trim("s", 5)
    await written.install()
    transcript = await counted.snapshot("s")

    await counted.save(transcript)
    assert await written.since() == {}
    await counted.save(transcript.replace(messages=[*transcript.messages, *talk(2)]))
    assert await written.since() == {"INSERT messages": 2}
    assert positions(await counted.messages("s")) == [3, 4, 5, 6, 7, 8, 9]


async def test_a_save_writes_from_the_first_change_on(counted: SessionRepository) -> None:
    """F16: what comes before an edited message is left alone, and so is metadata that is the same."""
    written = Written(counted)
    await counted.save(Transcript.of("s", talk(10), metadata={"same": 1, "old": 2, "gone": 3}))
    await written.install()
    edited = [*talk(7), say("assistant", "edited"), *talk(10)[8:]]

    await counted.save(Transcript.of("s", edited, metadata={"same": 1, "old": 1.0, "new": 4}))
    changes = await written.since()
    assert changes.pop("INSERT messages") == changes.pop("DELETE messages") == 3
    assert sum(changes.values()) == 3
    assert {key.partition(" ")[2] for key in changes} == {"metadata"}
    assert await stored(counted, "s") == edited
    assert repr((await counted.get("s")).metadata) == "{'new': 4, 'old': 1.0, 'same': 1}"

    await counted.save(Transcript.of("s", edited[:4], metadata={"same": 1}))
    assert await written.since() == {"DELETE messages": 6, "DELETE metadata": 2}
    assert await stored(counted, "s") == edited[:4]
