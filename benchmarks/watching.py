"""What watching costs an append, how soon a watcher is told, and many watchers: `python -m benchmarks.watching`.

- **Cost.** One writer appends to one session, some milliseconds apart: alone, with a watcher in its process, and with
  one in another process that polls. All have a turn in each round, and only while it is theirs does anybody watch; the
  ratio is taken within rounds. With `--pause 0` the writer leaves no time in between, and the one processor that a
  process has must do both: the worst case, not the usual one.
- **Delivery.** From the moment at which the writer knows that its append has happened until a watcher has the message,
  where messages come as in a chat: some tenths of a second apart, so that nothing is on its way any more.
- **Many.** So many watchers, of a session each, in one process: what is asked of the database while nothing happens,
  and what that takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from rich.console import Console

from benchmarks.data import Seeded, body, named, now_micros
from benchmarks.databases import Database, Postgresql, Sqlite, server, workplace
from benchmarks.measure import Series, clock, undisturbed
from sessionstore import SessionRepository

SESSION: Final = named("watching/0")
CALLS: Final = 41
"""Appends of a turn; the first warms up."""

COST_GOAL: Final = 1.03
HERE_GOAL: Final = 5.0
ELSEWHERE_GOAL: Final = 100.0
"""Most that watching may cost an append, and most milliseconds until a watcher is told; medians."""

SETTLE_SECONDS: Final = 0.2
"""Until a watcher that was begun is there, or one that was stopped is gone."""

UNDER_WAY: Final = 50
"""Watchers that begin at once, so that no call has to wait for long."""

QUIET_SECONDS: Final = 40.0
"""After so long without a change it looks as seldom as it ever does."""


class Watcher:
    """A watcher of the session in this process; notes when it was told of each position."""

    def __init__(self, sessions: SessionRepository) -> None:
        self.told: dict[int, int] = {}
        self._sessions = sessions
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch."""
        cursor = (await self._sessions.get(SESSION)).cursor
        self._task = asyncio.create_task(self._watch(cursor))
        await asyncio.sleep(SETTLE_SECONDS)

    async def _watch(self, cursor: str) -> None:
        async for change in self._sessions.watch(SESSION, after=cursor):
            now = time.monotonic_ns()
            self.told |= {message.position: now for message in change.messages}

    async def stop(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
            await asyncio.sleep(SETTLE_SECONDS)


class Elsewhere:
    """A watcher of the session in another process. Its clock is that of the whole machine."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.told: dict[int, int] = {}
        self._process = process

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, url: str) -> AsyncIterator[Elsewhere]:
        """Start a process that can watch."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.watching", "--watch", url, stdin=pipe, stdout=pipe
        )
        try:
            yield cls(process)
        finally:
            process.kill()
            await process.wait()

    async def start(self) -> None:
        """Let it begin to watch."""
        await self._ask("start")

    async def stop(self) -> None:
        """Let it stop, and say what it was told."""
        self.told |= {int(at): told for at, told in (await self._ask("stop")).items()}

    async def _ask(self, what: str) -> dict[str, int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{what}\n".encode())
        answer: dict[str, int] = json.loads(await self._process.stdout.readline())
        return answer


async def obey(url: str) -> None:
    """Be the other process: watch and stop as told on the input."""
    loop = asyncio.get_running_loop()
    async with SessionRepository.connect(url) as sessions:
        watcher = Watcher(sessions)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            await (watcher.start() if line.strip() == "start" else watcher.stop())
            print(json.dumps(watcher.told), flush=True)
            watcher.told = {}


class Nobody:
    """No watcher."""

    async def start(self) -> None:
        """Wait as long as the others."""
        await asyncio.sleep(SETTLE_SECONDS)

    async def stop(self) -> None:
        """Wait as long as the others."""
        await asyncio.sleep(SETTLE_SECONDS)


class Cost(NamedTuple):
    """Microseconds of an append, and how many times as long as without a watcher, with the quarters of the rounds."""

    median: float
    ratio: float
    low: float
    high: float


async def cost(url: str, options: argparse.Namespace) -> dict[str, Cost]:
    """Measure appends without a watcher, with one here, and with one elsewhere."""
    source = random.Random(options.seed)
    async with SessionRepository.connect(url) as sessions, Elsewhere.opened(url) as elsewhere:
        await sessions.open(SESSION)
        watchers: dict[str, Any] = {
            "nobody": Nobody(),
            "in the process": Watcher(sessions),
            "in another process": elsewhere,
        }
        series = {name: Series() for name in watchers}
        for number in range(options.rounds + 1):
            for name, watcher in source.sample(list(watchers.items()), len(watchers)):
                await watcher.start()
                samples = await _appended(sessions, options.pause)
                await watcher.stop()
                if number > 0:  # the first round warms up
                    series[name].rounds[number] = samples
    found = {}
    for name, taken in series.items():
        ratios = taken.ratios(series["nobody"])
        low, _, high = statistics.quantiles(ratios) if len(ratios) > 1 else (ratios[0],) * 3
        found[name] = Cost(taken.median, statistics.median(ratios), low, high)
    return found


async def _appended(sessions: SessionRepository, pause: float) -> list[int]:
    """Append some messages; nanoseconds of each but the first."""
    samples = []
    with undisturbed():
        for number in range(CALLS):
            await asyncio.sleep(pause)
            begun = clock()
            await sessions.append(SESSION, body(number))
            samples.append(clock() - begun)
    return samples[1:]


async def delivery(url: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Measure how many milliseconds after an append the watchers have its message."""
    source = random.Random(options.seed)
    written: dict[int, int] = {}
    async with SessionRepository.connect(url) as sessions, Elsewhere.opened(url) as elsewhere:
        await sessions.open(SESSION)
        here = Watcher(sessions)
        await asyncio.gather(here.start(), elsewhere.start())
        for number in range(options.messages):
            await asyncio.sleep(source.uniform(0.1, 1.0))
            [position] = await sessions.append(SESSION, body(number))
            written[position] = time.monotonic_ns()
        await asyncio.sleep(2)
        await asyncio.gather(here.stop(), elsewhere.stop())
    watchers = {"in one process": here.told, "across processes": elsewhere.told}
    return {name: [(told[at] - then) / 1e6 for at, then in written.items()] for name, told in watchers.items()}


async def many(database: Database, options: argparse.Namespace) -> dict[str, Any]:
    """Watch many sessions in this process, and count what is asked meanwhile."""
    ids, at = [named(f"watching/many/{number}") for number in range(options.watchers)], now_micros()
    url = await database.build("many", [Seeded(id_, 1, at=at, small=True) for id_ in ids])
    async with SessionRepository.connect(url) as sessions:
        asked = _counted(sessions)
        cursor = (await sessions.get(ids[0])).cursor
        before = _resident()
        changes: list[Any] = [sessions.watch(id_, after=cursor) for id_ in ids]
        begun = time.monotonic()
        waiting: list[asyncio.Task[Any]] = []
        for each in changes:
            waiting.append(asyncio.ensure_future(anext(each)))
            while len(waiting) > asked["follow"] + UNDER_WAY:  # noqa: ASYNC110  # it is a count, not an event
                await asyncio.sleep(0.001)
        while asked["follow"] < len(ids):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.001)
        opened = time.monotonic() - begun
        bytes_each = (_resident() - before) / len(ids)
        eager = await _idle(asked, 5.0)
        await asyncio.sleep(QUIET_SECONDS)
        idle = await _idle(asked, 20.0)
        await sessions.append(ids[-1], body(0))
        change = await waiting[-1]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for each in changes:
            await each.aclose()
    await database.drop(url)
    return {"opened": opened, "bytes_each": bytes_each, "eager": eager, "idle": idle, "told": change.kind}


def _counted(sessions: SessionRepository) -> Counter[str]:
    """Count the units that a repository runs from now on, by name."""
    asked: Counter[str] = Counter()
    executor: Any = sessions._executor  # noqa: SLF001  # what is asked for is not shown otherwise
    run = executor.run

    async def counting(unit: Any, deadline: Any) -> Any:
        result = await run(unit, deadline)
        asked[unit.name] += 1
        return result

    executor.run = counting
    return asked


async def _idle(asked: Counter[str], seconds: float) -> dict[str, Any]:
    """Do nothing for a while: what was asked in that time, and how much of a processor it took."""
    asked.clear()
    begun, used = time.monotonic(), time.process_time()
    await asyncio.sleep(seconds)
    passed = time.monotonic() - begun
    ticks = asked["tick"]
    busy = (time.process_time() - used) / passed
    return {"ticks": ticks, "others": asked.total() - ticks, "a_second": ticks / passed, "processor": busy}


def _resident() -> int:
    """Bytes of memory that this process holds just now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print, and return 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watching", description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], help="only this one")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--messages", type=int, default=60, help="whose delivery is measured")
    parser.add_argument("--watchers", type=int, default=0, help="measure so many in one process as well")
    parser.add_argument("--pause", type=float, default=0.01, metavar="SECONDS", help="between two appends")
    parser.add_argument("--folder", type=Path, help="where the databases are made, on the disk to be measured")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.watch is not None:
        asyncio.run(obey(options.watch))
        return 0
    results: dict[str, Any] = {}
    console = Console(highlight=False)
    with workplace(options.folder) as folder, server() as started:
        for database in (Sqlite(folder), Postgresql(started)):
            if options.database in {None, database.kind}:
                load = os.getloadavg()[0]
                results[database.kind] = {"load": load} | asyncio.run(measured(database, options))
                _show(console, database.kind, results[database.kind])
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(any(_missed(found) for found in results.values()))


async def measured(database: Database, options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything on one database."""
    url = await database.build("watching", [])
    found: dict[str, Any] = {}
    if options.rounds:
        found["cost"] = {name: taken._asdict() for name, taken in (await cost(url, options)).items()}
    if options.messages:
        found["delivery"] = await delivery(url, options)
    await database.drop(url)
    return found | ({"many": await many(database, options)} if options.watchers else {})


def _missed(found: dict[str, Any]) -> bool:
    late = {name: statistics.median(taken) for name, taken in found.get("delivery", {}).items()}
    return (
        any(taken["ratio"] > COST_GOAL for taken in found.get("cost", {}).values())
        or late.get("in one process", 0) > HERE_GOAL
        or late.get("across processes", 0) > ELSEWHERE_GOAL
    )


def _show(console: Console, kind: str, found: dict[str, Any]) -> None:
    for name, taken in found.get("cost", {}).items():
        console.print(
            f"{kind}, append, watched by {name if name == 'nobody' else f'one {name}'}: {taken['median']:,.0f} us, "
            f"{taken['ratio']:.3f} (quarters {taken['low']:.3f} to {taken['high']:.3f}, goal {COST_GOAL})"
        )
    for name, taken in found.get("delivery", {}).items():
        goal = HERE_GOAL if name == "in one process" else ELSEWHERE_GOAL
        console.print(
            f"{kind}, delivery {name}: {statistics.median(taken):.1f} ms, at most {max(taken):.1f} of {len(taken)} "
            f"(goal {goal:.0f})"
        )
    if "many" in found:
        _show_many(console, kind, found["many"])


def _show_many(console: Console, kind: str, found: dict[str, Any]) -> None:
    console.print(
        f"{kind}, many watchers: begun in {found['opened']:.1f} s, {found['bytes_each'] / 1024:.1f} KiB of memory each"
    )
    for name in ("eager", "idle"):
        taken = found[name]
        console.print(
            f"{kind}, many watchers, {name}: {taken['ticks']} looks ({taken['a_second']:.1f} a second) and "
            f"{taken['others']} other queries, {taken['processor']:.1%} of a processor"
        )


if __name__ == "__main__":
    sys.exit(main())
