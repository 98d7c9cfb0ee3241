"""Session files of the state store: two lists become one, and two again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError, NewMessage, SessionRepository, Transcript
from sessionstore.importers import Export, Fault, FilesTarget, Reading, SessionFiles, StoppedError
from sessionstore.importers.state_store import read_file
from tests.importers.conftest import imported

FILE: dict[str, Any] = {
    "session_id": "0192-état/7",
    "user_id": "ada",
    "created_at": "2025-03-01T12:00:00.123456789Z",
    "updated_at": "2025-03-01T12:00:09.500Z",
    "user_messages": [
        {"content": "What is the plan?", "timestamp": "2025-03-01T12:00:01.000000001Z"},
        {"content": "¿Y después? 🗺️", "timestamp": "2025-03-01T12:00:03.5Z"},
    ],
    "agent_responses": [
        {
            "content": "First we look.",
            "timestamp": "2025-03-01T12:00:02+00:00",
            "seed_id": "seed-1",
            "phase_reached": "execute",
            "evaluation_passed": True,
            "session_id": "0192-état/7",
        },
        {"content": "", "timestamp": "2025-03-01T13:00:03.5+01:00", "seed_id": None, "score": 1.0},
    ],
    "active_seed_id": "seed-1",
    "active_persona_id": None,
    "metadata": {"project_ids": "p1", "nested": {"b": [1, 2.0, None], "a": "\u0000"}},
}


def merged(source: dict[str, Any]) -> list[tuple[str, Any]]:
    transcript = read_file(json.dumps(source).encode(), Reading(), default_id="x").transcript
    return [
        (str(message.role), message.body["content"])
        for message in transcript.messages
        if isinstance(message, NewMessage)
    ]


def entry(second: str, content: Any) -> dict[str, Any]:
    return {"content": content, "timestamp": f"2025-03-01T12:00:{second}Z"}


def test_two_lists_become_one_by_their_times() -> None:
    """O04: a two-pointer merge, the user first on ties, compared also below a microsecond."""
    assert merged(FILE) == [
        ("user", "What is the plan?"),
        ("assistant", "First we look."),
        ("user", "¿Y después? 🗺️"),
        ("assistant", ""),
    ]
    below = {
        "user_messages": [entry("01.000000002", "second")],
        "agent_responses": [entry("01.000000001", "first"), entry("01.000000002", "third")],
    }
    assert [content for _, content in merged(below)] == ["first", "second", "third"]


def test_each_list_keeps_its_own_order() -> None:
    """O04: also where its times are unsorted."""
    source = {
        "user_messages": [entry("05", "u0"), entry("01", "u1"), entry("09", "u2")],
        "agent_responses": [entry("07", "a0"), entry("02", "a1"), entry("08", "a2")],
    }
    assert [content for _, content in merged(source)] == ["u0", "u1", "a0", "a1", "a2", "u2"]


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_the_merge_is_the_two_pointer_merge(users: list[int], agents: list[int]) -> None:
    """O04: as a plain model does it."""
    expected: list[tuple[str, int]] = []
    at, to = 0, 0
    while at < len(users) or to < len(agents):
        if to == len(agents) or (at < len(users) and users[at] <= agents[to]):
            expected.append(("user", at))
            at += 1
        else:
            expected.append(("assistant", to))
            to += 1
    source = {
        "user_messages": [entry(f"{second:02}", place) for place, second in enumerate(users)],
        "agent_responses": [entry(f"{second:02}", place) for place, second in enumerate(agents)],
    }
    assert merged(source) == expected


def test_missing_keys_take_defaults() -> None:
    """O04: the id from the file's name, an entry's time from the one before it, nothing for the rest."""
    source = {"created_at": "2025-03-01T12:00:00Z", "user_messages": [{"content": 1}, entry("05", 2), {"content": 3}]}
    read = read_file(json.dumps(source).encode(), Reading(), default_id="from-the-name")
    session = read.transcript.session
    assert (session.id, session.user_id, session.metadata, session.active_seed_id) == ("from-the-name", "", {}, None)
    assert session.updated_at == session.created_at == datetime(2025, 3, 1, 12, tzinfo=UTC)
    times = [message.created_at for message in read.transcript.messages if isinstance(message, NewMessage)]
    assert times == [session.created_at + timedelta(seconds=seconds) for seconds in (0, 5, 5)]
    assert read_file(b'{"session_id": "a"}', Reading(), default_id="x").transcript.messages == ()


def test_other_keys_are_told_or_kept() -> None:
    read = read_file(b'{"session_id": "a", "x": 1, "y": 2}', Reading(metadata_keys=("y",)), default_id="x")
    assert read.ignored == {"x"}
    assert read.transcript.session.metadata == {"y": 2}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ([], "a session file must be a JSON object, not list"),
        ({"id": "a", "messages": []}, "neither session_id, user_messages nor agent_responses: no session file"),
        ({"session_id": "a", "user_messages": {}}, "user_messages must be a list, not dict"),
        ({"session_id": "a\n"}, "session id must not hold the character U+000A"),
        (
            {"agent_responses": [{"timestamp": "2025-03-01T12:00:00"}]},
            "agent_responses[0]: timestamp must have a time zone",
        ),
        (
            {"user_messages": [{}, {"timestamp": 5}]},
            "user_messages[1]: timestamp must be text like 2025-01-31T12:00:00Z, not int",
        ),
    ],
)
def test_what_is_no_session_file(source: Any, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read_file(json.dumps(source).encode(), Reading(), default_id="x")
    assert caught.value.message == reason


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- through a database ---------------------------------------------------------------------------


async def there_and_back(sessions: SessionRepository, source: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "in").mkdir()
    (folder / "in" / "any.json").write_text(json.dumps(source))
    report = await imported(sessions, SessionFiles(folder / "in"))
    assert (report.created, report.failed) == (1, 0)
    (folder / "out").mkdir()
    await Export(sessions, FilesTarget(folder / "out", force=False)).run()
    [path] = (folder / "out").iterdir()
    written: dict[str, Any] = json.loads(path.read_text())
    return written


async def test_the_export_equals_the_file(sessions: SessionRepository, tmp_path: Path) -> None:
    """O04, O06: original timestamp texts and all; session times are cut off below a microsecond."""
    written = await there_and_back(sessions, FILE, tmp_path)
    assert written == {**FILE, "created_at": "2025-03-01T12:00:00.123456Z"}
    assert list(written["agent_responses"][0]) == list(FILE["agent_responses"][0])
    [path] = (tmp_path / "out").iterdir()
    assert path.name == "0192-%C3%A9tat%2F7.json"


async def test_what_is_stored(sessions: SessionRepository, tmp_path: Path) -> None:
    """O04, O05, O06: one list; the file's times exactly; seed, phase and verdict in the body."""
    await there_and_back(sessions, FILE, tmp_path)
    transcript = await sessions.snapshot("0192-état/7")
    assert transcript.session.updated_at == datetime(2025, 3, 1, 12, 0, 9, 500_000, tzinfo=UTC)
    assert transcript.session.created_at == datetime(2025, 3, 1, 12, 0, 0, 123_456, tzinfo=UTC)
    assert (transcript.session.active_seed_id, transcript.session.user_id) == ("seed-1", "ada")
    messages = await sessions.messages("0192-état/7")
    assert [message.role for message in messages] == ["user", "assistant", "user", "assistant"]
    assert [message.body for message in messages[1::2]] == FILE["agent_responses"]
    assert messages[3].created_at == datetime(2025, 3, 1, 12, 0, 3, 500_000, tzinfo=UTC)
    assert transcript.exchange_count == 2


async def test_missing_keys_are_written_with_their_defaults(sessions: SessionRepository, tmp_path: Path) -> None:
    """O04: a file that leaves keys out comes back with them."""
    source = {
        "session_id": "a",
        "created_at": "2025-03-01T12:00:00Z",
        "user_messages": [{"content": "x", "timestamp": None}, {}],
        "agent_responses": [entry("00", "y")],
    }
    assert await there_and_back(sessions, source, tmp_path) == {
        "session_id": "a",
        "user_id": "",
        "created_at": "2025-03-01T12:00:00Z",
        "updated_at": "2025-03-01T12:00:00Z",
        "active_seed_id": None,
        "active_persona_id": None,
        "metadata": {},
        "user_messages": [
            {"content": "x", "timestamp": "2025-03-01T12:00:00Z"},
            {"timestamp": "2025-03-01T12:00:00Z"},
        ],
        "agent_responses": [entry("00", "y")],
    }


async def test_columns_that_say_something_go_along(sessions: SessionRepository, tmp_path: Path) -> None:
    columns = {"title": "t", "model": "m", "max_turns": 4, "system_message": "", "summary": "s", "parent_id": "p"}
    written = await there_and_back(sessions, {**FILE, **columns, "fork_position": 0}, tmp_path)
    assert {name: written[name] for name in (*columns, "fork_position")} == {**columns, "fork_position": 0}


async def test_a_session_of_another_origin_gets_times_that_keep_its_order(
    sessions: SessionRepository, tmp_path: Path
) -> None:
    """O04: messages of one moment, as one append stores them, come back in the same order."""
    moment = datetime(2025, 3, 1, 12, tzinfo=UTC)
    roles = ("user", "assistant", "assistant", "user", "user", "assistant", "user")
    messages = [
        NewMessage({"role": role, "content": at, **({"timestamp": None} if at == 2 else {})}, created_at=moment)
        for at, role in enumerate(roles)
    ]
    await sessions.save(Transcript.of("a", messages))
    await Export(sessions, FilesTarget(tmp_path, force=False)).run()
    written = json.loads((tmp_path / "a.json").read_text())
    assert merged(written) == [(role, at) for at, role in enumerate(roles)]
    assert written["user_messages"][0]["timestamp"] == "2025-03-01T12:00:00Z"
    assert written["user_messages"][3]["timestamp"] == "2025-03-01T12:00:00.000002Z"


END = datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (
            [NewMessage({"role": role}, created_at=END) for role in ("assistant", "user")],
            "the timestamps of the messages do not give their order",
        ),
        ([{"role": "tool", "content": "x"}], "position 0: session files hold the roles user and assistant only"),
        (
            [{"role": "user", **entry("05", "x")}, {"role": "assistant", **entry("01", "y")}],
            "the timestamps of the messages do not give their order",
        ),
        (
            [{"role": "user", "timestamp": "at noon"}],
            "position 0: timestamp is no time like 2025-01-31T12:00:00Z",
        ),
    ],
)
async def test_what_such_a_file_cannot_say_is_refused(
    sessions: SessionRepository, tmp_path: Path, messages: list[Any], reason: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    await sessions.save(Transcript.of("a", messages))
    await sessions.save(Transcript.of("b", [{"role": "user", "content": "fine"}]))
    with pytest.raises(StoppedError) as caught:
        await Export(sessions, FilesTarget(out, force=False)).run(["a", "b"])
    assert caught.value.message == f"session 'a': {reason}"
    assert names(out) == []
    faults: list[Fault] = []
    job = Export(sessions, FilesTarget(out, force=False), on_error="continue", on_fault=faults.append)
    await job.run(["a", "b"])
    assert faults == [Fault("session 'a'", reason)]
    assert (job.report.sessions, job.report.failed) == (1, 1)
    assert names(out) == ["b.json"]
