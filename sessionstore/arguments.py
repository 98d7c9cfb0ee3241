"""Arguments of the verbs, checked and turned into what units take, before anything is sent."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, TypeAlias

import orjson

from sessionstore import codec, limits
from sessionstore.batch import Batch
from sessionstore.checks import (
    check_count,
    check_id,
    check_instant,
    check_metadata_key,
    check_micros,
    check_optional_text,
    check_text,
    check_user_id,
    mint_id,
)
from sessionstore.codec import InvalidValue, Json
from sessionstore.errors import InvalidArgumentError
from sessionstore.retention import PruneThrottle
from sessionstore.settings import StoreSettings
from sessionstore.units.listing import After
from sessionstore.units.messages import Window
from sessionstore.units.sessions import MetadataValue, NewSession, metadata_value
from sessionstore.units.transcripts import Save
from sessionstore.values import PrunePolicy, Session, Transcript, Unset

Align: TypeAlias = Literal["message", "turn"]


def optional_count(value: int | None, what: str) -> int | None:
    """Check a count that may be left out."""
    return None if value is None else check_count(value, what)


def given_or_minted(session_id: str | None, what: str = "session id") -> str:
    """Check an id that may be left out: then it is a new one."""
    return mint_id() if session_id is None else check_id(session_id, what)


def _text(name: str) -> Callable[[Any, int], str]:
    return lambda value, most: "" if value is None else check_text(value, name, max_bytes=most)


def _optional(name: str) -> Callable[[Any, int], str | None]:
    return lambda value, most: check_optional_text(value, name, max_bytes=most)


_COLUMN_CHECKS: Final[Mapping[str, Callable[[Any, int], Any]]] = {
    "user_id": lambda value, _: check_user_id("" if value is None else value),
    "model": _text("model"),
    "max_turns": lambda value, _: check_count(0 if value is None else value, "max_turns"),
    "system_message": _optional("system_message"),
    "title": _optional("title"),
    "summary": _optional("summary"),
    "active_seed_id": _optional("active_seed_id"),
    "active_persona_id": _optional("active_persona_id"),
}
"""Of each column that a caller may set: takes the value and the most bytes of a text. None clears a column."""


def columns(given: Mapping[str, Any], settings: StoreSettings) -> dict[str, Any]:
    """Check the columns that are given."""
    most = settings.max_body_bytes
    return {name: _COLUMN_CHECKS[name](value, most) for name, value in given.items() if not isinstance(value, Unset)}


def new_session(metadata: Mapping[str, Json] | None, settings: StoreSettings, **given: Any) -> NewSession:
    """Check the columns and metadata of a new session."""
    return NewSession(**columns(given, settings), metadata=metadata_values(metadata or {}))


def metadata_values(values: Mapping[str, Json]) -> tuple[MetadataValue, ...]:
    """Check and encode metadata.

    Raises:
        InvalidArgumentError: too many keys, a key that is no id, or a value that is not JSON.
    """
    if not isinstance(values, Mapping):
        raise InvalidArgumentError(f"metadata must be a mapping, not {type(values).__name__}")
    if len(values) > limits.METADATA_KEYS:
        raise InvalidArgumentError(f"more than {limits.METADATA_KEYS} metadata keys in one call")
    return tuple(_metadata_value(check_metadata_key(key), value) for key, value in values.items())


def _metadata_value(key: str, value: Json) -> MetadataValue:
    try:
        encoded = codec.encode(value, max_bytes=limits.METADATA_BYTES, max_depth=limits.DEPTH)
    except InvalidValue as fault:
        raise InvalidArgumentError(f"metadata {key!r}: {fault.path}: {fault.reason}") from None
    return metadata_value(key, value, encoded)


def metadata_filters(wanted: Mapping[str, Any] | None) -> tuple[MetadataValue, ...]:
    """Check the metadata conditions of a listing.

    Raises:
        InvalidArgumentError: too many, or a value that is not a scalar.
    """
    values = metadata_values(wanted or {})
    if len(values) > limits.METADATA_FILTERS:
        raise InvalidArgumentError(f"more than {limits.METADATA_FILTERS} metadata conditions in one listing")
    for value in values:
        if value.value_key is None:
            raise InvalidArgumentError(f"metadata {value.key!r}: only scalars can be searched for")
    return values


def metadata_keys(remove: Iterable[str], values: Mapping[str, Json]) -> list[str]:
    """Check the metadata keys to remove."""
    if isinstance(remove, str):
        raise InvalidArgumentError("remove must be keys, not one text")
    keys = [check_metadata_key(key) for key in remove]
    if len(keys) > limits.METADATA_KEYS:
        raise InvalidArgumentError(f"more than {limits.METADATA_KEYS} metadata keys in one call")
    if not values.keys().isdisjoint(keys):
        raise InvalidArgumentError("a metadata key is both set and removed")
    return keys


def checked_align(align: str) -> bool:
    """Whether windows begin at turns."""
    if align not in {"message", "turn"}:
        raise InvalidArgumentError("align must be 'message' or 'turn'")
    return align == "turn"


def window(
    *,
    last: int | None,
    first: int | None,
    after: int | None,
    before: int | None,
    roles: Iterable[str] | None,
    align: str,
) -> Window:
    """Check which messages to read."""
    if last is not None and first is not None:
        raise InvalidArgumentError("first and last exclude each other")
    turn = checked_align(align)
    if turn and last is None:
        raise InvalidArgumentError("align='turn' is for windows of the last messages: give last")
    if isinstance(roles, str) or (roles is not None and not isinstance(roles, Iterable)):
        raise InvalidArgumentError("roles must be several roles, not one value")
    limit = optional_count(last, "last") if first is None else check_count(first, "first")
    return Window(
        after=-1 if after is None else check_count(after, "after"),
        before=limits.INT64_MAX if before is None else check_count(before, "before"),
        roles=None if roles is None else tuple(_role(role) for role in roles),
        limit=limits.INT64_MAX if limit is None else limit,
        newest=last is not None,
        turn=turn and limit != 0,
    )


def _role(role: object) -> str:
    return check_text(role, "a role", max_bytes=limits.ID_BYTES)


def check_policy(policy: PrunePolicy) -> None:
    """Refuse what is no policy."""
    if not isinstance(policy, PrunePolicy):
        raise InvalidArgumentError(f"policy must be a PrunePolicy, not {type(policy).__name__}")


def check_throttle(throttle: PruneThrottle) -> None:
    """Refuse what is no throttle."""
    if not isinstance(throttle, PruneThrottle):
        raise InvalidArgumentError(f"throttle must be a PruneThrottle, not {type(throttle).__name__}")


def save(tenant: str, transcript: Transcript, expected: int | None, settings: StoreSettings) -> Save:
    """Check a transcript that is to be saved."""
    if not isinstance(transcript, Transcript):
        raise InvalidArgumentError(f"save takes a Transcript, not {type(transcript).__name__}")
    session = transcript.session
    _check_parent(session)
    return Save(
        tenant=tenant,
        session_id=check_id(session.id),
        columns={
            **columns({name: getattr(session, name) for name in _COLUMN_CHECKS}, settings),
            "parent_id": None if session.parent_id is None else check_id(session.parent_id, "parent_id"),
            "fork_position": optional_count(session.fork_position, "fork_position"),
        },
        values=metadata_values(session.metadata),
        batch=Batch.of(transcript.messages, settings, whole=True),
        first=check_count(session.first_position, "first_position"),
        created=check_instant(session.created_at, "created_at"),
        updated=check_instant(session.updated_at, "updated_at"),
        expected=expected,
        cap=settings.session_cap,
    )


def _check_parent(session: Session) -> None:
    """Refuse a lineage that no fork has. A parent may be missing, and later ones may form a circle: they are names."""
    if session.parent_id == session.id:
        raise InvalidArgumentError("parent_id must not be the id of the session itself")
    if session.parent_id is None and session.fork_position is not None:
        raise InvalidArgumentError("fork_position needs a parent_id")


_CURSOR_FAULT: Final = "cursor is not one of a listing"


def cursor_text(after: After | None) -> str | None:
    """Write where a listing goes on as text for a caller to keep."""
    return None if after is None else base64.urlsafe_b64encode(orjson.dumps([*after])).decode()


def cursor_after(cursor: str | None) -> After | None:
    """Read a cursor.

    Raises:
        InvalidArgumentError: it is not one.
    """
    if cursor is None:
        return None
    try:
        updated_at, session_id = orjson.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        return After(check_micros(updated_at, "cursor"), check_id(session_id, "cursor"))
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgumentError(_CURSOR_FAULT) from None
