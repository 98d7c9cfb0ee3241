"""A healthy store, and ways to damage it behind the store's back, each with what `verify` has to say about it.

Constraints stand in the way of most of them: SQLite is told not to check any, PostgreSQL loses them.
"""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import make_url

from sessionstore import DocumentRepository, NewMessage, SessionRepository, Transcript
from sessionstore.verification import Fault, Finding
from tests.support.invariants import connect_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

CANARY: Final = "canary-7f3a"
"""In every body, value and document: no finding may repeat it."""

PAGE_END: Final = 495
"""The last position of the session `long` that the first page of messages holds: four of others are before it."""


def say(role: str, at: int, **more: Any) -> dict[str, Any]:
    """A body."""
    return {"role": role, "content": f"{CANARY} {at}", **more}


async def build(url: str) -> None:
    """Fill a migrated database as its users would."""
    async with SessionRepository.connect(url) as sessions:
        for tenant in ("", "other"):
            await _fill(sessions.for_tenant(tenant))
    async with DocumentRepository.connect(url) as documents:
        await documents.save_markdown("notes", "a", text=CANARY)
        await documents.save_json("notes", "b", value={"text": CANARY, "n": 1.0})


async def _fill(sessions: SessionRepository) -> None:
    await sessions.create("empty", user_id="ann")
    await sessions.create("talk", user_id="ann", metadata={"lang": "de", "n": 7, "tags": [CANARY]})
    marked = {"seed_id": "s-1", "phase_reached": "3", "evaluation_passed": True}
    await sessions.append("talk", *[NewMessage(say("user", at, **marked), message_id=f"m-{at}") for at in range(6)])
    await sessions.record_event("talk", "noted", payload={"text": CANARY})
    await sessions.create("trimmed")
    await sessions.append("trimmed", *[say("assistant", at) for at in range(8)])
    await sessions.trim("trimmed", 5)
    await sessions.fork_at("talk", 3, new_id="fork")
    await sessions.set_metadata("fork", {}, remove=["lang", "n", "tags"])
    await sessions.create("long")
    await sessions.append("long", *[say("user", at) for at in range(1200)])
    odd = {"nul": "\0", "half": "\ud800", "big": 2**70, "digits": 0.1234567890123456789}
    await sessions.append("odd", NewMessage({"content": CANARY, **odd}, role="tool"), create=True)
    far = datetime.max.replace(tzinfo=UTC)
    early = Transcript.of("early", [NewMessage(say("user", 0), created_at=far)], created_at=far, updated_at=far)
    await sessions.save(early)


class Plant(NamedTuple):
    """A way to damage the store of `build`.

    Attributes:
        sql: for both databases, or for SQLite.
        findings: all that it leads to.
        postgresql: in the place of `sql`; empty where the database cannot hold such a thing.
    """

    sql: str
    findings: tuple[Finding, ...]
    postgresql: str | None = None

    def on(self, url: str) -> str:
        """The SQL for a database."""
        server = make_url(url).get_backend_name() == "postgresql"
        return self.sql if self.postgresql is None or not server else self.postgresql


def _at(fault: Fault, session_id: str | None = "talk", *, tenant: str = "", **where: Any) -> tuple[Finding, ...]:
    return (Finding(fault=fault, tenant=tenant, session_id=session_id, **where),)


def _events_of(fault: Fault, session_id: str, **where: Any) -> tuple[Finding, ...]:
    """Both events of a session."""
    return tuple(each for number in range(2) for each in _at(fault, session_id, key=f"event {number}", **where))


_SESSION: Final = "UPDATE sessionstore_sessions SET {} WHERE tenant_id = '' AND id = '{}'"
_MESSAGE: Final = "UPDATE sessionstore_messages SET {} WHERE tenant_id = '' AND session_id = '{}' AND position = {}"
_VALUE: Final = "UPDATE sessionstore_metadata SET {} WHERE tenant_id = '' AND session_id = 'talk' AND key = '{}'"
_EVENT: Final = "UPDATE sessionstore_events SET {} WHERE tenant_id = '' AND session_id = 'talk' AND kind = 'noted'"
_NOTED: Final = "event 1"
_DOCUMENT: Final = "UPDATE sessionstore_documents SET {} WHERE tenant_id = '' AND name = '{}'"
_GONE: Final = "DELETE FROM sessionstore_messages WHERE tenant_id = '' AND session_id = '{}' AND {}"
_ANOTHER: Final = """
    INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, created_at)
    SELECT '{}', '{}', {}, role, body, plain, created_at FROM sessionstore_messages
    WHERE tenant_id = '' AND session_id = 'trimmed' AND position = 3
"""
_KEYLESS: Final = """
    CREATE TABLE rows_without_key AS SELECT * FROM sessionstore_messages;
    DROP VIEW sessionstore_message_texts;
    DROP VIEW sessionstore_message_facts;
    DROP TABLE sessionstore_messages;
    ALTER TABLE rows_without_key RENAME TO sessionstore_messages;
"""
"""SQLite cannot drop a primary key."""

_COLUMNS: Final = "role, body, plain, created_at, seed_id, phase_reached, evaluation_passed"
_DOUBLE: Final = f"""
    INSERT INTO sessionstore_messages (tenant_id, session_id, position, {_COLUMNS})
    SELECT tenant_id, session_id, position, {_COLUMNS} FROM sessionstore_messages
    WHERE tenant_id = '' AND session_id = '{{}}' AND position = {{}}
"""  # noqa: S608  # of constants

_NUL: Final = r'{"role":"user","content":"canary-7f3a\u0000"}'
_HALF: Final = r'{"role":"user","content":"canary-7f3a\ud800"}'
_BIG: Final = '{"role":"user","content":"canary-7f3a","n":123456789012345678901234567890}'
_BARE: Final = '{"role":"user","content":"canary-7f3a"}'


def _body(body: str, *more: str) -> str:
    columns = ("seed_id = NULL", "phase_reached = NULL", "evaluation_passed = NULL", *more)
    return _MESSAGE.format(", ".join((f"body = '{body}'", *columns)), "talk", 1)


def _time(column: str) -> tuple[str, str]:
    """A moment beyond what Python knows, on each database."""
    return f"{column} = 900000000000000000", f"{column} = '0044-03-15 12:00:00+00 BC'"


def _times() -> Iterator[tuple[str, Plant]]:
    for column in ("created_at", "updated_at", "last_accessed_at"):
        late, early = (_SESSION.format(change, "talk") for change in _time(column))
        yield f"impossible {column}", Plant(late, _at(Fault.TIME, column=column), early)
    late, early = (_MESSAGE.format(change, "talk", 2) for change in _time("created_at"))
    yield "impossible time of a message", Plant(late, _at(Fault.TIME, position=2, column="created_at"), early)
    late, early = (_EVENT.format(change) for change in _time("created_at"))
    yield "impossible time of an event", Plant(late, _at(Fault.TIME, key=_NOTED, column="created_at"), early)
    late, early = (_DOCUMENT.format(change, "b") for change in _time("updated_at"))
    yield (
        "impossible time of a document",
        Plant(late, _at(Fault.TIME, None, key="notes/b.json", column="updated_at"), early),
    )


def _counter(column: str, change: str) -> Plant:
    return Plant(_SESSION.format(change, "empty"), _at(Fault.COUNTER, "empty", column=column))


PLANTS: Final[dict[str, Plant]] = {
    # --- positions ---
    "a hole": Plant(_GONE.format("talk", "position = 2"), _at(Fault.MISSING, position=2)),
    "a wide hole": Plant(
        _GONE.format("long", "position BETWEEN 700 AND 709"), _at(Fault.MISSING, "long", position=700, count=10)
    ),
    "a hole where a page ends": Plant(
        _GONE.format("long", f"position = {PAGE_END}"), _at(Fault.MISSING, "long", position=PAGE_END)
    ),
    "a hole where a page begins": Plant(
        _GONE.format("long", f"position = {PAGE_END + 1}"), _at(Fault.MISSING, "long", position=PAGE_END + 1)
    ),
    "two holes": Plant(
        _GONE.format("talk", "position IN (1, 3)"), _at(Fault.MISSING, position=1) + _at(Fault.MISSING, position=3)
    ),
    "the first is gone": Plant(_GONE.format("trimmed", "position = 3"), _at(Fault.MISSING, "trimmed", position=3)),
    "the last is gone": Plant(_GONE.format("talk", "position = 5"), _at(Fault.MISSING, position=5)),
    "all are gone": Plant(_GONE.format("talk", "position >= 0"), _at(Fault.MISSING, position=0, count=6)),
    "the tail of a long session is gone": Plant(
        _GONE.format("long", f"position > {PAGE_END}"),
        _at(Fault.MISSING, "long", position=PAGE_END + 1, count=1199 - PAGE_END),
    ),
    "a head too far": Plant(_SESSION.format("next_position = 9", "talk"), _at(Fault.MISSING, position=6, count=3)),
    "a head too near": Plant(_SESSION.format("next_position = 4", "talk"), _at(Fault.STRAY, position=4, count=2)),
    "a first position too low": Plant(
        _SESSION.format("first_position = 1", "trimmed"), _at(Fault.MISSING, "trimmed", position=1, count=2)
    ),
    "a first position too high": Plant(
        _SESSION.format("first_position = 2", "talk"), _at(Fault.STRAY, position=0, count=2)
    ),
    "an empty session that says it is not": Plant(
        _SESSION.format("next_position = 1", "empty"), _at(Fault.MISSING, "empty", position=0)
    ),
    "a message far ahead": Plant(_ANOTHER.format("", "talk", 50), _at(Fault.STRAY, position=50)),
    "a message before the first": Plant(_ANOTHER.format("", "talk", -1), _at(Fault.STRAY, position=-1)),
    "a message in an empty session": Plant(_ANOTHER.format("", "empty", 0), _at(Fault.STRAY, "empty", position=0)),
    "a position that is not whole": Plant(_ANOTHER.format("", "talk", 1.5), _at(Fault.STRAY, position=1.5), ""),
    "a position twice": Plant(
        _KEYLESS + _DOUBLE.format("talk", 2), _at(Fault.DOUBLE, position=2), _DOUBLE.format("talk", 2)
    ),
    "a position twice where a page ends": Plant(
        _KEYLESS + _DOUBLE.format("long", PAGE_END),
        _at(Fault.DOUBLE, "long", position=PAGE_END),
        _DOUBLE.format("long", PAGE_END),
    ),
    "a message id twice": Plant(
        "DROP INDEX uq_sessionstore_messages_message_id; " + _MESSAGE.format("message_id = 'm-0'", "talk", 1),
        _at(Fault.DOUBLE, key="m-0", column="message_id"),
    ),
    # --- orphans ---
    "messages without a session": Plant(
        "DELETE FROM sessionstore_sessions WHERE tenant_id = '' AND id = 'trimmed'",
        _at(Fault.ORPHAN, "trimmed", position=3) + _events_of(Fault.ORPHAN, "trimmed"),
    ),
    "very many messages without a session": Plant(
        "DELETE FROM sessionstore_sessions WHERE tenant_id = '' AND id = 'long'",
        _at(Fault.ORPHAN, "long", position=0) + _at(Fault.ORPHAN, "long", key="event 0"),
    ),
    "messages after the last session": Plant(_ANOTHER.format("", "zzz", 0), _at(Fault.ORPHAN, "zzz", position=0)),
    "messages of a tenant without sessions": Plant(
        _ANOTHER.format("ghost", "talk", 7), _at(Fault.ORPHAN, tenant="ghost", position=7)
    ),
    "metadata without a session": Plant(
        "UPDATE sessionstore_metadata SET session_id = 'nobody' WHERE tenant_id = '' AND key = 'n'",
        _at(Fault.ORPHAN, "nobody", key="n"),
    ),
    # --- columns of sessions ---
    "a negative version": _counter("version", "version = -1"),
    "a negative event": Plant(
        _SESSION.format("next_event = -1", "talk"),
        _at(Fault.COUNTER, column="next_event") + _events_of(Fault.COUNTER, "talk", column="number"),
    ),
    "negative turns": _counter("max_turns", "max_turns = -3"),
    "a negative generation": _counter("generation", "generation = -1"),
    "a negative first position": _counter("first_position", "first_position = -1"),
    "a first position beyond the head": _counter("next_position", "first_position = 4"),
    "its own parent": Plant(_SESSION.format("parent_id = 'talk'", "talk"), _at(Fault.PARENT, column="parent_id")),
    "forked from nothing": Plant(
        _SESSION.format("fork_position = 1", "empty"), _at(Fault.PARENT, "empty", column="fork_position")
    ),
    "forked before the first": Plant(
        _SESSION.format("fork_position = -1", "fork"), _at(Fault.PARENT, "fork", column="fork_position")
    ),
    "the bucket of another time": Plant(
        _SESSION.format("activity_bucket = activity_bucket + 1", "talk"), _at(Fault.TIME, column="activity_bucket")
    ),
    "a time without its bucket": Plant(
        _SESSION.format("updated_at = 86400000000", "talk"),
        _at(Fault.TIME, column="activity_bucket"),
        _SESSION.format("updated_at = '1970-01-02 00:00:00+00'", "talk"),
    ),
    **dict(_times()),
    # --- bodies ---
    "a body cut off": Plant(_body('{"role":"us'), _at(Fault.JSON, position=1), ""),
    "a body that is empty": Plant(_body(""), _at(Fault.JSON, position=1), ""),
    "a body that is a number to SQLite": Plant(_body("NaN"), _at(Fault.JSON, position=1), ""),
    "a body that is a list": Plant(_body('["canary-7f3a"]'), _at(Fault.JSON, position=1)),
    "a body that is a text": Plant(_body('"canary-7f3a"'), _at(Fault.JSON, position=1)),
    "a plain body said not to be": Plant(_MESSAGE.format("plain = false", "talk", 1), _at(Fault.PLAIN, position=1)),
    "U+0000 said to be plain": Plant(_body(_NUL), _at(Fault.PLAIN, position=1)),
    "half a surrogate pair said to be plain": Plant(_body(_HALF), _at(Fault.PLAIN, position=1)),
    "a huge integer said to be plain": Plant(_body(_BIG), _at(Fault.PLAIN, position=1)),
    "another role": Plant(_MESSAGE.format("role = 'tool'", "talk", 1), _at(Fault.COPY, position=1, column="role")),
    "no role": Plant(_body('{"content":"canary-7f3a"}', "role = ''"), _at(Fault.COPY, position=1, column="role")),
    "a role that is a list": Plant(
        _body('{"role":["user"],"content":"canary-7f3a"}'), _at(Fault.COPY, position=1, column="role")
    ),
    "another seed": Plant(_MESSAGE.format("seed_id = 'x'", "talk", 1), _at(Fault.COPY, position=1, column="seed_id")),
    "a phase that is not copied": Plant(
        _MESSAGE.format("phase_reached = NULL", "talk", 1), _at(Fault.COPY, position=1, column="phase_reached")
    ),
    "an evaluation turned round": Plant(
        _MESSAGE.format("evaluation_passed = false", "talk", 1),
        _at(Fault.COPY, position=1, column="evaluation_passed"),
    ),
    "copies of what is not there": Plant(
        _MESSAGE.format(f"body = '{_BARE}'", "talk", 1),
        tuple(
            finding
            for column in ("seed_id", "phase_reached", "evaluation_passed")
            for finding in _at(Fault.COPY, position=1, column=column)
        ),
    ),
    # --- metadata and documents ---
    "a value that is no JSON": Plant(_VALUE.format("value = 'canary-7f3a'", "n"), _at(Fault.JSON, key="n"), ""),
    "a value under another search key": Plant(
        _VALUE.format("value = '8'", "n"), _at(Fault.COPY, key="n", column="value_key")
    ),
    "a value without a search key": Plant(
        _VALUE.format("value_key = NULL", "lang"), _at(Fault.COPY, key="lang", column="value_key")
    ),
    "a list with a search key": Plant(
        _VALUE.format("value_key = '[]'", "tags"), _at(Fault.COPY, key="tags", column="value_key")
    ),
    "a plain value said not to be": Plant(_VALUE.format("plain = false", "n"), _at(Fault.PLAIN, key="n")),
    # --- events ---
    "an event without a session": Plant(
        _EVENT.format("session_id = 'nobody'"), _at(Fault.ORPHAN, "nobody", key=_NOTED)
    ),
    "an event that its session has not counted": Plant(
        _EVENT.format("number = 9"), _at(Fault.COUNTER, key="event 9", column="number")
    ),
    "a payload that is no JSON": Plant(_EVENT.format("payload = 'canary-7f3a'"), _at(Fault.JSON, key=_NOTED), ""),
    "a plain payload said not to be": Plant(_EVENT.format("plain = false"), _at(Fault.PLAIN, key=_NOTED)),
    "a document cut off": Plant(
        _DOCUMENT.format("body = '{\"canary-7f3a'", "b"), _at(Fault.JSON, None, key="notes/b.json"), ""
    ),
    "a markdown document that is no text": Plant(
        _DOCUMENT.format("body = '{}'", "a"), _at(Fault.JSON, None, key="notes/a.markdown")
    ),
    "a plain document said not to be": Plant(
        _DOCUMENT.format("plain = false", "b"), _at(Fault.PLAIN, None, key="notes/b.json")
    ),
}
"""By what is wrong."""

_WITHOUT_CONSTRAINTS: Final = """
DO $$
DECLARE found record;
BEGIN
  FOR found IN
    SELECT conrelid::regclass AS owner, conname FROM pg_constraint
    WHERE conrelid::regclass::text LIKE 'sessionstore%' ORDER BY contype = 'p'
  LOOP
    EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', found.owner, found.conname);
  END LOOP;
END $$
"""


async def plant(url: str, sql: str) -> None:
    """Damage a database."""
    if make_url(url).get_backend_name() == "postgresql":
        connection = await connect_postgres(url)
        try:
            await connection.execute(_WITHOUT_CONSTRAINTS)
            await connection.execute(sql)
        finally:
            await connection.close()
        return
    with contextlib.closing(sqlite3.connect(str(make_url(url).database), isolation_level=None)) as file:
        file.execute("PRAGMA foreign_keys = OFF")
        file.execute("PRAGMA ignore_check_constraints = ON")
        file.executescript(sql)
