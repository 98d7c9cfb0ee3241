"""What the state store of files did with sessions."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    CorruptBodyError,
    InvalidArgumentError,
    Message,
    NewMessage,
    SessionNotFoundError,
    SessionOwnerError,
    SessionRepository,
    SessionStoreError,
    Transcript,
)
from tests.contract._own import PAST, ids_of
from tests.contract._verbs import SESSION_VERBS
from tests.support.repositories import execute, rows, say, set_body, set_columns, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

MINTED = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


# --- times ----------------------------------------------------------------------------------------


async def test_a_new_session_was_updated_when_it_was_created(sessions: SessionRepository) -> None:
    """O01: however it came to be; also as it is read afterwards."""
    await sessions.create("source")
    await sessions.append("appended", {"role": "user"}, create=True)
    made = [
        await sessions.create("created", user_id="ann", metadata={"k": 1}),
        await sessions.open("opened", title="x"),
        await sessions.open(),
        await sessions.save(Transcript.of("saved", talk(2))),
        await sessions.fork("source", new_id="forked"),
    ]
    for session in made:
        assert session.created_at == session.updated_at
        assert await sessions.get(session.id) == session
        assert datetime.now(UTC) - session.created_at < timedelta(minutes=5)


CHANGES: dict[str, Callable[[SessionRepository], Awaitable[Any]]] = {
    "seed": lambda sessions: sessions.update("s", active_seed_id="seed"),
    "persona": lambda sessions: sessions.update("s", active_persona_id="persona"),
    "no seed": lambda sessions: sessions.update("s", active_seed_id=None),
    "no persona": lambda sessions: sessions.update("s", active_persona_id=None),
    "metadata": lambda sessions: sessions.set_metadata("s", {"k": 1}),
    "no metadata": lambda sessions: sessions.set_metadata("s", {}, remove=["old"]),
    "message": lambda sessions: sessions.append("s", {"role": "user"}),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_changes_move_updated_at(sessions: SessionRepository, name: str) -> None:
    """O02: and leave created_at."""
    await sessions.create("s", metadata={"old": 1})
    await set_columns(sessions, "s", created_at=PAST, updated_at=PAST)
    before = datetime.now(UTC)
    await CHANGES[name](sessions)
    session = await sessions.get("s")
    assert session.created_at == PAST
    assert before <= session.updated_at <= datetime.now(UTC)


async def test_none_clears(sessions: SessionRepository) -> None:
    """O02: the active seed and persona, each alone."""
    await sessions.create("s")
    await sessions.update("s", active_seed_id="seed", active_persona_id="persona")
    session = await sessions.update("s", active_seed_id=None)
    assert (session.active_seed_id, session.active_persona_id) == (None, "persona")
    session = await sessions.update("s", active_persona_id=None)
    assert (session.active_seed_id, session.active_persona_id) == (None, None)
    assert await sessions.get("s") == session


async def test_a_saved_transcript_keeps_its_times(sessions: SessionRepository) -> None:
    """O05: exactly, to the microsecond, as the same instant in UTC; also back in time, and on saving again."""
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    for moment in (PAST, PAST - timedelta(days=1), PAST.astimezone(elsewhere), datetime.now(UTC)):
        session = await sessions.save(Transcript.of("s", talk(1), created_at=PAST, updated_at=moment))
        assert session.updated_at == moment
        assert session.updated_at.utcoffset() == timedelta(0)
        assert (await sessions.get("s")).updated_at == moment
        assert (await sessions.get("s")).created_at == PAST


# --- transcripts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "exchanges", "empty"),
    [
        ("", 0, True),
        ("u", 0, False),
        ("a", 0, True),
        ("ua", 1, False),
        ("uua", 1, False),
        ("uaa", 1, False),
        ("uauau", 2, False),
        ("aaauu", 2, False),
        ("sst", 0, True),
        ("sutta", 1, False),
    ],
)
async def test_exchanges(sessions: SessionRepository, said: str, exchanges: int, empty: bool) -> None:
    """O03: the smaller of both counts; emptiness is about user messages; the same before and after storing."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = [say(roles[letter], str(at)) for at, letter in enumerate(said)]
    given = Transcript.of("s", messages)
    await sessions.save(given)
    stated = Transcript.of("s", [NewMessage({"content": body["content"]}, role=body["role"]) for body in messages])
    for transcript in (given, await sessions.snapshot("s"), stated):
        assert transcript.exchange_count == exchanges
        assert transcript.is_empty is empty
        assert len(transcript.user_messages) == said.count("u")
        assert len(transcript.agent_responses) == said.count("a")


async def test_agent_responses_keep_what_they_say(sessions: SessionRepository) -> None:
    """O06: every key, also in columns where DBAs can filter; the time of each is kept."""
    body = say("assistant", "x", seed_id="seed", phase_reached="3", evaluation_passed=False, session_id="other", ts="t")
    other = say("assistant", "y", seed_id=7, phase_reached=None, evaluation_passed=1)
    await sessions.save(Transcript.of("s", [say("user", "q"), NewMessage(body, created_at=PAST), other]))
    await sessions.fork("s", new_id="fork")
    for name in ("s", "fork"):
        first, second = (await sessions.snapshot(name)).agent_responses
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        assert (first.body, first.created_at, second.body) == (body, PAST, other)
        query = "SELECT seed_id, phase_reached, evaluation_passed FROM sessionstore_messages WHERE session_id = :id"
        found = await rows(sessions, f"{query} ORDER BY position", id=name)
        assert found == [(None, None, None), ("seed", "3", False), (None, None, None)]


async def test_columns_of_what_no_column_can_hold(sessions: SessionRepository) -> None:
    """O06, X07: a seed id with U+0000 or a lone surrogate stays in the body, and the column is empty."""
    for at, seed in enumerate(["a\x00b", "a\ud800b"]):
        await sessions.append(f"s{at}", say("assistant", "x", seed_id=seed, phase_reached=seed), create=True)
        assert (await sessions.messages(f"s{at}"))[0].body["seed_id"] == seed
    assert await rows(sessions, "SELECT DISTINCT seed_id, phase_reached FROM sessionstore_messages") == [(None, None)]


# --- ids ------------------------------------------------------------------------------------------

BAD_IDS: list[Any] = [
    *("", " ", "\t", " a", "a ", "a\x00b", "a\nb", "a\x1fb", "a\x7fb", "a\x85b", "a\ud800b", "\u202ea", "a\u200bb"),
    *("\ufeffa", "x" * 256, "é" * 257, "\U0001f600" * 129, 7, 1.5, True, b"a", ["a"]),
]


@pytest.mark.parametrize("name", SESSION_VERBS)
async def test_every_verb_refuses_bad_ids(sessions: SessionRepository, name: str) -> None:
    """O07, H29: control characters, too long, of another type: nothing is stored, whoever is asked."""
    for bad in BAD_IDS:
        with pytest.raises(InvalidArgumentError):
            pytest.fail(f"{name} took {bad!r} and gave {await SESSION_VERBS[name](sessions, bad)!r}")
    assert await ids_of(sessions) == []
    if name not in {"create", "open", "list_sessions", "watch"}:  # of the tenant
        with pytest.raises(InvalidArgumentError):
            await SESSION_VERBS[name](sessions, None)


def below(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


async def test_ids_are_only_text(sessions: SessionRepository, tmp_path: Path) -> None:
    """O07: they reach no path, no pattern and no statement."""
    names = [
        "../escape",
        "../../etc/passwd",
        "/etc/x",
        "a/b",
        "..",
        ".",
        "%2e%2e",
        "'; DROP TABLE x; --",
        "%",
        "_",
        "\\",
    ]
    for name in names:
        assert (await sessions.create(name)).id == name
        await sessions.append(name, say("user", name))
    before = below(tmp_path)
    for name in names:
        assert [message.body["content"] for message in await sessions.messages(name)] == [name]
    assert await ids_of(sessions) == sorted(names)
    assert await sessions.delete("%") is True
    assert await ids_of(sessions) == sorted(set(names) - {"%"})
    assert below(tmp_path) == before
    assert all(path.parent == tmp_path for path in before)


# --- finding, saving, opening, deleting -----------------------------------------------------------


async def test_what_is_missing(sessions: SessionRepository) -> None:
    """O08: find is None, get raises, and a save creates it."""
    assert await sessions.find("s") is None
    with pytest.raises(SessionNotFoundError) as caught:
        await sessions.get("s")
    assert caught.value.session_id == "s"
    assert "'s'" in str(caught.value)
    saved = await sessions.save(Transcript.of("s", talk(2), user_id="ann", metadata={"k": [1]}))
    assert await sessions.find("s") == saved == await sessions.get("s")
    assert (saved.length, saved.user_id, saved.metadata) == (2, "ann", {"k": [1]})


async def test_open_returns_what_there_is(sessions: SessionRepository) -> None:
    """O09: untouched but for its recency, whatever else is given."""
    before = await sessions.create("s", user_id="ann", model="m", title="t", metadata={"k": 1})
    await sessions.append("s", *talk(2))
    await set_columns(sessions, "s", last_accessed_at=PAST)
    stored = await sessions.get("s")
    opened = await sessions.open("s", user_id="ann", model="other", max_turns=9, title="other", metadata={"k": 2})
    assert opened.last_accessed_at > PAST
    again = await sessions.get("s")
    assert opened == again
    await set_columns(sessions, "s", last_accessed_at=PAST)
    assert await sessions.get("s") == stored
    assert (stored.created_at, stored.model, stored.metadata) == (before.created_at, "m", {"k": 1})


async def test_open_creates_what_is_missing(sessions: SessionRepository) -> None:
    """O09: under the id that is given, or a new one."""
    session = await sessions.open(
        "s", user_id="ann", model="m", max_turns=3, system_message="y", title="t", metadata={"k": 1}
    )
    assert (session.id, session.user_id, session.model, session.max_turns) == ("s", "ann", "m", 3)
    assert (session.system_message, session.title, session.metadata, session.length) == ("y", "t", {"k": 1}, 0)
    assert await sessions.get("s") == session
    minted = [(await sessions.open()).id, (await sessions.open(None)).id, (await sessions.create()).id]
    assert len(set(minted)) == 3
    assert minted == sorted(minted)
    assert all(re.fullmatch(MINTED, name) for name in minted)


async def test_another_users_session_is_refused(sessions: SessionRepository) -> None:
    """O09: open hands it to nobody else, and does not touch it; a session of nobody is anybody's."""
    await sessions.create("s", user_id="ann")
    await sessions.create("free")
    await set_columns(sessions, "s", last_accessed_at=PAST)
    for user in ("bob", "Ann", "ann2"):
        with pytest.raises(SessionOwnerError) as caught:
            await sessions.open("s", user_id=user)
        assert caught.value.session_id == "s"
        assert "ann" not in str(caught.value)
    assert (await sessions.get("s")).last_accessed_at == PAST
    assert (await sessions.open("s")).user_id == "ann"
    assert (await sessions.open("s", user_id="ann")).user_id == "ann"
    assert (await sessions.open("free", user_id="bob")).user_id == ""


async def test_delete(sessions: SessionRepository) -> None:
    """O10: true once, then false; nothing is found after."""
    await sessions.create("s")
    assert await sessions.delete("s") is True
    assert await sessions.delete("s") is False
    assert await sessions.find("s") is None
    assert await sessions.exists("s") is False
    assert await sessions.delete("never there") is False


async def test_a_damaged_row_fails_only_its_own_read(sessions: SessionRepository) -> None:
    """O13, F11: a damaged body names its session and position; every other message can be read."""
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    await sessions.append("fine", *talk(3), create=True)
    for damage in (r'{"role": "user", "content": "\ud800"}', "[1]", '"text"', "7", "null"):
        await set_body(sessions, "s", 1, damage)
        first, second, third = await sessions.messages("s")
        assert (first.body, third.body) == (talk(3)[0], talk(3)[2])
        with pytest.raises(CorruptBodyError) as caught:
            _ = second.body
        assert (caught.value.session_id, caught.value.position) == ("s", 1)
        for text in ("content", "ud800", "role"):
            assert text not in str(caught.value)
        assert (await sessions.snapshot("s")).session.length == 3
        assert [row.message_count for row in (await sessions.list_sessions()).rows] == [3, 3]
    assert [message.body for message in await sessions.messages("fine")] == talk(3)
    assert await sessions.append("s", {"role": "user"}) == [3]


async def test_damaged_metadata_fails_only_its_own_session(sessions: SessionRepository) -> None:
    """O13: naming the session and not the value."""
    for name in ("broken", "fine"):
        await sessions.create(name, metadata={"k": "v"})
    damaged = r'"\ud800"'
    await execute(
        sessions,
        f"UPDATE sessionstore_metadata SET value = '{damaged}', plain = true WHERE session_id = 'broken'",  # noqa: S608
    )
    with pytest.raises(SessionStoreError, match="broken") as caught:
        await sessions.get("broken")
    assert "ud800" not in str(caught.value)
    assert (await sessions.get("fine")).metadata == {"k": "v"}
    assert await sessions.length("broken") == 0
    assert await sessions.delete("broken") is True
