"""Are the results right? A benchmark of something else is worth nothing.

Before measuring, each verb of the floor and of the store is called on databases of their own, and the rows they leave
are compared. Afterwards, what the workloads left is looked at with plain SQL.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

import orjson

from benchmarks import data, workloads
from benchmarks.contenders import OURS, Contender
from benchmarks.data import PRUNE_TENANT, Seeded, body, named
from benchmarks.databases import Database
from benchmarks.workloads import Workloads

_SESSIONS: Final = """
SELECT tenant_id, id, user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id,
    parent_id, fork_position, first_position, next_position, version, generation, activity_bucket,
    created_at, updated_at, last_accessed_at
FROM sessionstore_sessions ORDER BY tenant_id, id
"""
_MESSAGES: Final = """
SELECT tenant_id, session_id, position, role, CAST(body AS TEXT), plain, message_id, seed_id, phase_reached,
    evaluation_passed, created_at
FROM sessionstore_messages ORDER BY tenant_id, session_id, position
"""
_METADATA: Final = """
SELECT tenant_id, session_id, key, CAST(value AS TEXT), plain, value_key
FROM sessionstore_metadata ORDER BY tenant_id, session_id, key
"""
_BROKEN: Final = """
SELECT s.id, s.first_position, s.next_position, count(m.position), min(m.position), max(m.position)
FROM sessionstore_sessions s
LEFT JOIN sessionstore_messages m ON m.tenant_id = s.tenant_id AND m.session_id = s.id
GROUP BY s.tenant_id, s.id, s.first_position, s.next_position
HAVING count(m.position) <> s.next_position - s.first_position
    OR min(m.position) <> s.first_position OR max(m.position) <> s.next_position - 1
"""
_LENGTHS: Final = "SELECT id, next_position - first_position FROM sessionstore_sessions WHERE tenant_id = ''"


async def same_effects(database: Database, contenders: Iterable[type[Contender]]) -> list[str]:
    """Call every verb once and compare the rows that each contender leaves; what differs."""
    left = {}
    for kind in contenders:
        if hasattr(kind, "append"):
            left[kind.name] = await _effects(database, kind)
    (first, expected), *others = left.items()
    return [
        f"{name} and {first} leave different rows: {_difference(expected, found)}"
        for name, found in others
        if found != expected
    ]


def _difference(expected: list[Any], found: list[Any]) -> str:
    missing = [row for row in expected if row not in found][:2]
    return f"{missing} against {[row for row in found if row not in expected][:2]}"


async def _effects(database: Database, kind: Any) -> list[Any]:
    old = 1_700_000_000_000_000
    ids = {name: named(f"effects/{name}") for name in ("append", "many", "fork", "child", "trim", "create")}
    used = ("append", "many", "fork", "trim")
    seeded = [Seeded(ids[name], 20, at=old, project=True, user="someone") for name in used]
    seeded += [Seeded(named(f"effects/{number}"), 3, tenant=PRUNE_TENANT, at=old) for number in range(700)]
    seeded.append(Seeded(named("effects/young"), 3, tenant=PRUNE_TENANT, at=data.now_micros()))
    url = await database.build("effects", seeded)
    contender = await kind.open(url)
    try:
        await contender.append(ids["append"], body(20))
        if hasattr(contender, workloads.TOGETHER):
            await contender.append_together(ids["append"], body(21))
        else:
            await contender.append(ids["append"], body(21))
        await contender.append_many(ids["many"], data.bodies(7, first=20))
        await contender.fork(ids["fork"], ids["child"])
        await contender.trim(ids["trim"], 5)
        await contender.create(ids["create"])
        counted = await contender.prune(timedelta(days=data.PRUNE_AGE_DAYS))
        page = await contender.list_newest("someone", 50)
        read = [await contender.read(ids["many"]), await contender.read_last(ids["many"], 3)]
    finally:
        await contender.close()
    tables = [await database.query(url, table) for table in (_SESSIONS, _MESSAGES, _METADATA)]
    await database.drop(url)
    sessions = [(*row[:15], *[_moved(entry) for entry in row[15:]]) for row in tables[0]]
    messages = [(*row[:-1], _moved(row[-1])) for row in tables[1]]
    return [counted, len(page), *read, *sessions, *messages, *tables[2]]


def _moved(entry: Any) -> bool:
    """Whether a time, as an instant, in microseconds or as a bucket, is one of this run."""
    recent = data.now_micros() - data.DAY_MICROS
    if isinstance(entry, int):
        return entry > recent or data.bucket_of(recent) < entry < 2 * data.bucket_of(recent)
    return bool(entry.timestamp() * 1_000_000 > recent)


class Found(NamedTuple):
    """What is wrong: with the store or its floor, and with what the peers did, which is theirs to mend."""

    faults: list[str]
    of_peers: list[str]


async def after(
    database: Database, done: Workloads, contenders: Mapping[str, Contender], urls: Mapping[str, str]
) -> Found:
    """Look at what all workloads of a run have left."""
    everything = Found([], [])
    for name, contender in contenders.items():
        found = await _reads(contender)
        if contender.needs == OURS:
            found += await _tables(database, urls[name])
            stored = await _stored(database, urls[name], done.acknowledged[name])
        else:
            stored = await _stored_by_peer(contender, done.acknowledged[name])
        found += _order(done.acknowledged[name], stored)
        found += _prunes(done, name)
        faults = everything.faults if contender.needs == OURS else everything.of_peers
        faults += [f"{name}: {fault}" for fault in found]
    return everything


async def _reads(contender: Any) -> list[str]:
    """Whether a history is read whole and in order."""
    if not hasattr(contender, "read"):
        return []
    whole, last = await contender.read(workloads.READ), await contender.read_last(workloads.READ_LONG, workloads.LAST)
    if contender.needs == OURS:
        bodies = data.bodies(data.BODIES)
        good = whole == [bodies[at % data.BODIES] for at in range(1_000)]
        good = good and last == [bodies[at % data.BODIES] for at in range(10_000 - workloads.LAST, 10_000)]
    else:
        good = len(whole) == 1_000 and len(last) == workloads.LAST
    return [] if good else [f"a read gave {len(whole)} and {len(last)} messages, or others than are stored"]


async def _tables(database: Database, url: str) -> list[str]:
    """Whether positions are dense, and forks and trims as long as they should be."""
    broken = await database.query(url, _BROKEN)
    faults = [f"positions are not dense: {broken[:3]}"] if broken else []
    lengths = dict(await database.query(url, _LENGTHS))
    forked = {lengths.get(named(f"fork/{at}/0")) for at in range(workloads.FORK_ROUNDS + 1)}
    if not forked <= {None, 1_000}:
        faults.append(f"forks have {forked} messages")
    trimmed = {lengths.get(named(f"trim/{at}/0")) for at in range(workloads.TRIM_ROUNDS + 1)}
    if not trimmed <= {None, 1_000, workloads.KEEP}:
        faults.append(f"trimmed sessions have {trimmed} messages")
    return faults


Place = tuple[str, int | None]
Mark = tuple[int, int]


async def _stored(database: Database, url: str, acknowledged: list[Any]) -> list[tuple[str, int | None, int, int]]:
    """What is stored in the sessions of the appends side by side: session, position, task, number."""
    ids = sorted({entry[0] for entry in acknowledged})
    if not ids:
        return []
    listed = ", ".join(f"'{session_id}'" for session_id in ids)
    sql = f"SELECT session_id, position, CAST(body AS TEXT) FROM sessionstore_messages WHERE session_id IN ({listed})"  # noqa: S608  # our own ids
    rows = await database.query(url, f"{sql} ORDER BY session_id, position")
    found = []
    for session_id, position, text in rows:
        message = orjson.loads(text)
        found.append((session_id, position, int(message["task"]), int(message["number"])))
    return found


async def _stored_by_peer(contender: Any, acknowledged: list[Any]) -> list[tuple[str, int | None, int, int]]:
    """The same as a peer reads it; peers know no positions."""
    return [
        (session_id, None, *contender.mark(message))
        for session_id in sorted({entry[0] for entry in acknowledged})
        for message in await contender.read(session_id)
    ]


def _order(acknowledged: list[Any], stored: list[tuple[str, int | None, int, int]]) -> list[str]:
    """Whether all that was acknowledged is there, once, where it was said to be, and each task's in its order."""
    faults = []
    if sorted(acknowledged, key=str) != sorted(stored, key=str):
        lost = len(set(acknowledged) - set(stored))
        faults.append(f"of {len(acknowledged)} appends side by side {len(stored)} are stored; {lost} not as they were")
    numbers: dict[tuple[str, int], list[int]] = defaultdict(list)
    for session_id, _, task, number in stored:
        numbers[session_id, task].append(number)
    disordered = [key for key, values in numbers.items() if values != sorted(set(values))]
    if disordered:
        faults.append(f"messages of {len(disordered)} tasks are out of order: {disordered[:3]}")
    return faults


def _prunes(done: Workloads, name: str) -> list[str]:
    """Whether each prune deleted what it should, and left the rest."""
    counted, left = done.pruned[name], done.left[name]
    # Every second one is the warm-up, which finds nothing.
    right = counted == [0, done.sizes.pruned] * len(left) and set(left) <= {done.sizes.pruned // 10 * 10}
    return [] if right else [f"prunes deleted {counted} and left {left} messages"]
