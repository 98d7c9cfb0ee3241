"""Messages on their way in: checked and encoded before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final, NamedTuple

from sessionstore import codec
from sessionstore.checks import check_id, check_instant, check_role
from sessionstore.codec import InvalidValue
from sessionstore.errors import InvalidArgumentError, InvalidMessageError
from sessionstore.settings import StoreSettings
from sessionstore.values import AnyMessage, Message, NewMessage

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")

_USUAL_ROLES: Final = frozenset({"user", "assistant", "system", "tool"})

_PROJECTED: Final = ("seed_id", "phase_reached", "evaluation_passed")
"""Keys of a body that have a column of their own."""


class MessageRow(NamedTuple):
    """One message as the bulk statements take it; `step` counts from the first of its batch."""

    step: int
    role: str
    body: bytes
    plain: bool
    message_id: str | None = None
    created_at: int | None = None
    seed_id: str | None = None
    phase_reached: str | None = None
    evaluation_passed: bool | None = None


_BESIDE: Final = itemgetter(slice(MessageRow._fields.index("plain") + 1, None))
_NOTHING: Final = frozenset({_BESIDE(MessageRow(0, "", b"", plain=True))})


def are_bare(rows: Iterable[MessageRow]) -> bool:
    """Whether messages have nothing beside their bodies, as most: no id, no stated time, no key with its own column."""
    return _NOTHING.issuperset(map(_BESIDE, rows))


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are stored all or none.

    Attributes:
        size: bytes of the encoded bodies.
        ids: how many messages carry an id.
    """

    rows: list[MessageRow]
    size: int
    ids: int

    @classmethod
    def of(cls, messages: Iterable[AnyMessage], settings: StoreSettings, *, whole: bool = False) -> Batch:
        """Check and encode messages; `whole` histories are not limited in number or total size.

        Raises:
            InvalidMessageError: with the place of the message and the path of the fault.
            InvalidArgumentError: too many messages, or an id twice.
        """
        rows: list[MessageRow] = []
        seen: set[str] = set()
        size = 0
        for index, message in enumerate(messages):
            if index >= settings.max_batch and not whole:
                raise InvalidArgumentError(f"more than {settings.max_batch} messages in one call (max_batch)")
            try:
                row = _row(index, message, settings)
            except InvalidValue as fault:
                raise InvalidMessageError(fault.path, fault.reason, index=index) from None
            if row.message_id is not None:
                if row.message_id in seen:
                    raise InvalidArgumentError(f"message {index}: its message id stands twice in one call")
                seen.add(row.message_id)
            size += len(row.body)
            if size > settings.max_call_bytes and not whole:
                raise InvalidArgumentError(f"more than {settings.max_call_bytes} bytes in one call (max_call_bytes)")
            rows.append(row)
        return cls(rows, size, len(seen))


def _row(index: int, message: AnyMessage, settings: StoreSettings) -> MessageRow:
    if type(message) is dict:
        body, message_id, created_at, stated = message, None, None, None
    else:
        body, message_id, created_at, stated = _taken_apart(index, message)
    raw, plain = codec.encode_object(body, max_bytes=settings.max_body_bytes, max_depth=settings.max_depth)
    role = body.get("role")
    if stated is not None:
        if role is not None and role != stated:
            raise InvalidValue("$.role", "is not the role that was stated beside the body")
        role = stated
    if type(role) is not str or role not in _USUAL_ROLES:
        role = check_role(role)
    if _NO_COLUMNS(body):
        return MessageRow(index, role, raw, plain, message_id, created_at)
    return MessageRow(index, role, raw, plain, message_id, created_at, **projected(body))


_NO_COLUMNS: Final = frozenset(_PROJECTED).isdisjoint


def _taken_apart(index: int, message: AnyMessage) -> tuple[Any, str | None, int | None, str | None]:
    """The body of a message, and its id, time and role where they are stated beside it."""
    if not isinstance(message, (Message, NewMessage)):
        return message, None, None, None
    message_id = created_at = None
    if message.message_id is not None:
        message_id = check_id(message.message_id, f"message {index}: message id")
    if message.created_at is not None:
        created_at = check_instant(message.created_at, f"message {index}: created_at")
    return message.body, message_id, created_at, message.role


def projected(body: Mapping[str, Any]) -> dict[str, Any]:
    """What the columns hold that copy a part of a body, by name."""
    passed = body.get("evaluation_passed")
    return {
        "seed_id": _copied(body, "seed_id"),
        "phase_reached": _copied(body, "phase_reached"),
        "evaluation_passed": passed if isinstance(passed, bool) else None,
    }


def _copied(body: Mapping[str, Any], key: str) -> str | None:
    """A key's text for the column of that name, where a column can hold it."""
    value = body.get(key)
    return str(value) if isinstance(value, str) and not _UNSTORABLE.search(value) else None
