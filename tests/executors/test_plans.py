"""Every statement of a frequent verb finds its rows by an index: the plan is read, on enough rows to matter."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from sqlalchemy import make_url

from sessionstore import NewMessage, PrunePolicy, SessionRepository
from sessionstore.dialects.base import Bound, Call, Dialect
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Sent = dict[str, tuple[str, Bound]]

MESSAGE = {"role": "user", "content": "hello"}

TABLES = ("sessionstore_sessions", "sessionstore_messages", "sessionstore_metadata", "sessionstore_documents")

READ_MANY = {"remove_by_number", "choose_by_number", "schema", "purge_tombstones"}
"""Meant to walk along the sessions of a tenant, in the order of an index; the schema has one row, and of tombstones the
oldest is the first entry of an index, which a plan of SQLite does not say."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """The statements that were sent, each with its name and the arguments of its last call."""
    seen: Sent = {}

    def recorded(dialect: Dialect, call: Call) -> Bound:
        bound = real(dialect, call)
        seen[bound.sql] = call.statement.name, bound
        return bound

    real = Dialect.bind
    monkeypatch.setattr(Dialect, "bind", recorded)
    return seen


async def fill(sessions: SessionRepository) -> None:
    """Enough rows that a plan without an index would be the wrong one."""
    for number in range(40):
        await sessions.create(f"other {number}", user_id=f"u{number % 7}", metadata={"k": number})
        await sessions.append(f"other {number}", *[MESSAGE] * 500)
    await asyncio.gather(*[sessions.create(f"empty {number}", user_id=f"v{number}") for number in range(2000)])
    await sessions.create("s", user_id="u", metadata={"k": "v"})
    await sessions.append("s", *[MESSAGE] * 2000)


async def use(sessions: SessionRepository) -> None:
    """Call the verbs whose statements should not grow with the store."""
    await sessions.create("new", metadata={"k": "v"})
    await sessions.open("new")
    await sessions.append("s", MESSAGE)
    await sessions.append("s", NewMessage(MESSAGE, message_id="m"))
    await sessions.append("s", NewMessage(MESSAGE, message_id="m"))
    await sessions.messages("s", last=20)
    await sessions.messages("s", first=20, after=100, roles=["user"])
    await sessions.messages("s", last=20, align="turn")
    async for _ in sessions.iter_messages("new"):
        pass
    await sessions.get("s")
    await sessions.length("s")
    await sessions.update("s", title="t")
    await sessions.set_metadata("s", {"k": 2}, remove=["x"])
    page = await sessions.list_sessions(user_id="u1", limit=2)
    await sessions.list_sessions(user_id="u1", limit=2, cursor=page.cursor)
    await sessions.fork_at("s", 3, new_id="child")
    await sessions.lineage("child")
    await sessions.trim("s", 1900, align="turn")
    await sessions.truncate("s", 1800)
    await sessions.pop("s")
    await sessions.compact("s", MESSAGE, keep_last=1700)
    await sessions.snapshot("child")
    await sessions.save(await sessions.snapshot("child"))
    await sessions.replace_messages("child", [MESSAGE])
    await sessions.reset("child")
    await sessions.delete("child")
    await sessions.prune(PrunePolicy(max_age=timedelta(hours=1), max_sessions=1000))


async def test_plans_on_sqlite(sqlite_file: Path, sent: Sent) -> None:
    """P10: no statement of SQLite reads a table from end to end."""
    async with SessionRepository.connect(sqlite_url(sqlite_file)) as sessions:
        await fill(sessions)
        sent.clear()
        await use(sessions)
    with closing(sqlite3.connect(sqlite_file)) as connection:
        for name, bound in sent.values():
            arguments = bound.args[0] if bound.many else bound.args
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {bound.sql}", arguments)]
            bad = [step for step in plan if "sessionstore_" in step and " AND " not in step and " EXISTS " not in step]
            assert name in READ_MANY or not bad, (name, plan)


async def test_plans_before_there_are_statistics(postgres_database: str, sent: Sent) -> None:
    """P10: a plan made while the tables were empty, and kept by a connection, is right when they are not."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await sessions.create("s", user_id="u", metadata={"k": "v"})
        await sessions.append("s", *[MESSAGE] * 10)
        sent.clear()
        await use(sessions)
        # Without statistics a lineage and a batch of a prune read the tenant once; what is called often must not.
        frequent = {sql: entry for sql, entry in sent.items() if entry[0] not in {"ancestors", "remove_by_age"}}
        await explained(postgres_database, frequent, ["SET plan_cache_mode = force_generic_plan"])


async def test_plans_on_postgresql(postgres_database: str, sent: Sent) -> None:
    """P10: no statement of PostgreSQL reads a table from end to end, also as a generic plan."""
    async with SessionRepository.connect(postgres_database) as sessions:
        await fill(sessions)
        await explained(postgres_database, {}, ["ANALYZE"])
        sent.clear()
        await use(sessions)
        for mode in ("force_custom_plan", "force_generic_plan"):
            # What fits in a few pages needs no index; what matters is that there is one that can serve.
            settings = [f"SET plan_cache_mode = {mode}", "SET enable_seqscan = off"]
            await explained(postgres_database, sent, settings)


async def explained(url: str, sent: Sent, before: list[str]) -> None:
    """Look at the plan of each statement, on a connection of its own that has executed some others before."""
    connection = await asyncpg.connect(make_url(url).set(drivername="postgresql").render_as_string(False))
    try:
        for statement in before:
            await connection.execute(statement)
        for name, bound in sent.values():
            plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {bound.sql}", *bound.args)
            bad = [node for node in nodes(json.loads(plan)[0]["Plan"]) if reads_whole(node)]
            assert name in READ_MANY or not bad, (before, name, bad)
    finally:
        await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Walk a plan."""
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def reads_whole(node: dict[str, Any]) -> bool:
    """Whether a node reads a table of ours with no condition on an index but the tenant's."""
    if node["Node Type"] in {"ModifyTable", "Bitmap Heap Scan"}:  # the scan of the index stands below it
        return False
    ours = node.get("Relation Name") in TABLES or "sessionstore" in node.get("Index Name", "")
    return ours and " AND " not in node.get("Index Cond", "")
