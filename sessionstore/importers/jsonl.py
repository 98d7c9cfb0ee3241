"""JSON Lines: one session a line.

A line is `{"id", "messages": [...]}` and, where there is something to say, the columns of the session by their names
(`user_id`, `title`, `model`, `max_turns`, `system_message`, `summary`, `active_seed_id`, `active_persona_id`,
`parent_id`, `fork_position`, `first_position`), `metadata`, `created_at` and `updated_at`. A message is its body.

What the store knows of messages beside their bodies stands in `message_fields`, an object of lists that run parallel
to `messages`: `role` (null where the body's own `role` says it), `message_id` and `created_at`. Bodies therefore stay
the caller's, to the byte.
"""

from __future__ import annotations

from typing import Any, Final

from sessionstore.checks import check_id
from sessionstore.codec import Json
from sessionstore.errors import InvalidArgumentError
from sessionstore.importers.jsontext import decode, encode, encode_members
from sessionstore.importers.sessions import (
    COLUMNS,
    Read,
    Reading,
    columns_of,
    new_message,
    stored_messages,
    stored_text,
    times_of,
    transcript_of,
)
from sessionstore.importers.times import find_time, format_time
from sessionstore.values import Message, NewMessage, Transcript

KNOWN: Final = COLUMNS | {"id", "messages", "message_fields"}
"""Every key of a line that is read; others are ignored, and reported."""

_FIELDS: Final = ("role", "message_id", "created_at")


def read_line(raw: bytes, reading: Reading) -> Read:
    """Read one line.

    Raises:
        InvalidArgumentError: it is not JSON, or no session. Messages are left to the store to check.
    """
    line = decode(raw)
    if not isinstance(line, dict):
        raise InvalidArgumentError(f"a line must be a JSON object, not {type(line).__name__}")
    for key in ("id", "messages"):
        if key not in line:
            raise InvalidArgumentError(f"the key {key!r} is missing")
    transcript = transcript_of(check_id(line["id"]), line, _messages(line, reading), reading)
    return Read(transcript, frozenset(line.keys() - KNOWN - set(reading.metadata_keys)))


def _messages(line: dict[str, Any], reading: Reading) -> list[NewMessage]:
    bodies = line["messages"]
    if not isinstance(bodies, list):
        raise InvalidArgumentError(f"messages must be a list, not {type(bodies).__name__}")
    stated = line.get("message_fields")
    if stated is None:
        return [new_message(body, reading) for body in bodies]
    fields = _fields(stated, len(bodies))
    return [
        new_message(
            body,
            reading,
            role=role,
            message_id=message_id,
            created_at=find_time(created, f"message {at}: created_at"),
        )
        for at, (body, role, message_id, created) in enumerate(zip(bodies, *fields, strict=True))
    ]


def _fields(stated: object, count: int) -> list[list[Any]]:
    if not isinstance(stated, dict):
        raise InvalidArgumentError(f"message_fields must be an object, not {type(stated).__name__}")
    if not stated.keys() <= set(_FIELDS):
        raise InvalidArgumentError(f"message_fields may hold {', '.join(_FIELDS)} only")
    for name, values in stated.items():
        if not isinstance(values, list) or len(values) != count:
            raise InvalidArgumentError(f"message_fields: {name} must be a list of {count}, one value a message")
    return [stated.get(name) or [None] * count for name in _FIELDS]


def line_of(transcript: Transcript) -> bytes:
    """Write a snapshot as one line, bodies as they are stored.

    Raises:
        CorruptBodyError: a stored body is no longer a JSON object.
    """
    session, messages = transcript.session, stored_messages(transcript)
    columns = columns_of(session)
    head: dict[str, Json] = {"id": session.id, **columns, **times_of(session)}
    if session.metadata:
        head["metadata"] = session.metadata
    members = encode_members(head)
    members.append(b'"messages":[' + b",".join([stored_text(message) for message in messages]) + b"]")
    if messages:
        members.append(b'"message_fields":' + encode(_stated(messages)))
    return b"{" + b",".join(members) + b"}\n"


def _stated(messages: list[Message]) -> dict[str, Json]:
    """What is to be said of messages beside their bodies; a list that would say nothing is left out."""
    roles = [None if message.body.get("role") == message.role else message.role for message in messages]
    ids = [message.message_id for message in messages]
    fields: dict[str, Any] = {"role": roles, "message_id": ids}
    said = {name: values for name, values in fields.items() if any(value is not None for value in values)}
    return {**said, "created_at": [format_time(message.created_at) for message in messages]}
