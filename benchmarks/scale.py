"""Do costs grow with the size of the store? `python -m benchmarks.scale`: the same calls at 1 %, 10 % and 100 % of it.

The three databases are filled in bulk and then measured in the same rounds, because between one hour and the next the
disk alone may change more than the size does. By default 1,000,000 sessions and 10,000,000 messages on PostgreSQL (some
11 GB on the disk), 100,000 sessions and 1,000,000 messages on SQLite.

One session in a hundred is long (208 messages, the others have 8). *Active* sessions and users are ten that come again
and again, as in a chat that is going on; *cold* ones are drawn from all, most of them for the first time. One more
session holds a tenth as many messages as there are sessions. Ids are UUIDv7, as the store mints them; with
`--random-ids` the sessions of a prune are strewn over the whole index.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import data, measure, report
from benchmarks.contenders import OURS
from benchmarks.data import Seeded, body, named
from benchmarks.databases import Database, Postgresql, Sqlite, server, workplace
from benchmarks.measure import Failures, Group, Measured, Workload, timed
from sessionstore import PrunePolicy, SessionRepository

PARTS: Final = (0.01, 0.1, 1.0)
TARGET: Final = 1.3
SHORT: Final = 8
LONG: Final = 208
LONG_EVERY: Final = 100
ACTIVE: Final = 10
DAYS: Final = 100
LAST: Final = 20
PAGE: Final = 50
ROUNDS: Final = 20
PRUNES: Final = 7
SESSIONS: Final = {"sqlite": 100_000, "postgresql": 1_000_000}
LONGEST: Final = named("scale/longest")


class Population:
    """The sessions of a database: iterating makes them anew, so that millions need no memory."""

    def __init__(self, size: int, batch: int, *, random_ids: bool) -> None:
        self.size = size
        self.batch = batch
        self._random_ids = random_ids
        self.newest = data.now_micros() - data.DAY_MICROS

    def at(self, number: int) -> int:
        """When a session was created and last changed: one after the other."""
        span = DAYS * data.DAY_MICROS
        return self.newest - span + span * number // self.size

    def id(self, number: int) -> str:
        """The id of a session: a UUIDv7 of the moment when it was created, as the store mints them."""
        spread = uuid.UUID(named(f"scale/{number}"))
        if self._random_ids:
            return str(spread)
        return str(uuid.UUID(int=self.at(number) // 1000 << 80 | 7 << 76 | spread.int & (1 << 76) - 1))

    def user(self, number: int) -> str:
        """Whose it is: a hundred sessions each."""
        return data.user_name(number % max(self.size // 100, 1))

    def __iter__(self) -> Iterator[Seeded]:
        yield Seeded(LONGEST, self.size // 10, at=self.newest)
        for number in range(self.size):
            length = LONG if number % LONG_EVERY == 0 else SHORT
            yield Seeded(self.id(number), length, user=self.user(number), at=self.at(number))


class Sized:
    """The store at one size."""

    needs = OURS

    def __init__(self, sessions: SessionRepository, population: Population) -> None:
        self.sessions = sessions
        self.population = population
        self._source = random.Random(7)
        # The older half is left to the prunes.
        half = population.size // 2
        longs = range(-(-half // LONG_EVERY) * LONG_EVERY, population.size, LONG_EVERY)
        self.long = [population.id(number) for number in self._source.sample(longs, min(ACTIVE, len(longs)))]
        self.short = [population.id(number) for number in self._source.sample(range(half, population.size), ACTIVE)]
        self.users = [self.cold_user() for _ in range(ACTIVE)]

    def cold(self) -> str:
        """A session drawn from all that are not to be pruned."""
        return self.population.id(self._source.randrange(self.population.size // 2, self.population.size))

    def cold_user(self) -> str:
        """A user drawn from all."""
        return self.population.user(self._source.randrange(self.population.size))

    async def append(self, session_id: str, number: int) -> None:
        """Append one message."""
        await self.sessions.append(session_id, body(number))

    async def last(self, session_id: str) -> list[Any]:
        """Read the last messages."""
        return [message.body for message in await self.sessions.messages(session_id, last=LAST)]

    async def page(self, user_id: str | None) -> None:
        """List sessions."""
        page = await self.sessions.list_sessions(user_id=user_id, limit=PAGE)
        assert len(page.rows) == PAGE, f"a page of {len(page.rows)}"

    async def prune(self, number: int) -> None:
        """Delete the batch of the oldest sessions that has this number; there is none of number 0."""
        batch, population = self.population.batch if number else 0, self.population
        cutoff = (population.at(batch * number - 1) + population.at(batch * number)) // 2  # between two sessions
        age = timedelta(microseconds=data.now_micros() - cutoff)
        report = await self.sessions.prune(PrunePolicy(max_age=age, max_sessions=None))
        assert report.total == batch, f"a prune deleted {report.total} sessions, not {batch}"


Arguments = Callable[[Sized, int], list[tuple[Any, ...]]]


def _workload(key: str, verb: str, arguments: Arguments) -> Workload:
    async def turn(contender: Any, number: int) -> list[int]:
        return await timed(getattr(contender, verb), arguments(contender, number))

    return Workload(key, key, verb, turn)


def _groups() -> list[Group]:
    def append(of: Callable[[Sized], str]) -> Arguments:
        return lambda sized, number: [(of(sized), number * 11 + at) for at in range(11)]

    def each(of: Callable[[Sized], str | None]) -> Arguments:
        return lambda sized, _: [(of(sized),) for _ in range(11)]

    short = append(lambda sized: random.choice(sized.short))
    return [
        Group(
            (
                _workload("append 1, active session", "append", short),
                _workload("append 1, cold session", "append", append(lambda sized: sized.cold())),
                _workload("append 1, longest session", "append", append(lambda _: LONGEST)),
                _workload("last 20, active session", "last", each(lambda sized: random.choice(sized.long))),
                _workload("last 20, longest session", "last", each(lambda _: LONGEST)),
                _workload("page of an active user", "page", each(lambda sized: random.choice(sized.users))),
                _workload("page of a cold user", "page", each(lambda sized: sized.cold_user())),
                _workload("page of all", "page", each(lambda _: None)),
            ),
            rounds=ROUNDS,
        ),
        # What warms up finds nothing to delete.
        Group((_workload("prune batch", "prune", lambda _, number: [(0,), (number + 1,)]),), rounds=PRUNES),
    ]


UNBOUND: Final = ("append 1, cold session", "page of a cold user", "page of all")
"""Shown without a target: a page that nobody touched lies deeper in a larger store, and a page of a whole tenant reads
every session of the newest quarter of an hour."""


async def measured(database: Database, sessions: int, console: Console, *, random_ids: bool) -> dict[str, Any]:
    """Fill three databases, measure them side by side."""
    batch = max(int(sessions * PARTS[0]) // 20, 1)
    contenders: dict[str, Any] = {}
    urls: dict[str, str] = {}
    loads: dict[str, float] = {}
    for part in PARTS:
        name = f"{part:.0%}"
        population = Population(int(sessions * part), batch, random_ids=random_ids)
        begun = time.monotonic()
        with console.status(f"{database.kind}: filling {name}"):
            urls[name] = await database.build(f"scale_{part:.0%}".replace("%", ""), population)
        loads[name] = round(time.monotonic() - begun, 1)
        contenders[name] = population
    await database.calm()
    failures = Failures()
    result: Measured = {}
    async with contextlib.AsyncExitStack() as stack:
        for name, url in urls.items():
            opened = await stack.enter_async_context(SessionRepository.connect(url))
            contenders[name] = Sized(opened, contenders[name])
        gc.collect()
        gc.freeze()
        memory = {"before": _resident()}
        for group in _groups():
            with console.status(f"{database.kind}: {group.workloads[0].title} and so on"):
                result |= await measure.run(
                    group, contenders, failures, rounds=ROUNDS, seconds=120, source=random.Random(0)
                )
        memory["after"] = _resident()
        largest = f"{PARTS[-1]:.0%}"
        memory["most_while_iterating"] = await _iterated(contenders[largest].sessions)
    return {
        "version": database.version,
        "sessions": sessions,
        "messages": contenders[largest].population.size * 10 + sessions // 10,
        "filled_seconds": loads,
        "memory_bytes": memory,
        "bytes_per_message": {name: await _bytes_per_message(database, url) for name, url in urls.items()},
        "workloads": _compared(result),
    }


def _compared(result: Measured) -> list[dict[str, Any]]:
    smallest = f"{PARTS[0]:.0%}"
    rows = []
    for key, series in result.items():
        sizes = {
            name: {"median_us": round(one.median, 2), "calls": one.calls, **report.spread(one.ratios(series[smallest]))}
            for name, one in series.items()
        }
        target = None if key in UNBOUND else TARGET
        met = None if target is None else all(entry["ratio"] <= target for entry in sizes.values())
        rows.append({"title": key, "target": target, "met": met, "sizes": sizes})
    return rows


async def _iterated(sessions: SessionRepository) -> int:
    """The most memory this process has while it reads the longest session to its end."""
    most = _resident()
    number = 0
    messages: AsyncIterator[Any] = sessions.iter_messages(LONGEST)
    async for message in messages:
        number += 1
        assert message.body
        if number % 1_000 == 0:
            most = max(most, _resident())
    return most


def _resident() -> int:
    """Bytes of this process in memory, where the system tells (Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


async def _bytes_per_message(database: Database, url: str) -> float:
    """The whole database, sessions and indexes included, for each message."""
    size = {
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size",
        "postgresql": "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
        "WHERE relkind = 'r' AND relname LIKE 'sessionstore%'",
    }
    ((total,),) = await database.query(url, size[database.kind])
    ((messages,),) = await database.query(url, "SELECT count(*) FROM sessionstore_messages")
    return round(float(total) / int(messages), 1)


def show(results: dict[str, Any], console: Console) -> None:
    """Print what was found."""
    names = [f"{part:.0%}" for part in PARTS]
    for kind, found in results.items():
        title = f"{kind} {found['version']}: {found['sessions']:,} sessions, {found['messages']:,} messages"
        table = Table("workload", title=title, title_justify="left")
        for heading in (*names, *(f"{name} / {names[0]}" for name in names[1:]), "target"):
            table.add_column(heading, justify="right")
        for row in found["workloads"]:
            colour = {True: "[green]", False: "[bold red]", None: ""}[row["met"]]
            times = [f"{row['sizes'][name]['median_us']:,.0f} us" for name in names]
            ratios = [f"{colour}{row['sizes'][name]['ratio']:.2f}" for name in names[1:]]
            table.add_row(row["title"], *times, *ratios, "-" if row["target"] is None else f"{row['target']:g}")
        console.print(table)
        memory = {name: f"{size / 2**20:.0f} MiB" for name, size in found["memory_bytes"].items()}
        console.print(
            f"Memory of the process: {memory['before']} before, {memory['after']} after, at most "
            f"{memory['most_while_iterating']} while iterating over the longest session. Bytes on disk for each "
            f"message, sessions and indexes included: {found['bytes_per_message']}."
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; a missed target is no error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--database", choices=SESSIONS, help="this database only")
    parser.add_argument("--sessions", type=int, help="of the largest database; ten times as many messages")
    parser.add_argument("--random-ids", action="store_true", help="ids that do not grow with time, unlike those minted")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--folder", type=Path, help="where the databases are made")
    options = parser.parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    results: dict[str, Any] = {}
    with workplace(options.folder) as folder:
        for kind, sessions in SESSIONS.items():
            if options.database in {None, kind}:
                with contextlib.ExitStack() as stack:
                    started = stack.enter_context(server(max_wal_size="2GB")) if kind == "postgresql" else None
                    database = Sqlite(folder) if started is None else Postgresql(started)
                    run = measured(database, options.sessions or sessions, console, random_ids=options.random_ids)
                    results[kind] = asyncio.run(run)
    show(results, console)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
