"""docs/queries.md: every query answers what it should, whatever the bodies hold, by the index that it names."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import asyncpg
import pytest

from sessionstore import PrunePolicy, SessionRepository
from sessionstore.schema import REVISION, Base
from tests.docs.markdown import Block, blocks, read, sections
from tests.docs.planted import LONG, damage, plant
from tests.migrations.databases import bare, execute, fetch

PAGE: Final = "docs/queries.md"
WAIT_SECONDS: Final = 60

Rows = list[tuple[Any, ...]]

SAID: Final[Rows] = [
    (1, "assistant", None),
    (2, "user", None),
    (3, "assistant", '[{"type":"text","text":"x"}]'),
    (4, "assistant", None),
    (5, "tool", '{"a":1}'),
    (6, "user", "thanks"),
    (7, "assistant", None),
    (8, "assistant", None),
    (9, "assistant", ""),
    (10, "user", "a refund!"),
]

ANSWERS: Final[dict[str, Rows]] = {
    "What was said in a session?": SAID,
    "How does a session end?": [(*SAID[-1], 37), (*SAID[-2], 139), (*SAID[-3], 141)],
    "Which messages say something?": [
        ("fork", 0, "user", "a refund, please"),
        ("fork of fork", 0, "user", "a refund, please"),
        ("old", 0, "user", "a refund, please"),
        ("order-7", 10, "user", "a refund!"),
    ],
    "Which sessions have some metadata?": [("fork of fork",), ("order-7",)],
    "Which sessions have some metadata that is long?": [("fork of fork",), ("order-7",)],
    "What do numbers inside the bodies add up to?": [
        ("fork", 2.5),
        ("fork of fork", 2.5),
        ("old", 2.5),
        ("order-7", float(2**63)),
    ],
    "What was forked from a session?": [("order-7", 0), ("fork", 1), ("fork of fork", 2)],
    "How do all forks hang together?": [
        ("old", "old", 0, None),
        ("order-7", "order-7", 0, None),
        ("order-7", "fork", 1, None),
        ("order-7", "fork of fork", 2, None),
        ("orphan", "orphan", 0, "lost"),
    ],
    "Which forks have lost their parent?": [("", "orphan", "lost")],
    "Which documents are in a category?": [("odd", "json"), ("odd", "markdown")],
    "How many sessions and messages has each tenant?": [("", 5, 18), ("acme", 1, 3)],
    "How many messages of each role are there a day?": [
        ("2026-03-01", "assistant", 4),
        ("2026-03-01", "user", 3),
        ("2026-03-02", "assistant", 5),
        ("2026-03-02", "tool", 1),
        ("2026-03-02", "user", 4),
        ("today", "user", 1),
    ],
    "How much is added a day?": [("2026-03-01", 7, 519), ("2026-03-02", 10, 1332), ("today", 1, 37)],
    "Which sessions are the largest?": [("", "order-7", 10, 1280), ("", "fork", 3, 230), ("", "fork of fork", 3, 230)],
    "How large are messages?": [(75, 141, 450, 450)],
    "Which sessions were appended to most in the last hour?": [("order-7", 1)],
    "Which sessions has nobody changed for 30 days?": [("old", 2)],
    "How often do answers pass their evaluation?": [("s-1", "3", 3, 66.7), ("s-2", "3", 1, 100)],
    "Which answers failed their evaluation?": [("order-7", 4, "s-1", "3")],
    "How many bodies can SQL not read?": [("", 9)],
    "Do counters and positions agree?": [],
    "Are there rows without their session?": [],
    "Is a message id stored twice in a session?": [],
    "Which revision is it, and which code may use it?": [(REVISION, "0001")],
    # --- of one kind of database ---
    "When was it, in words?": [("old", "2026-03-01 09:30:00")],
    "Which transactions hold locks on these tables?": [],
    "Who waits for whom?": [],
}
"""What the queries say about the store of `planted.py`, counted by hand."""

TABLES: Final = {*Base.metadata.tables, "sessionstore_alembic_version"}


def _newest(rows: Rows) -> bool:
    return [row[:3] for row in rows] == [(name, "Refund", length) for name, length in NEWEST]


NEWEST: Final = [("order-7", 10), ("fork", 3), ("fork of fork", 3)]


def _ran_just_now(rows: Rows) -> bool:
    ((tenant, job, at, ago),) = rows
    seconds = ago.total_seconds() if isinstance(ago, timedelta) else ago
    return (tenant, job) == ("", "prune") and seconds < 3600 and str(at) > "2026"


def _sizes(rows: Rows) -> bool:
    if len(rows[0]) == 2:
        return bool(rows[0][0] > 20 * 4096 and rows[0][1] == 0)
    return {row[0] for row in rows} == TABLES and all(row[4] >= row[1] + row[2] + row[3] > 0 for row in rows)


def _of_indexes(rows: Rows) -> bool:
    scans = {row[0]: row[2] for row in rows}
    declared = {index.name for table in Base.metadata.tables.values() for index in table.indexes}
    return declared < scans.keys() and scans["pk_sessionstore_sessions"] > 0 and all(row[1] > 0 for row in rows)


def _dead(rows: Rows) -> bool:
    counted = {row[0]: row[1:4] for row in rows}
    live, dead, inserted = counted["sessionstore_messages"]
    return counted.keys() == TABLES and live == inserted - dead == 21 and counted["sessionstore_sessions"][1] > 0


def _happened(rows: Rows) -> bool:
    kinds = [(0, "created", 10), (1, "trimmed", 10), (2, "refunded", 11), (3, "noted", 11)]
    payloads = [json.loads(row[4]) if isinstance(row[4], str) else row[4] for row in rows]
    return [row[:3] for row in rows] == kinds and payloads == [None, None, {"amount": 12.5}, None]


CHECKS: Final[dict[str, Callable[[Rows], bool]]] = {
    "Which are the newest sessions of a user?": _newest,
    "When did the shared jobs last run?": _ran_just_now,
    "What has happened to a session?": _happened,
    "Which sessions went today, and why?": lambda rows: [row[:2] for row in rows] == [("lost", "deleted")],
    "How large is it?": _sizes,
    "How large is each index, and is it used?": _of_indexes,
    "Do updates of sessions stay HOT?": lambda rows: rows[0][1] >= 7 and 90 <= rows[0][2] <= 100,
    "How many rows are dead, and when was the last vacuum?": _dead,
    "How far is a vacuum against wraparound?": lambda rows: (
        {row[0] for row in rows} == TABLES and all(row[1] > 0 and 0 <= row[2] < 1 for row in rows)
    ),
}
"""Where the answer is not the same every time."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database on disk."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{request.getfixturevalue('sqlite_file')}"
    return str(request.getfixturevalue("postgres_database"))


def queries(url: str) -> dict[str, Block]:
    """The queries of the page for a database, by their questions."""
    other = "postgresql" if url.startswith("sqlite") else "sqlite"
    text = read(PAGE)
    starts = {text.count("\n", 0, match.start()): match[1] for match in re.finditer(r"^### (.+)$", text, re.MULTILINE)}
    found: dict[str, Block] = {}
    for block in blocks("sql", PAGE):
        if other not in block.words:
            question = starts[max(line for line in starts if line < block.line)]
            assert question not in found, f"two queries under {question}"
            found[question] = block
    return found


async def ask(url: str, block: Block) -> Rows:
    """What a query answers."""
    today = datetime.now(UTC).date()
    rows = await fetch(url, block.code.rstrip().removesuffix(";"))
    return [tuple(_plain(value, {today, datetime.now(UTC).date()}) for value in row) for row in rows]


def _plain(value: Any, today: set[date]) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, date | str) and not isinstance(value, datetime):
        return "today" if str(value) in {str(day) for day in today} else str(value)
    return value


async def test_every_query_has_its_answer(url: str) -> None:
    """P8, X07: no accepted row breaks a documented query, or changes what it says."""
    await plant(url)
    found = {question: await ask(url, block) for question, block in queries(url).items() if question not in CHECKS}
    assert found == {question: rows for question, rows in ANSWERS.items() if question in found}
    for question, check in CHECKS.items():
        if question in queries(url):
            await _comes_true(url, question, check)


async def _comes_true(url: str, question: str, check: Callable[[Rows], bool]) -> None:
    """Statistics of the server arrive a moment after what they count."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not check(rows := await ask(url, queries(url)[question])):
            assert "pg_stat" in queries(url)[question].code, (question, rows)
            await asyncio.sleep(0.1)


def test_every_question_has_an_answer() -> None:
    asked = {*queries("sqlite"), *queries("postgresql")}
    assert asked == {*ANSWERS, *CHECKS}
    assert asked == {title for title in sections(read(PAGE)) if title.endswith("?")} - {"Is everything whole?"}
    assert min(len(queries("sqlite")), len(queries("postgresql"))) > 20


async def test_rows_changed_by_hand_break_no_query(url: str) -> None:
    """P8: what no JSON function can read, a hole, rows without a session: every query answers, and these are found."""
    await plant(url)
    await damage(url)
    found = {question: await ask(url, block) for question, block in queries(url).items()}
    assert found["Do counters and positions agree?"] == [("", "old")]
    orphans = [("message", "", "gone", 1), ("metadata", "", "gone", 1)]
    if url.startswith("sqlite"):
        orphans.append(("event", "", "gone", 1))
    assert found["Are there rows without their session?"] == orphans
    same = (
        "What was said in a session?",
        "Which answers failed their evaluation?",
        "Which sessions have some metadata?",
    )
    assert {question: found[question] for question in same} == {question: ANSWERS[question] for question in same}
    sums: dict[str, Any] = dict(found["What do numbers inside the bodies add up to?"])
    assert (sums["order-7"], sums["cut off"], sums["not quoted"]) == (2**63, None, None)


async def test_the_listing_has_the_order_of_the_api(url: str) -> None:
    await plant(url)
    found = [row[0] for row in await ask(url, queries(url)["Which are the newest sessions of a user?"])]
    async with SessionRepository.connect(url) as sessions:
        page = await sessions.list_sessions(user_id="ada")
        assert found == [row.id for row in page.rows]
        assert (await sessions.prune(PrunePolicy(max_age=timedelta(days=30), max_sessions=None))).by_age == 1
    assert await ask(url, queries(url)["Which sessions has nobody changed for 30 days?"]) == []


async def test_a_long_value_shares_its_key_with_another(url: str) -> None:
    """The query about it would find one session too many without comparing the value."""
    await plant(url)
    found = await fetch(url, "SELECT DISTINCT value_key FROM sessionstore_metadata WHERE key = 'source'")
    assert found == [((f'"{LONG}')[:128],)]


def _copies(table: str, of: str, **changed: str) -> str:
    """An INSERT of rows that are there already, but for some columns."""
    columns = Base.metadata.tables[f"sessionstore_{table}"].columns.keys()
    taken = ", ".join(changed.get(column, f"r.{column}") for column in columns)
    return f"INSERT INTO sessionstore_{table} ({', '.join(columns)}) SELECT {taken} FROM {of}"  # noqa: S608  # as above


_NUMBERS: Final = (
    "(WITH RECURSIVE k (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM k WHERE n < 3000) SELECT n FROM k) AS k"
)
_OTHERS: Final = "sessionstore_sessions AS s JOIN sessionstore_{} AS r ON s.id LIKE 'crowd %' AND r.tenant_id = ''"

CROWD: Final = (
    _copies(
        "sessions",
        f"sessionstore_sessions AS r CROSS JOIN {_NUMBERS} WHERE r.tenant_id = '' AND r.id = 'order-7'",
        id="'crowd ' || n",
        user_id="'user ' || (n % 50)",
        parent_id="CASE WHEN n % 3 = 0 THEN 'crowd ' || (n - 1) END",
        activity_bucket="r.activity_bucket - 8 - n",
    ),
    _copies("messages", _OTHERS.format("messages") + " AND r.session_id = 'order-7'", session_id="s.id"),
    _copies(
        "metadata", _OTHERS.format("metadata") + " AND r.session_id = 'order-7'", session_id="s.id", value_key="s.id"
    ),
    _copies("documents", _OTHERS.format("documents") + " AND r.category = 'memory/facts'", category="s.id"),
)
"""Enough rows that a plan without an index would be the wrong one."""


async def test_the_plan_is_by_the_index_that_is_named(url: str) -> None:
    """P10: what the page calls cheap is; with statistics and, on SQLite, without."""
    await plant(url)
    await execute(url, *CROWD)
    text = sections(read(PAGE))
    named = {question: re.search(r"\bBy\s`(\w+)`", text[question]) for question in queries(url)}
    assert sum(map(bool, named.values())) >= 9
    for statistics in ("", "ANALYZE")[url.startswith("postgresql") :]:
        await execute(url, *filter(None, [statistics]))
        for question, index in named.items():
            if index is not None:
                await _is_used(url, queries(url)[question], index[1])


async def _is_used(url: str, block: Block, index: str) -> None:
    server = url.startswith("postgresql")
    query = block.code.rstrip().removesuffix(";")
    plan = "\n".join(str(row) for row in await fetch(url, f"EXPLAIN {'' if server else 'QUERY PLAN '}{query}"))
    expected = index if server else index.replace("pk_", "sqlite_autoindex_") + "_1" * index.startswith("pk_")
    assert expected in plan, f"{block.label}\n{plan}"
    read_whole = r"Seq Scan on sessionstore" if server else r"SCAN (?!forks|\(|CONSTANT)"
    assert not re.search(read_whole, plan), f"{block.label}\n{plan}"


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await bare(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_who_holds_locks_and_who_waits(postgres_database: str) -> None:
    """The two queries about locks name the transaction that holds one, and the one that waits for it."""
    await plant(postgres_database)
    asked = queries(postgres_database)
    change = "UPDATE sessionstore_sessions SET title = $1 WHERE tenant_id = '' AND id = 'order-7'"
    async with _connected(postgres_database) as holder, _connected(postgres_database) as waiter:
        pids = [await each.fetchval("SELECT pg_backend_pid()") for each in (holder, waiter)]
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute(change, "held")
        waiting = asyncio.create_task(waiter.execute(change, "later"))
        async with asyncio.timeout(WAIT_SECONDS):
            # What is waited for happens in the server.
            while not (blocked := await ask(postgres_database, asked["Who waits for whom?"])):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        locks = await ask(postgres_database, asked["Which transactions hold locks on these tables?"])
        await transaction.rollback()
        await waiting
    assert [(row[0], row[2], row[4]) for row in blocked] == [(pids[1], pids[0], "idle in transaction")]
    assert locks[0][0] == pids[0]
    assert ("sessionstore_sessions", "RowExclusiveLock") in {row[4:] for row in locks if row[0] == pids[0]}
