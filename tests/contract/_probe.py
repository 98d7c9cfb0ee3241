"""The same rows to begin with, and parameters for every statement that can be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from sessionstore.limits import INT64_MAX, METADATA_FILTERS
from tests.contract._own import PAST, as_parameter
from tests.support.repositories import BUCKET_MICROS, micros

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from sessionstore import SessionRepository

T: Final = micros(PAST)
NOW: Final = T + 10_000_000
HOUR: Final = 3_600_000_000
NUL: Final = r'{"role":"tool","content":"a\u0000b","z":1.0,"a":-0.0}'

_SESSION: Final = """
    INSERT INTO sessionstore_sessions (tenant_id, id, user_id, model, max_turns, title, parent_id, fork_position,
        first_position, next_position, generation, version, next_event, created_at, updated_at, last_accessed_at,
        activity_bucket)
    VALUES (:tenant, :id, :user, 'm', 3, :title, :parent, :fork, :first, :next, 1000, 5, 3, :at, :at, :at, :bucket)
"""
_MESSAGE: Final = """
    INSERT INTO sessionstore_messages (tenant_id, session_id, position, role, body, plain, message_id, created_at,
        seed_id, phase_reached, evaluation_passed)
    VALUES (:tenant, :id, :position, :role, CAST(:body AS {json}), :plain, :message_id, :at, 'seed', '3', true)
"""
_METADATA: Final = """
    INSERT INTO sessionstore_metadata (tenant_id, session_id, key, value, plain, value_key)
    VALUES (:tenant, :id, :key, CAST(:value AS {json}), true, :value)
"""
_EVENT: Final = """
    INSERT INTO sessionstore_events (tenant_id, session_id, number, kind, generation, first_position, next_position,
        payload, plain, created_at)
    VALUES (:tenant, 's', :number, :kind, 1000, 1, 5, CAST(:payload AS {json}), true, :at)
"""
_TOMBSTONE: Final = """
    INSERT INTO sessionstore_tombstones (tenant_id, session_id, generation, number, kind, deleted_at)
    VALUES (:tenant, :id, 500, 3, 'deleted', :at)
"""
_DOCUMENT: Final = """
    INSERT INTO sessionstore_documents (tenant_id, category, name, format, body, plain, created_at, updated_at)
    VALUES ('t', 'c', 'n', :format, CAST(:body AS {json}), true, :at, :at)
"""
_BACKFILL: Final = """
    INSERT INTO sessionstore_backfills (job, after_key, total, seen, changed, unreadable, started_at, updated_at)
    VALUES ('job', '["t","s",1]', 7, 2, 1, 0, :at, :at)
"""
_JOB: Final = "INSERT INTO sessionstore_maintenance (tenant_id, job, last_run_at) VALUES ('t', 'job', :at)"

SESSIONS: Final = {
    # id: user, title, parent, fork position, first position, next position, age in hours
    "s": ("ann", "t\u00edtle", None, None, 1, 5, 0),
    "child": ("ann", None, "s", 3, 0, 0, 1),
    "grandchild": ("bob", None, "child", 0, 0, 0, 1),
    "old": ("", None, None, None, 0, 0, 500),
    "older": ("ann", None, None, None, 0, 1, 600),
}
BODIES: Final = {
    # position: role, body, plain, message id
    1: ("user", '{"role":"user","content":"x"}', True, None),
    2: ("assistant", '{"role":"assistant","content":"\u00e9"}', True, "m2"),
    3: ("user", '{"role":"user","content":[]}', True, None),
    4: ("tool", NUL, False, "m4"),
}


async def seed(sessions: SessionRepository, connection: AsyncConnection) -> None:
    """Empty the tables and put the same rows in, for two tenants."""
    json = "JSON" if connection.dialect.name == "postgresql" else "TEXT"
    for table in (
        *("messages", "metadata", "events", "tombstones", "documents", "maintenance", "backfills", "sessions"),
    ):
        await connection.execute(text(f"DELETE FROM sessionstore_{table}"))  # noqa: S608
    for tenant in ("t", "other"):
        for name, (user, title, parent, fork, first, following, age) in SESSIONS.items():
            at = T - age * HOUR
            columns: dict[str, Any] = {
                "user": user,
                "title": title,
                "parent": parent,
                "fork": fork,
                "first": first,
                "next": following,
            }
            times = {"at": as_parameter(sessions, at), "bucket": at // BUCKET_MICROS}
            await connection.execute(text(_SESSION), {"tenant": tenant, "id": name, **columns, **times})
        moment = {"at": as_parameter(sessions, T)}
        rows = [
            {"tenant": tenant, "id": name, "position": position, "role": role, "body": body, "plain": plain}
            | {"message_id": message_id}
            | moment
            for name, position, (role, body, plain, message_id) in [
                *(("s", position, row) for position, row in BODIES.items()),
                ("older", 0, BODIES[1]),
            ]
        ]
        await connection.execute(text(_MESSAGE.format(json=json)), rows)
        values = {"k": "1", "k2": '"two"', "project_ids": '"p"', "list": "[1, 2]"}
        pairs = [
            {"tenant": tenant, "id": name, "key": key, "value": value}
            for name in ("s", "child")
            for key, value in values.items()
        ]
        await connection.execute(text(_METADATA.format(json=json)), pairs)
        happened = [(0, "created", None), (1, "noted", '{"z":1.0}')]
        events = [
            {"tenant": tenant, "number": number, "kind": kind, "payload": payload} for number, kind, payload in happened
        ]
        await connection.execute(text(_EVENT.format(json=json)), [event | moment for event in events])
        await connection.execute(text(_TOMBSTONE), [{"tenant": tenant, "id": name} | moment for name in ("s", "gone")])
    documents = {"json": '{"z":1,"a":-0.0}', "markdown": '"text"'}
    for format_, body in documents.items():
        await connection.execute(text(_DOCUMENT.format(json=json)), {"format": format_, "body": body, **moment})
    await connection.execute(text(_JOB), moment)
    await connection.execute(text(_BACKFILL), moment)
    await connection.commit()


COLUMNS: Final[dict[str, Any]] = {
    **dict.fromkeys(("user_id", "model", "system_message", "summary", "active_seed_id"), "new"),
    "max_turns": 7,
    "title": "n\u00e9w",
    "active_persona_id": None,
    "parent_id": "s",
    "fork_position": 2,
    "first_position": 1,
    "next_position": 5,
    "version": 0,
    "next_event": 1,
}
"""Of a session that is created, changed or overwritten."""

WHOSE: Final = {
    "tenant": "t",
    "session": "s",
    "child": "old",
    "owner": "ann",
    "user": "ann",
    "parent": "s",
    "kept": "s",
}
WHEN: Final = {"now": NOW, "bucket": NOW // BUCKET_MICROS, "generation": NOW, "created": T - 1, "updated": T + 1}
WHERE: Final = {"count": 2, "first": 5, "high": 4, "low": 3, "cut": 4, "least": 0, "keep": 1, "most": 10}
WINDOW: Final = {"after": 0, "before": INT64_MAX, "limit": 2, "scan": 1000, "roles": ["user", "tool"], "expected": None}
LISTS: Final = {"ids": ["s", "m2", "m4", "old", "\u00e9", 'a"b', "missing"], "keys": ["k", "list", "missing"]}
CURSOR: Final = {"after_bucket": T // BUCKET_MICROS, "after_updated": T, "after_id": "q"}
BOUNDS: Final = {"cap": 2, "batch": 100, "batch_messages": 3, "cutoff": T - 400 * HOUR, "started": NOW}
SINCE: Final = {"changed_since": T - 1000 * HOUR, "used_since": T - 1000 * HOUR}
DOCUMENT: Final = {"category": "c", "name": "n", "format": "json", "body": NUL, "plain": False}
JOB: Final = {"job": "job", "cooldown": HOUR, "relation": "sessionstore_schema"}
BACKFILL: Final = {"total": 9, "restart": False, "reached": '["t","s",3]', "finished": False}
DONE: Final = {"seen": 3, "changed": 1, "unreadable": 0}
HAPPENED: Final = {
    "kinds": ["created"],
    "before": 2,
    "kind": "noted",
    "payload": NUL.encode(),
    "payload_plain": False,
    "back": 1,
    "events": 1,
}
GONE: Final = {"tombstone": "deleted", "number": 7, "expired": T + 1, "slice": HOUR, "most": 10, "since": T - HOUR}
WATCHED: Final = {"position": 2, "next": 4, "whole": ["t", "missing"], "known": [("t", "s", 1000, 4, 3)]} | {
    f"known_{name}": [value]
    for name, value in {"tenant": "t", "id": "s", "generation": 1000, "position": 4, "event": 3}.items()
}
PATIENCE: Final = {"lock_timeout": "1000", "statement_timeout": "5000"}
FILTER: Final = {"key": "k", "value_key": "1", "value": "1"}

PARAMETERS: Final[dict[str, Any]] = {
    name: value
    for part in (
        WHOSE,
        WHEN,
        WHERE,
        WINDOW,
        LISTS,
        CURSOR,
        BOUNDS,
        SINCE,
        DOCUMENT,
        JOB,
        BACKFILL,
        DONE,
        PATIENCE,
        HAPPENED,
        GONE,
        WATCHED,
        COLUMNS,
    )
    for name, value in part.items()
}
PARAMETERS.update({f"set_{name}": True for name in COLUMNS})
PARAMETERS.update(dict.fromkeys(("after_tenant", "after_category", "after_name", "after_format"), ""), after_key="k")
PARAMETERS.update({f"{name}_{at}": value for at in range(METADATA_FILTERS) for name, value in FILTER.items()})
"""What the statements are sent, by the names of their parameters."""

ROWS: Final[dict[str, list[tuple[Any, ...]]]] = {
    "insert_messages": [
        (0, "user", b'{"role":"user"}', True, None, None, None, None, None),
        (1, "tool", NUL.encode(), False, "new", T, "seed", "3", False),
    ],
    "set_metadata": [("k", "2.50", True, "2.50"), ("new", r'"\ud800"', False, r'"\ud800"')],
    "backfill_message_columns": [
        ("s", 1, BODIES[1][1].encode(), False, "tool", None, "x", True),
        ("s", 2, b"{}", False, "tool", None, "x", True),
        ("s", 4, NUL.encode(), True, "user", "s", None, None),
    ],
    "backfill_value_columns": [("s", "k", b"1", False, "2"), ("s", "k2", b"1", False, "2")],
}
ROWS["append"] = ROWS["insert_messages"]
"""The rows of the statements that take several."""

OTHERS: Final[dict[str, list[dict[str, Any]]]] = {
    "advance": [{"expected": 4}, {"expected": 3}, {"session": "missing"}],
    "append": [{"expected": 4}, {"expected": 3}, {"session": "missing"}],
    "change": [{"expected": 5}, {"expected": 4}, {f"set_{name}": False for name in COLUMNS}],
    "replace": [{"expected": 5}, {"expected": 4}],
    "create": [{"session": "new"}],
    "access_as": [{"owner": "bob"}, {"owner": ""}, {"session": "old", "owner": "bob"}],
    "events_after": [{"after": -1, "limit": 9}, {"session": "missing"}],
    "events_unseen": [{"after": 9, "generation": 0, "limit": 9}, {"after": 9}],
    "tombstone": [{"generation": 0}, {"session": "gone", "generation": 500}],
    "follow": [{"position": 9}, {"session": "missing"}],
    "bury": [{"ids": ["child", "missing"]}],
    "tick": [
        {"known": [("t", "missing", 1, 0, 0)], "known_id": ["missing"]},
        {"known": [("t", "missing", 1, -1, 0)], "known_id": ["missing"], "known_position": [-1]},
        {"known": [("t", "s", 1000, 5, 3)], "known_position": [5]},
        {"bucket": 0, "since": 0},
    ],
    "take": [{"low": 9}],
    "delete": [{"session": "missing"}],
    "claim": [{"job": "new"}, {"cooldown": 0}, {"cooldown": 10**15}],
    "start_backfill": [{"restart": True}, {"job": "new"}],
    "save_backfill": [{"finished": True, "reached": None}],
    "schema_exists": [{"relation": "missing"}],
    "find_document": [{"format": "markdown"}, {"name": "missing"}],
    "save_document": [{"name": "new", "body": '"x"', "plain": True}],
    "get": [{"session": "old"}, {"session": "missing"}],
    "ancestors": [{"session": "grandchild"}, {"session": "grandchild", "most": 1}],
}
"""Further parameters that lead a statement elsewhere."""
