"""Session files of the state store: one JSON object a file, what users said apart from what the agent answered.

    {"session_id", "user_id", "created_at", "updated_at", "active_seed_id", "active_persona_id", "metadata",
     "user_messages":   [{"content", "timestamp"}],
     "agent_responses": [{"content", "timestamp", "seed_id", "phase_reached", "evaluation_passed", "session_id"}]}

`title`, `model`, `max_turns`, `system_message`, `summary`, `parent_id` and `fork_position` are read and written too,
where they say something. An entry is kept verbatim as the body of its message, its timestamp text included. Missing
keys take defaults: the session id from the file's name, an entry's time from the entry before it in its list (the first
one's from the session), and they are written out.

Such a file holds neither positions nor message ids; JSON Lines holds all there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sessionstore.checks import check_id
from sessionstore.codec import Json
from sessionstore.errors import InvalidArgumentError
from sessionstore.importers.jsontext import decode, encode, encode_members
from sessionstore.importers.sessions import (
    COLUMNS,
    Read,
    Reading,
    columns_of,
    stored_messages,
    stored_text,
    times_of,
    transcript_of,
)
from sessionstore.importers.times import find_time, format_time, parse_time, time_order
from sessionstore.values import Message, NewMessage, Transcript

LISTS: Final = {"user": "user_messages", "assistant": "agent_responses"}
"""The two lists, by the role of their messages. On a tie of their times the user comes first."""

KNOWN: Final = (COLUMNS - {"first_position"}) | {"session_id", *LISTS.values()}

_ALWAYS: Final = ("user_id", "active_seed_id", "active_persona_id")
"""Columns that every file has, also where they say nothing."""


_END: Final = datetime.max.replace(tzinfo=UTC)


class _Entry(NamedTuple):
    """An entry of one of the lists, and when it comes."""

    body: Any
    moment: datetime
    order: tuple[datetime, str]


def read_file(raw: bytes, reading: Reading, *, default_id: str) -> Read:
    """Read one session file.

    Raises:
        InvalidArgumentError: it is not JSON, or no session. Messages are left to the store to check.
    """
    source = decode(raw)
    if not isinstance(source, dict):
        raise InvalidArgumentError(f"a session file must be a JSON object, not {type(source).__name__}")
    if source.keys().isdisjoint({"session_id", *LISTS.values()}):
        raise InvalidArgumentError("neither session_id, user_messages nor agent_responses: no session file")
    named = source.get("session_id")
    session_id = check_id(default_id if named is None else named)
    moment = find_time(source.get("created_at"), "created_at") or find_time(source.get("updated_at"), "updated_at")
    users, agents = (_entries(source, name, moment or datetime.now(UTC)) for name in LISTS.values())
    messages = [NewMessage(entry.body, role=role, created_at=entry.moment) for role, entry in _merged(users, agents)]
    transcript = transcript_of(session_id, {**source, "first_position": None}, messages, reading)
    return Read(transcript, frozenset(source.keys() - KNOWN - set(reading.metadata_keys)))


def _entries(source: dict[str, Any], name: str, moment: datetime) -> list[_Entry]:
    entries = source.get(name)
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise InvalidArgumentError(f"{name} must be a list, not {type(entries).__name__}")
    timed: list[_Entry] = []
    order = (moment, "")
    for at, entry in enumerate(entries):
        text = entry.get("timestamp") if isinstance(entry, dict) else None
        if text is not None:
            moment = parse_time(text, f"{name}[{at}]: timestamp")
            order = time_order(text, moment)
        timed.append(_Entry(entry, moment, order))
    return timed


def _merged(users: list[_Entry], agents: list[_Entry]) -> Iterable[tuple[str, _Entry]]:
    """Make one list of two by their times, each keeping its own order; the user comes first on a tie."""
    waiting = iter(agents)
    agent = next(waiting, None)
    for user in users:
        while agent is not None and agent.order < user.order:
            yield "assistant", agent
            agent = next(waiting, None)
        yield "user", user
    while agent is not None:
        yield "assistant", agent
        agent = next(waiting, None)


def file_of(transcript: Transcript) -> bytes:
    """Write a snapshot as a session file, bodies as they are stored.

    Raises:
        InvalidArgumentError: such a file cannot say what the session is.
        CorruptBodyError: a stored body is no longer a JSON object.
    """
    session = transcript.session
    lists: dict[str, list[bytes]] = {name: [] for name in LISTS.values()}
    for role, entry in _timed(stored_messages(transcript)):
        lists[LISTS[role]].append(entry)
    columns = {**dict.fromkeys(_ALWAYS), "user_id": "", **columns_of(session)}
    columns.pop("first_position", None)
    members = encode_members({"session_id": session.id, **columns, **times_of(session), "metadata": session.metadata})
    for name, entries in lists.items():
        inner = b",".join(b"\n    " + entry for entry in entries)
        members.append(encode(name) + b":[" + inner + (b"\n  ]" if entries else b"]"))
    return b"{\n  " + b",\n  ".join(members) + b"\n}\n"


def _timed(messages: list[Message]) -> list[tuple[str, bytes]]:
    """The roles and entries of messages, each with a timestamp, such that a merge by time puts them in this order."""
    entries: list[tuple[str, bytes]] = []
    merged: dict[str, list[_Entry]] = {role: [] for role in LISTS}
    last: tuple[str, _Entry] | None = None
    for message in messages:
        role, place = message.role, f"position {message.position}"
        if role not in LISTS:
            raise InvalidArgumentError(f"{place}: session files hold the roles user and assistant only")
        text, raw = message.body.get("timestamp"), stored_text(message)
        if text is None:
            text = format_time(_following(last, role, message.created_at))
            raw = _stamped(message, raw, text)
        moment = parse_time(text, f"{place}: timestamp")
        entry = _Entry(message.position, moment, time_order(text, moment))
        last = (role, entry)
        merged[role].append(entry)
        entries.append((role, raw))
    order = [entry.body for _, entry in _merged(merged["user"], merged["assistant"])]
    if order != [message.position for message in messages]:
        raise InvalidArgumentError("the timestamps of the messages do not give their order")
    return entries


def _following(last: tuple[str, _Entry] | None, role: str, moment: datetime) -> datetime:
    """A time for a message that keeps it behind the last one, although the user comes first on a tie."""
    if last is None or moment > last[1].moment:
        return moment
    before = last[1]
    tie_is_right = (last[0], role) != ("assistant", "user") and not before.order[1]
    return before.moment if tie_is_right or before.moment >= _END else before.moment + timedelta(microseconds=1)


def _stamped(message: Message, raw: bytes, text: str) -> bytes:
    if "timestamp" in message.body:  # null
        body: dict[str, Json] = {**message.body, "timestamp": text}
        return encode(body)
    separator = b"," if message.body else b""
    return raw.rstrip()[:-1] + separator + b'"timestamp":' + encode(text) + b"}"
