"""What the store hands out and takes in: frozen, detached values that know nothing of a database.

No repr shows a body, a metadata value or another text of the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeAlias, TypeVar

from sessionstore import codec
from sessionstore.checks import check_count, stored_instant
from sessionstore.codec import Json
from sessionstore.errors import CorruptBodyError, InvalidArgumentError

T = TypeVar("T")


class _Unset:
    """The absence of an argument, where None means something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()

Unset: TypeAlias = _Unset


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One conversation, as it was when it was read.

    Attributes:
        fork_position: `next_position` at the moment it was forked; None where it was not.
        first_position: position of the oldest kept message.
        next_position: the head: the position that the next message gets.
        generation: version of the history; it grows when history is rewritten, not when it is appended to or trimmed.
        version: grows by one with every change; see `expected_version=`.
        metadata: by key, in bytewise order of the keys.
    """

    id: str
    user_id: str = ""
    model: str = ""
    max_turns: int = 0
    system_message: str | None = field(default=None, repr=False)
    title: str | None = field(default=None, repr=False)
    summary: str | None = field(default=None, repr=False)
    active_seed_id: str | None = None
    active_persona_id: str | None = None
    parent_id: str | None = None
    fork_position: int | None = None
    first_position: int = 0
    next_position: int = 0
    generation: int = 0
    version: int = 0
    next_event: int = 0
    created_at: datetime
    updated_at: datetime
    last_accessed_at: datetime
    metadata: dict[str, Json] = field(default_factory=dict, repr=False)

    @property
    def length(self) -> int:
        """How many messages are kept."""
        return self.next_position - self.first_position

    @property
    def cursor(self) -> str:
        """Where a watch of this session begins that is to tell what happens after this was read."""
        return f"{self.generation}.{self.next_position}.{self.next_event}"


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """A session in a listing, read without touching a message. `message_count` is its length."""

    id: str
    user_id: str
    title: str | None = field(repr=False)
    parent_id: str | None
    message_count: int
    active_seed_id: str | None
    project_id: str | None = field(repr=False)
    created_at: datetime
    updated_at: datetime


class Message:
    """One stored message.

    A page of history builds thousands of these, and a frozen dataclass costs as much as decoding the body. So this
    holds the row as it came and decodes what is asked for.
    """

    __slots__ = ("_body", "_row", "_session_id")

    _row: tuple[int, str, bytes, bool, str | None, int | datetime]
    _session_id: str
    _body: dict[str, Any] | None

    def __init__(self, session_id: str, row: Sequence[Any]) -> None:
        """Wrap a row of (position, role, body, plain, message_id, created_at)."""
        self._session_id = session_id
        self._row = row  # type: ignore[assignment]  # any row type of a driver indexes like the tuple
        self._body = None

    @property
    def position(self) -> int:
        """The 0-based place in the session."""
        return self._row[0]

    @property
    def role(self) -> str:
        """Who the message is from."""
        return self._row[1]

    @property
    def body(self) -> dict[str, Any]:
        """The caller's JSON object, decoded when first asked.

        Raises:
            CorruptBodyError: what is stored is no longer a JSON object.
        """
        if self._body is None:
            try:
                body = codec.decode(self._row[2], bool(self._row[3]))
            except ValueError:
                body = None
            if not isinstance(body, dict):
                raise CorruptBodyError(self._session_id, self.position) from None
            self._body = body
        return self._body

    @property
    def body_json(self) -> bytes:
        """The body as it is stored: encoded JSON."""
        return self._row[2]

    @property
    def plain(self) -> bool:
        """Whether the body has no U+0000, no lone surrogate and no integer beyond 64 bits."""
        return bool(self._row[3])

    @property
    def message_id(self) -> str | None:
        """The caller's id of the message."""
        return self._row[4]

    @property
    def created_at(self) -> datetime:
        """When it was appended, or the time the caller stated."""
        return stored_instant(self._row[5])

    def _key(self) -> tuple[Any, ...]:
        return (self.position, self.role, self.body_json, self.message_id, self.created_at)

    def __eq__(self, other: object) -> bool:
        """Equal place, role, encoded body, id and time."""
        return self._key() == other._key() if isinstance(other, Message) else NotImplemented

    def __hash__(self) -> int:
        """Consistent with equality."""
        return hash(self._key())

    def __repr__(self) -> str:
        """Place and size, never the body."""
        return f"Message(position={self.position}, role={self.role!r}, body=<{len(self.body_json)} bytes>)"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the row as a plain tuple, whatever type the driver gave it."""
        return Message, (self._session_id, tuple(self._row))


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be stored, where more is to be said of it than its body.

    Attributes:
        body: the JSON object.
        role: who it is from, where the body has no `role` of its own.
        message_id: makes a retry of the append safe as long as the message is kept.
        created_at: an aware datetime; the time of the append by default.
    """

    body: Mapping[str, Any] = field(repr=False)
    role: str | None = None
    message_id: str | None = None
    created_at: datetime | None = None


AnyMessage: TypeAlias = Message | NewMessage | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One thing that happened to a session and is not a message.

    Attributes:
        number: 0-based, in the order of commits.
        kind: one of `created`, `forked`, `trimmed`, `truncated`, `replaced`, `compacted`, `reset`, `updated`,
            `metadata_changed`, `deleted` and `evicted`, or the caller's own.
        generation: of the session, just after it; so are the positions.
        next_position: the event's place: before the message of this position, if there is one.
        payload: the caller's JSON value; of the store's own kinds, an object that says more, or None.
    """

    session_id: str
    number: int
    kind: str
    generation: int
    first_position: int
    next_position: int
    created_at: datetime
    payload: Json = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class DerivedEvent:
    """What one message, or an event of the caller's own, looks like to somebody who follows the conversation.

    Attributes:
        id: of a message its own or its place, of an event its number: the same whenever it is derived.
        kind: `tool_result` for messages of that role, else `message`; the event's kind.
        visibility: `public` for what users and assistants say, else `internal`.
        text: the text of the content, its blocks joined by newlines.
        blocks: the content as a list of blocks.
    """

    id: str
    kind: str
    role: str
    visibility: str
    text: str = field(repr=False)
    blocks: tuple[Json, ...] = field(repr=False)


PUBLIC_ROLES: Final = frozenset({"user", "assistant"})


@dataclass(frozen=True, slots=True)
class Transcript:
    """A whole session: its columns and its messages, as of one moment.

    Attributes:
        events: the caller's own that have a place among the messages, in order. Saving does not write them.
    """

    session: Session
    messages: tuple[AnyMessage, ...] = field(default=(), repr=False)
    events: tuple[SessionEvent, ...] = field(default=(), repr=False)

    @classmethod
    def of(
        cls,
        session_id: str,
        messages: Iterable[AnyMessage] = (),
        *,
        metadata: Mapping[str, Json] | None = None,
        created_at: datetime | None = None,
        updated_at: datetime | None = None,
        **columns: Any,
    ) -> Transcript:
        """Build a transcript from its parts; `columns` are fields of `Session`.

        Raises:
            InvalidArgumentError: a column that a session does not have, or that the store assigns.
        """
        unknown = columns.keys() - _CALLERS_COLUMNS
        if unknown:
            raise InvalidArgumentError(f"not a column of a session: {', '.join(sorted(unknown))}")
        kept = tuple(messages)
        created = created_at or updated_at or datetime.now(UTC)
        updated = updated_at or created
        session = Session(
            id=session_id,
            next_position=len(kept),
            metadata=dict(metadata or {}),
            created_at=created,
            updated_at=updated,
            last_accessed_at=updated,
            **columns,
        )
        return cls(session, kept)

    def replace(self, **changes: Any) -> Transcript:
        """Return a copy with other messages, metadata or columns."""
        messages = tuple(changes.pop("messages", self.messages))
        unknown = changes.keys() - _CALLERS_COLUMNS - {"metadata", "created_at", "updated_at"}
        if unknown:
            raise InvalidArgumentError(f"not a column of a session: {', '.join(sorted(unknown))}")
        first = self.session.first_position if messages else self.session.next_position
        session = replace(self.session, first_position=first, next_position=first + len(messages), **changes)
        return Transcript(session, messages, self.events)

    @property
    def derived_events(self) -> tuple[DerivedEvent, ...]:
        """One event a message, in order, and the caller's own events at their place between them."""
        first = self.session.first_position
        derived: list[DerivedEvent] = []
        waiting = list(reversed(self.events))
        for position, message in enumerate(self.messages, first):
            while waiting and waiting[-1].next_position <= position:
                derived.append(_own_event(waiting.pop()))
            derived.append(_event(self.session, position, message))
        return (*derived, *map(_own_event, reversed(waiting)))

    @property
    def user_messages(self) -> tuple[AnyMessage, ...]:
        """The messages with role `user`."""
        return tuple(self._of_role("user"))

    @property
    def agent_responses(self) -> tuple[AnyMessage, ...]:
        """The messages with role `assistant`."""
        return tuple(self._of_role("assistant"))

    @property
    def exchange_count(self) -> int:
        """Questions that were answered: the smaller of the two counts."""
        return min(len(self.user_messages), len(self.agent_responses))

    @property
    def is_empty(self) -> bool:
        """Whether no user has said anything yet."""
        return not self.user_messages

    def _of_role(self, role: str) -> Iterator[AnyMessage]:
        return (message for message in self.messages if _role_and_body(message)[0] == role)


_CALLERS_COLUMNS: Final = frozenset(
    {
        *("user_id", "model", "max_turns", "system_message", "title", "summary"),
        *("active_seed_id", "active_persona_id", "parent_id", "fork_position"),
    }
)


def _role_and_body(message: AnyMessage) -> tuple[Any, Mapping[str, Any]]:
    body: Mapping[str, Any]
    if isinstance(message, (Message, NewMessage)):
        body, role = message.body, message.role
    else:
        body, role = message, None
    return (body.get("role") if role is None else role), body


def _event(session: Session, position: int, message: AnyMessage) -> DerivedEvent:
    role, body = _role_and_body(message)
    content = body.get("content")
    blocks = _blocks(content)
    message_id = None if isinstance(message, Mapping) else message.message_id
    return DerivedEvent(
        id=message_id or f"{session.id}/{position}",
        kind="tool_result" if role == "tool_result" else "message",
        role=role,
        visibility="public" if role in PUBLIC_ROLES else "internal",
        text="\n".join(text for block in blocks if (text := _text(block))),
        blocks=blocks,
    )


def _own_event(event: SessionEvent) -> DerivedEvent:
    blocks = _blocks(event.payload)
    return DerivedEvent(
        id=f"{event.session_id}/event/{event.number}",
        kind=event.kind,
        role="event",
        visibility="internal",
        text="\n".join(text for block in blocks if (text := _text(block))),
        blocks=blocks,
    )


def _blocks(content: Json) -> tuple[Json, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    return tuple(content) if isinstance(content, list) else (content,)


def _text(block: Json) -> str:
    """The text of one block: a string, its `text`, or what its `content` says (a tool's result)."""
    if isinstance(block, str):
        return block
    if not isinstance(block, dict):
        return ""
    text = block.get("text")
    if isinstance(text, str):
        return text
    inner = block.get("content")
    if isinstance(inner, list):
        return "\n".join(
            found for part in inner if isinstance(part, dict) and isinstance(found := part.get("text"), str)
        )
    return inner if isinstance(inner, str) else ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing. `cursor` continues it, None at the end."""

    rows: list[T]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a session stands among its forks.

    Attributes:
        parent_id: the session it was forked from, if that still exists. `Session.parent_id` keeps the id of one that
            is gone.
        child_ids: sessions forked from it, in bytewise order.
        root_id: the oldest ancestor that still exists; its own id for a root.
    """

    parent_id: str | None
    child_ids: tuple[str, ...]
    root_id: str


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """Which sessions a prune deletes; None switches a limit off.

    Attributes:
        max_age: sessions not changed for longer go.
        max_sessions: of the others, the newest so many stay.
        max_idle: sessions not accessed for longer go.
        per_user: count `max_sessions` for each user of the tenant rather than for the tenant.
    """

    max_age: timedelta | None = timedelta(days=7)
    max_sessions: int | None = 100
    max_idle: timedelta | None = None
    per_user: bool = False

    def __post_init__(self) -> None:
        """Refuse what would delete everything, or nothing, by accident."""
        for name in ("max_age", "max_idle"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, timedelta) or value <= timedelta(0)):
                raise InvalidArgumentError(f"{name} must be a positive timedelta or None")
        if self.max_sessions is not None:
            check_count(self.max_sessions, "max_sessions", minimum=1)
        if not isinstance(self.per_user, bool):
            raise InvalidArgumentError("per_user must be a bool")


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune really deleted, or would delete: then `session_ids` names them."""

    by_age: int = 0
    by_number: int = 0
    by_idle: int = 0
    session_ids: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All deleted sessions."""
        return self.by_age + self.by_number + self.by_idle


SESSION_FIELDS: Final = tuple(entry.name for entry in fields(Session) if entry.name != "metadata")


def maker(kind: type[T]) -> Callable[[Iterable[Any]], T]:
    """Make a function that builds a frozen, slotted dataclass from all its fields in order.

    Twice as fast as its `__init__`, which goes round its own `__setattr__` by name for each field.
    """
    setters = [getattr(kind, entry.name).__set__ for entry in fields(kind)]  # type: ignore[arg-type]

    def made(values: Iterable[Any]) -> T:
        value = object.__new__(kind)
        for set_field, entry in zip(setters, values, strict=True):
            set_field(value, entry)
        return value

    return made
