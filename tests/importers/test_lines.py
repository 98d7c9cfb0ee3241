"""One line: what is read of it, and what is written."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from sessionstore import InvalidArgumentError, NewMessage
from sessionstore.importers import Reading
from sessionstore.importers.jsonl import read_line

HELLO = {"role": "user", "content": "hello"}


def read(line: Any, **reading: Any) -> Any:
    return read_line(json.dumps(line).encode(), Reading(**reading))


def messages_of(line: Any, **reading: Any) -> list[NewMessage]:
    return list(read(line, **reading).transcript.messages)


def test_the_least() -> None:
    transcript = read({"id": "a", "messages": [HELLO]}).transcript
    assert transcript.session.id == "a"
    assert (transcript.session.user_id, transcript.session.title, transcript.session.metadata) == ("", None, {})
    assert transcript.messages == (NewMessage(HELLO),)


def test_every_column() -> None:
    columns = {
        "user_id": "u",
        "title": "t",
        "model": "m",
        "max_turns": 3,
        "system_message": "s",
        "summary": "y",
        "active_seed_id": "d",
        "active_persona_id": "p",
        "parent_id": "b",
        "fork_position": 0,
    }
    times = {"created_at": "2025-01-01T00:00:00Z", "updated_at": "2025-01-02T00:00:00.000001Z"}
    line = {"id": "a", "messages": [HELLO], **columns, **times, "metadata": {"k": [1]}, "first_position": 7}
    session = read(line).transcript.session
    assert {name: getattr(session, name) for name in columns} == columns
    assert session.created_at == datetime(2025, 1, 1, tzinfo=UTC)
    assert session.updated_at == datetime(2025, 1, 2, 0, 0, 0, 1, tzinfo=UTC)
    assert session.metadata == {"k": [1]}
    assert (session.first_position, session.next_position) == (7, 8)


def test_null_is_as_good_as_nothing() -> None:
    names = ("user_id", "title", "metadata", "created_at", "updated_at", "max_turns", "first_position")
    session = read({"id": "a", "messages": [], **dict.fromkeys(names)}).transcript.session
    assert (session.user_id, session.title, session.metadata, session.max_turns) == ("", None, {}, 0)


@pytest.mark.parametrize(
    ("body", "role"),
    [
        ({"role": "user", "speaker": "SYSTEM"}, None),
        ({"speaker": "SYSTEM"}, "SYSTEM"),
        ({"role": None, "speaker": "SYSTEM"}, "SYSTEM"),
        ({"speaker": ""}, "unknown"),
        ({"speaker": {"name": "SYSTEM"}}, "unknown"),
        ({"text": "hello"}, "unknown"),
        ({"role": 5}, None),
    ],
)
def test_who_speaks(body: dict[str, Any], role: str | None) -> None:
    """H28: the body's own role stands and the body is kept verbatim; else the role key's value, else the default."""
    [message] = messages_of({"id": "a", "messages": [body]}, role_key="speaker", default_role="unknown")
    assert message == NewMessage(body, role=role)


def test_no_role_is_made_up() -> None:
    assert messages_of({"id": "a", "messages": [{"text": "x"}]}) == [NewMessage({"text": "x"})]


def test_message_fields_run_parallel() -> None:
    fields = {"role": [None, "tool"], "message_id": ["m1", None], "created_at": [None, "2025-01-01T00:00:00Z"]}
    line = {"id": "a", "messages": [HELLO, {"x": 1}], "message_fields": fields}
    assert messages_of(line, default_role="unknown") == [
        NewMessage(HELLO, message_id="m1"),
        NewMessage({"x": 1}, role="tool", created_at=datetime(2025, 1, 1, tzinfo=UTC)),
    ]


def test_other_keys_are_told_or_kept_as_metadata() -> None:
    line = {"id": "a", "messages": [], "source": "s", "meta": {"x": 1}, "metadata": {"k": 2}}
    read_all = read(line, metadata_keys=("meta", "absent"))
    assert read_all.ignored == {"source"}
    assert read_all.transcript.session.metadata == {"k": 2, "meta": {"x": 1}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ([], "a line must be a JSON object, not list"),
        ({"messages": []}, "the key 'id' is missing"),
        ({"id": "a"}, "the key 'messages' is missing"),
        ({"id": 5, "messages": []}, "session id must be a string, not int"),
        ({"id": "", "messages": []}, "session id must not be empty"),
        ({"id": "a", "messages": {}}, "messages must be a list, not dict"),
        ({"id": "a", "messages": [], "metadata": []}, "metadata must be an object, not list"),
        ({"id": "a", "messages": [], "created_at": "now"}, "created_at is no time like 2025-01-31T12:00:00Z"),
        ({"id": "a", "messages": [], "first_position": "1"}, "first_position must be an integer, not str"),
        ({"id": "a", "messages": [], "first_position": -1}, "first_position must be at least 0"),
        ({"id": "a", "messages": [], "message_fields": []}, "message_fields must be an object, not list"),
        (
            {"id": "a", "messages": [], "message_fields": {"rank": []}},
            "message_fields may hold role, message_id, created_at only",
        ),
        (
            {"id": "a", "messages": [HELLO], "message_fields": {"role": []}},
            "message_fields: role must be a list of 1, one value a message",
        ),
        (
            {"id": "a", "messages": [HELLO], "message_fields": {"created_at": ["now"]}},
            "message 0: created_at is no time like 2025-01-31T12:00:00Z",
        ),
        (
            {"id": "a", "messages": [], "metadata": {"meta": 1}, "meta": 2},
            "metadata has a key already that another key of the session was to be kept as",
        ),
    ],
)
def test_what_is_no_session(line: Any, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read(line, metadata_keys=("meta",))
    assert caught.value.message == reason
