"""Sessions as importers read and write them: columns by name, messages as the store takes and gives them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, cast

from sessionstore.checks import check_count
from sessionstore.codec import Json
from sessionstore.errors import InvalidArgumentError
from sessionstore.importers.times import find_time, format_time
from sessionstore.values import Message, NewMessage, Session, Transcript

TEXTS: Final = (
    *("user_id", "title", "model", "system_message", "summary"),
    *("active_seed_id", "active_persona_id", "parent_id"),
)
NUMBERS: Final = ("max_turns", "fork_position", "first_position")
TIMES: Final = ("created_at", "updated_at")
_DEFAULTS: Final = {field.name: field.default for field in fields(Session)}
COLUMNS: Final = frozenset({*TEXTS, *NUMBERS, *TIMES, "metadata"})
"""Columns of a session that files carry under their own names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How to read sessions that other programs wrote.

    Attributes:
        role_key: key of a message that names the speaker where the message has no `role`.
        default_role: role of messages that name no speaker.
        metadata_keys: other keys of a session to keep, as metadata of that name.
    """

    role_key: str | None = None
    default_role: str | None = None
    metadata_keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Read:
    """A session that was read, and the keys of it that were ignored."""

    transcript: Transcript
    ignored: frozenset[str] = frozenset()


def transcript_of(
    session_id: str, source: Mapping[str, Any], messages: Iterable[NewMessage], reading: Reading
) -> Transcript:
    """Put a session together from the columns of a file and its messages.

    Raises:
        InvalidArgumentError: a column is not what it has to be. What the store checks itself is left to it.
    """
    columns = {name: source[name] for name in (*TEXTS, *NUMBERS) if source.get(name) is not None}
    first = check_count(columns.pop("first_position", 0), "first_position")
    transcript = Transcript.of(
        session_id,
        messages,
        **columns,
        metadata=_metadata(source, reading),
        **{name: find_time(source.get(name), name) for name in TIMES},
    )
    if not first:
        return transcript
    session = replace(transcript.session, first_position=first, next_position=first + len(transcript.messages))
    return Transcript(session, transcript.messages)


def _metadata(source: Mapping[str, Any], reading: Reading) -> dict[str, Json]:
    metadata = source.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise InvalidArgumentError(f"metadata must be an object, not {type(metadata).__name__}")
    kept = {key: source[key] for key in reading.metadata_keys if key in source}
    if metadata and not metadata.keys().isdisjoint(kept):
        raise InvalidArgumentError("metadata has a key already that another key of the session was to be kept as")
    return {**(metadata or {}), **kept}


def columns_of(session: Session) -> dict[str, Json]:
    """The columns of a session that say something, times left out."""
    columns = {name: getattr(session, name) for name in (*TEXTS, *NUMBERS)}
    return {name: value for name, value in columns.items() if value != _DEFAULTS[name]}


def times_of(session: Session) -> dict[str, Json]:
    """The times of a session as text."""
    return {name: format_time(getattr(session, name)) for name in TIMES}


def new_message(body: Any, reading: Reading, **stated: Any) -> NewMessage:
    """A message of a file: its own role stands, then the role key's value, then the default."""
    role = stated.pop("role", None)
    if role is None and isinstance(body, dict) and body.get("role") is None:
        spoken = body.get(reading.role_key) if reading.role_key is not None else None
        role = spoken if isinstance(spoken, str) and spoken else reading.default_role
    return NewMessage(body, role=role, **stated)


def stored_messages(transcript: Transcript) -> list[Message]:
    """The messages of a snapshot, which are all stored ones."""
    return cast("list[Message]", list(transcript.messages))


def stored_text(message: Message) -> bytes:
    """The body as it is stored, on one line: somebody may have put line breaks between its parts by hand."""
    return message.body_json.replace(b"\n", b" ")
