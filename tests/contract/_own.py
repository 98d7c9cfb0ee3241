"""Many rows at once, put in and looked at behind the repository's back, and acts between the batches of a delete."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from tests.support.repositories import BUCKET_MICROS, micros, on_postgresql, raw, rows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from sessionstore import SessionRepository
    from sessionstore.units.unit import Unit

PAST: Final = datetime(2024, 5, 17, 10, 30, 0, 123456, tzinfo=UTC)
"""A moment long before any test runs."""

NO_TIME: Final = timedelta(0)

STORED: Final = {
    "sessionstore_sessions": "*",
    "sessionstore_messages": "tenant_id, session_id, position, role, CAST(body AS TEXT), plain, message_id, "
    "created_at, seed_id, phase_reached, evaluation_passed",
    "sessionstore_metadata": "tenant_id, session_id, key, CAST(value AS TEXT), plain, value_key",
    "sessionstore_documents": "tenant_id, category, name, format, CAST(body AS TEXT), plain, created_at, updated_at",
    "sessionstore_events": "tenant_id, session_id, number, kind, generation, first_position, next_position, "
    "CAST(payload AS TEXT), plain, created_at",
    "sessionstore_tombstones": "*",
    "sessionstore_maintenance": "*",
    "sessionstore_backfills": "*",
}
"""The tables that hold rows of callers, and what to select of each."""

_NEW_SESSION: Final = """
    INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, first_position, next_position,
        generation, version, next_event, created_at, updated_at, last_accessed_at, activity_bucket)
    VALUES (:tenant, :id, :user_id, '', 0, 0, :length, 1, 0, 0, :at, :at, :at, :bucket)
"""

# A literal takes the type of its column on both databases, where a cast to JSON would make SQLite count.
_NEW_MESSAGES: Final = """
    WITH RECURSIVE numbers(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM numbers WHERE i + 1 < :most)
    INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, created_at)
    SELECT s.tenant_id, s.id, numbers.i, 'user', '{"role":"user"}', true, s.created_at
    FROM sessionstore_sessions s JOIN numbers ON numbers.i < s.next_position
    WHERE s.tenant_id = :tenant AND NOT EXISTS (
        SELECT 1 FROM sessionstore_messages m WHERE m.tenant_id = s.tenant_id AND m.session_id = s.id
    )
"""


async def fill(
    sessions: SessionRepository,
    lengths: Iterable[str] | Mapping[str, int],
    *,
    at: datetime = PAST,
    step: timedelta = NO_TIME,
    user_id: str = "",
) -> None:
    """Put sessions in, each of its length (0 if only ids are given) and each `step` newer than the one before."""
    lengths = lengths if isinstance(lengths, dict) else dict.fromkeys(lengths, 0)
    moments = [micros(at + place * step) for place in range(len(lengths))]
    new = [
        {
            "tenant": sessions.tenant,
            "id": session_id,
            "user_id": user_id,
            "length": length,
            "at": as_parameter(sessions, moment),
            "bucket": moment // BUCKET_MICROS,
        }
        for (session_id, length), moment in zip(lengths.items(), moments, strict=True)
    ]
    async with raw(sessions) as connection:
        await connection.execute(text(_NEW_SESSION), new)
        if most := max(lengths.values()):
            await connection.execute(text(_NEW_MESSAGES), {"tenant": sessions.tenant, "most": most})


def as_parameter(sessions: SessionRepository, moment: int) -> Any:
    """A moment, given in microseconds since 1970, as the database takes it."""
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=moment) if on_postgresql(sessions) else moment


async def dump(sessions: SessionRepository) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, of all tenants; JSON as the text it is stored as."""
    found = {}
    for table, columns in STORED.items():
        found[table] = sorted(await rows(sessions, f"SELECT {columns} FROM {table}"), key=repr)  # noqa: S608
    return found


async def ids_of(sessions: SessionRepository) -> list[str]:
    """The ids of all sessions of a tenant, in bytewise order."""
    found: list[str] = []
    page = await sessions.list_sessions(limit=1000)
    found += [row.id for row in page.rows]
    while page.cursor is not None:
        page = await sessions.list_sessions(limit=1000, cursor=page.cursor)
        found += [row.id for row in page.rows]
    return sorted(found)


def meddle(sessions: SessionRepository, act: Callable[[int], Awaitable[Any]], *, after: bool = False) -> None:
    """Act before, or after, each batch; it is told how many went before."""
    run, batches = sessions._run, 0

    async def meddling(unit: Unit[Any]) -> Any:
        nonlocal batches
        if unit.name != "remove_batch":
            return await run(unit)
        number, batches = batches, batches + 1
        if not after:
            await act(number)
        result = await run(unit)
        if after:
            await act(number)
        return result

    sessions._run = meddling  # type: ignore[method-assign]
