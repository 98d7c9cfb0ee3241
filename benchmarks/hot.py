"""How many appends are HOT updates on traffic that is spaced like chats: `python -m benchmarks.hot`.

A HOT update writes no index entry. An append cannot be one when it moves its session to another activity bucket, or
when the page has no room. In a loop nearly all of them are HOT, whatever the width of the buckets; so here the clock of
the store is a simulated one that runs on between messages: an answer follows soon, the next question after a while, and
after a chat nothing comes for hours.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest import mock

from rich.console import Console

from benchmarks.data import body, bucket_of, named
from benchmarks.databases import Postgresql
from sessionstore import SessionRepository
from sessionstore.migrate import upgrade
from sessionstore.units.unit import Stamp
from tests.support.postgres import PostgresServer

GOAL: Final = 0.9
START: Final = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)

_UPDATES: Final = """
SELECT n_tup_upd, n_tup_hot_upd, n_dead_tup, pg_relation_size(relid), pg_indexes_size(relid)
FROM pg_stat_user_tables WHERE relname = 'sessionstore_sessions'
"""


@dataclass(frozen=True)
class Pace:
    """Means, in seconds and messages; each gap is drawn from an exponential distribution.

    Attributes:
        answer: from a question to its answer.
        question: from an answer to the next question.
        chat: messages of a chat.
        pause: from a chat to the next one in the same session.
    """

    answer: float = 10.0
    question: float = 60.0
    chat: float = 24.0
    pause: float = 8 * 3600.0


class Said(NamedTuple):
    """A message that is due."""

    at: int
    session: int
    number: int


def traffic(sessions: int, messages: int, pace: Pace, source: random.Random) -> Iterator[Said]:
    """So many messages in so many sessions, in order of time; sessions begin within the first pause."""
    due = [Said(START + _micros(source.uniform(0, pace.pause)), session, 0) for session in range(sessions)]
    heapq.heapify(due)
    for _ in range(messages):
        said = due[0]
        yield said
        if source.random() < 1 / pace.chat:
            gap = source.expovariate(1 / pace.pause)
        else:
            gap = source.expovariate(1 / (pace.answer if said.number % 2 == 0 else pace.question))
        heapq.heapreplace(due, Said(said.at + _micros(gap), said.session, said.number + 1))


def _micros(seconds: float) -> int:
    return int(seconds * 1_000_000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and return 1 if the goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hot", description=__doc__)
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fillfactor", type=int, help="of the table of sessions, in place of the one it is made with")
    parser.add_argument("--goal", type=float, default=GOAL, help="share of HOT updates; below it the exit code is 1")
    parser.add_argument("--json", type=Path, metavar="FILE")
    for name, mean in vars(Pace()).items():
        parser.add_argument(f"--{name}", type=float, default=mean, help="mean; see Pace")
    options = parser.parse_args(arguments)
    # What is counted does not depend on the disk.
    with PostgresServer() as server:
        results = asyncio.run(measured(Postgresql(server), options))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    share = results["hot"] / results["updates"]
    Console().print(
        f"{results['updates']:,} updates of {options.sessions:,} sessions over {results['days']:.1f} simulated days: "
        f"[{'green' if share >= options.goal else 'bold red'}]{share:.1%} HOT[/], goal {options.goal:.0%}. "
        f"Of the others, {results['moved']:,} moved their session to another bucket, "
        f"{results['updates'] - results['hot'] - results['moved']:,} found no room in the page. "
        f"Without a vacuum meanwhile: {results['dead']:,} dead rows, {results['bytes'] / options.sessions:,.0f} bytes "
        f"a session, {results['index_bytes'] / options.sessions:,.0f} its index entries."
    )
    return int(share < options.goal)


async def measured(database: Postgresql, options: argparse.Namespace) -> dict[str, Any]:
    """Let the traffic happen, one message after the other, and count."""
    pace = Pace(**{name: getattr(options, name) for name in vars(Pace())})
    url = await database.create("hot")
    await upgrade(url)
    if options.fillfactor is not None:
        await database.query(url, f"ALTER TABLE sessionstore_sessions SET (fillfactor = {options.fillfactor:d})")
    now = START
    buckets: dict[int, int] = {}
    moved = 0
    with mock.patch.object(Stamp, "of_now", side_effect=lambda: Stamp(now)):
        async with SessionRepository.connect(url) as sessions:
            for said in traffic(options.sessions, options.messages, pace, random.Random(options.seed)):
                now, session_id = said.at, named(f"hot/{said.session}")
                if said.session not in buckets:
                    await sessions.create(session_id, user_id=f"user-{said.session % 100}")
                    buckets[said.session] = bucket_of(now)
                await sessions.append(session_id, body(said.number))
                moved += buckets[said.session] != bucket_of(now)
                buckets[said.session] = bucket_of(now)
    counted = await _counted(database, url, options.messages)
    return {**counted, "moved": moved, "days": (now - START) / 86_400_000_000, "pace": vars(pace)}


async def _counted(database: Postgresql, url: str, expected: int) -> dict[str, int]:
    """Read the server's statistics, which arrive a moment after a connection has ended."""
    async with asyncio.timeout(30):
        while True:
            (row,) = await database.query(url, _UPDATES)
            if row[0] >= expected:
                return dict(zip(("updates", "hot", "dead", "bytes", "index_bytes"), map(int, row), strict=True))
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
