"""Messages on their way in: checked and encoded before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sessionstore import codec
from sessionstore.checks import check_id, check_instant, check_role
from sessionstore.codec import InvalidValue
from sessionstore.errors import InvalidArgumentError, InvalidMessageError
from sessionstore.settings import StoreSettings
from sessionstore.values import AnyMessage, Message, NewMessage

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")


_USUAL_ROLES: Final = frozenset({"user", "assistant", "system", "tool"})


class MessageRow(NamedTuple):
    """One message as the bulk statements take it; `step` counts from the first of its batch."""

    step: int
    role: str
    body: str
    plain: bool
    message_id: str | None
    created_at: int | None
    seed_id: str | None
    phase_reached: str | None
    evaluation_passed: bool | None


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
                row, body_bytes = _row(index, message, settings)
            except InvalidValue as fault:
                raise InvalidMessageError(fault.path, fault.reason, index=index) from None
            if row.message_id is not None:
                if row.message_id in seen:
                    raise InvalidArgumentError(f"message {index}: its message id stands twice in one call")
                seen.add(row.message_id)
            size += body_bytes
            if size > settings.max_call_bytes and not whole:
                raise InvalidArgumentError(f"more than {settings.max_call_bytes} bytes in one call (max_call_bytes)")
            rows.append(row)
        return cls(rows, size, len(seen))


def _row(index: int, message: AnyMessage, settings: StoreSettings) -> tuple[MessageRow, int]:
    role = message_id = created_at = None
    body: Any = message
    if isinstance(message, (Message, NewMessage)):
        body, role = message.body, message.role
        if message.message_id is not None:
            message_id = check_id(message.message_id, f"message {index}: message id")
        if message.created_at is not None:
            created_at = check_instant(message.created_at, f"message {index}: created_at")
    text, plain, size = codec.encode_object(body, max_bytes=settings.max_body_bytes, max_depth=settings.max_depth)
    row = MessageRow(
        index,
        _role(role, body),
        text,
        plain,
        message_id,
        created_at,
        _copied(body, "seed_id"),
        _copied(body, "phase_reached"),
        passed if isinstance(passed := body.get("evaluation_passed"), bool) else None,
    )
    return row, size


def _role(stated: str | None, body: Mapping[str, Any]) -> str:
    own = body.get("role")
    if stated is None:
        return own if type(own) is str and own in _USUAL_ROLES else check_role(own)
    if own is not None and own != stated:
        raise InvalidValue("$.role", "is not the role that was stated beside the body")
    return check_role(stated)


def _copied(body: Mapping[str, Any], key: str) -> str | None:
    """A key's text for the column of that name, where a column can hold it."""
    value = body.get(key)
    return str(value) if isinstance(value, str) and not _UNSTORABLE.search(value) else None
