"""What a watcher of sessions is told, and how it says where it was."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sessionstore.errors import InvalidArgumentError
from sessionstore.limits import INT64_MAX
from sessionstore.values import Message, SessionEvent

MESSAGES: Final = "messages"
REWRITTEN: Final = "rewritten"
DELETED: Final = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of a session, as a watcher is told of it.

    Attributes:
        kind: `messages`: some were appended. `rewritten`: what was read of the history may be no longer so, read it
            again. `deleted`: the session is gone. Otherwise the kind of the event.
        generation: of the session, just after the change.
        messages: those that were appended, in order.
        event: what happened. Of `rewritten` and `deleted` the event that did it, if it is known.
        cursor: `watch(after=cursor)` goes on after this change, in any process.
    """

    session_id: str
    kind: str
    generation: int
    messages: tuple[Message, ...]
    event: SessionEvent | None
    cursor: str


_CURSOR: Final = re.compile(r"(\d{1,19})\.(-1|\d{1,19})\.(\d{1,19})", re.ASCII)
_TENANT_CURSOR: Final = re.compile(r"@(\d{1,19})", re.ASCII)


class Cursor(NamedTuple):
    """What a watcher has seen of a session: all before a position and an event's number, in a generation.

    A position of -1 means that nothing is to be seen, yet or any more.
    """

    generation: int
    position: int
    event: int

    def __str__(self) -> str:
        """As short text."""
        return f"{self.generation}.{self.position}.{self.event}"

    @classmethod
    def parse(cls, text: object) -> Cursor:
        """Read the text of a cursor.

        Raises:
            InvalidArgumentError: it is not one of a session.
        """
        found = _CURSOR.fullmatch(text) if isinstance(text, str) else None
        if found is None or max(numbers := [int(number) for number in found.groups()]) > INT64_MAX:
            raise InvalidArgumentError("after is not a cursor of a session's change")
        return cls(*numbers)

    def has_seen(self, other: Cursor) -> bool:
        """Whether another one of the same generation is not further."""
        return self.generation == other.generation and self.position >= other.position and self.event >= other.event


def unseen(change: Change, seen: Cursor) -> Change | None:
    """What of a change somebody has not seen who has read a session up to a cursor; None: nothing of it."""
    # A deletion may be known by what was seen before the session that went: its event says which one that was.
    known = change.kind != DELETED or change.event is not None
    if known and (change.event or change).generation < seen.generation + (seen.position < 0):
        return None
    if change.generation != seen.generation or change.kind == DELETED:
        return change
    if change.messages:
        messages = tuple(message for message in change.messages if message.position >= seen.position)
        return replace(change, messages=messages) if messages else None
    return None if change.event is not None and change.event.number < seen.event else change


NOTHING: Final = Cursor(0, -1, 0)
"""Of a session that was not there."""


def tenant_cursor(micros: int) -> str:
    """As short text, up to when a watcher of a tenant has seen everything; microseconds since 1970."""
    return f"@{micros}"


def parse_tenant_cursor(text: object) -> int:
    """Read it.

    Raises:
        InvalidArgumentError: it is not one of a tenant's change.
    """
    found = _TENANT_CURSOR.fullmatch(text) if isinstance(text, str) else None
    if found is None or (micros := int(found[1])) > _LAST_MICROS:
        raise InvalidArgumentError("after is not a cursor of a change of a tenant's sessions")
    return micros


_LAST_MICROS: Final = 253_402_300_799_999_999
"""The last moment a datetime can hold."""
