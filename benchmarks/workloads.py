"""The workloads: what is called, on what, and what is there before."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from benchmarks import data
from benchmarks.contenders import OURS, Contender
from benchmarks.data import Seeded, Sizes, body, named
from benchmarks.databases import Database
from benchmarks.measure import Group, Workload, clock, timed, undisturbed

KEYS: Final = tuple(f"W{number}" for number in range(1, 9))
HELD: Final = (10, 1_000, 10_000)
TASKS: Final = 32
EACH: Final = 20
PEERS_EACH: Final = 4
"""Tasks that append at once, and messages that each of them appends in a turn; fewer where each takes far longer."""

BATCH: Final = 100
LAST: Final = 20
PAGE: Final = 50
KEEP: Final = 100
PRUNE_AGE: Final = timedelta(days=data.PRUNE_AGE_DAYS)

READ: Final = named("read/1000")
READ_LONG: Final = named("read/10000")
BATCHED: Final = named("append-many")
SHARED: Final = named("together")
TOGETHER: Final = "append_together"

Arguments = Callable[[int], list[tuple[Any, ...]]]
"""What the calls of a round are made with: the same for all contenders; the first of them warms up."""


class Workloads:
    """The workloads of a run, and what they leave to be checked.

    Attributes:
        prune_template: the URL of a database with sessions to prune; each prune gets a copy.
        pruned: how many sessions each prune said it had deleted, by contender.
        left: how many messages were there after each, by contender.
        acknowledged: for the appends side by side, (session, position, task, number) by contender.
    """

    def __init__(self, sizes: Sizes, database: Database) -> None:
        self.sizes = sizes
        self.prune_template = ""
        self._database = database
        self.pruned: dict[str, list[int]] = defaultdict(list)
        self.left: dict[str, list[int]] = defaultdict(list)
        self.acknowledged: dict[str, list[tuple[str, int | None, int, int]]] = defaultdict(list)

    def groups(self) -> list[Group]:
        """All of them, in the order of the report."""
        listed = f"{self.sizes.listed:,}"
        return [
            Group(tuple(self._append_one(held) for held in HELD), rounds=APPEND_ROUNDS),
            Group((self._together(own=True), self._together(own=False)), rounds=9),
            Group((_calls("W3", f"append {BATCH}", "append_many", _appending_many),), rounds=60),
            Group(
                (
                    _calls("W4/all", "read 1,000", "read", lambda _: [(READ,)] * 6),
                    _calls("W4/last", f"read last {LAST} of 10,000", "read_last", lambda _: [(READ_LONG, LAST)] * 21),
                ),
                rounds=100,
            ),
            Group((_calls("W5", f"list {PAGE} among {listed}", "list_newest", self._listing),), rounds=100),
            Group((_calls("W6", "fork 1,000", "fork", _forking),), rounds=FORK_ROUNDS),
            Group((_calls("W7/trim", f"trim 1,000 to {KEEP}", "trim", _trimming),), rounds=TRIM_ROUNDS),
            Group((self._prune(),), rounds=7, share=2.5),
            Group(
                (
                    _calls("W8/get", "get", "get", _getting),
                    _calls("W8/create", "create", "create", _creating),
                ),
                rounds=100,
            ),
        ]

    def seeded(self) -> Iterator[Seeded]:
        """What is there before the first of them, the sessions to prune excepted: those have their own database."""
        yield from data.listed_sessions(self.sizes)
        at = data.now_micros() - data.DAY_MICROS
        lengths = {READ: 1_000, READ_LONG: 10_000, BATCHED: 1_000, SHARED: 0}
        lengths |= {named(f"append/{held}"): held for held in HELD[1:]}
        lengths |= {named(f"append/{HELD[0]}/{number}"): HELD[0] for number in range(APPEND_ROUNDS + 1)}
        lengths |= {named(f"own/{task}"): 0 for task in range(TASKS)}
        rounds = min(TRIM_ROUNDS, self.sizes.rounds)
        lengths |= {named(f"trim/{at}/{call}"): 1_000 for at in range(rounds + 1) for call in range(TRIM_CALLS)}
        for number, (session_id, length) in enumerate(lengths.items()):
            yield Seeded(session_id, length, at=at, project=number % 4 == 0)

    def _append_one(self, held: int) -> Workload:
        def arguments(number: int) -> list[tuple[Any, ...]]:
            # A session of ten would soon be one of a hundred: each round has another.
            session_id = named(f"append/{held}/{number}" if held == HELD[0] else f"append/{held}")
            return [(session_id, body(number * 11 + at)) for at in range(11)]

        return _calls(f"W1/{held}", f"append 1, session holds {held:,}", "append", arguments)

    def _together(self, *, own: bool) -> Workload:
        ids = [named(f"own/{task}") if own else SHARED for task in range(TASKS)]

        async def turn(contender: Contender, number: int) -> list[int]:
            append = getattr(contender, TOGETHER, None) or contender.append  # type: ignore[attr-defined]
            done = self.acknowledged[contender.name]
            each = EACH if contender.needs == OURS else PEERS_EACH
            messages = [data.bodies(each, task=task, first=number * each) for task in range(TASKS)]

            async def chat(task: int) -> None:
                session_id = ids[task]
                for message in messages[task]:
                    done.append((session_id, await append(session_id, message), task, int(message["number"])))

            with undisturbed():
                start = clock()
                ends = await asyncio.gather(*map(chat, range(TASKS)), return_exceptions=True)
                taken = clock() - start
            for error in ends:
                if error is not None:
                    raise error
            return [taken // (TASKS * each)]

        whose = "own sessions" if own else "one session"
        return Workload(f"W2/{'own' if own else 'one'}", f"{TASKS} tasks append, {whose}", "append", turn)

    def _listing(self, number: int) -> list[tuple[Any, ...]]:
        source = random.Random(number)
        return [(data.user_name(source.randrange(self.sizes.users)), PAGE) for _ in range(11)]

    def _prune(self) -> Workload:
        async def turn(contender: Contender, number: int) -> list[int]:
            url = await self._database.copy(self.prune_template, f"prune_{number}")
            fresh = await type(contender).open(url)
            await self._database.calm()
            try:
                # A prune that finds nothing warms up.
                samples = await timed(self._noting(fresh), [(timedelta(days=9_999),), (PRUNE_AGE,)])
            finally:
                await fresh.close()
            ((left,),) = await self._database.query(url, "SELECT count(*) FROM sessionstore_messages")
            self.left[contender.name].append(left)
            await self._database.drop(url)
            return samples

        return Workload("W7/prune", f"prune {self.sizes.pruned:,} sessions of 10", "prune", turn)

    def _noting(self, contender: Any) -> Callable[[timedelta], Any]:
        async def prune(age: timedelta) -> None:
            self.pruned[contender.name].append(await contender.prune(age))

        return prune


APPEND_ROUNDS: Final = 150
FORK_ROUNDS: Final = 20
TRIM_ROUNDS: Final = 12
TRIM_CALLS: Final = 4


def _calls(key: str, title: str, verb: str, arguments: Arguments) -> Workload:
    """A workload of one call after another."""

    async def turn(contender: Contender, number: int) -> list[int]:
        return await timed(getattr(contender, verb), arguments(number))

    return Workload(key, title, verb, turn)


def _appending_many(number: int) -> list[tuple[Any, ...]]:
    return [(BATCHED, data.bodies(BATCH, first=(number * 5 + at) * BATCH)) for at in range(5)]


def _forking(number: int) -> list[tuple[Any, ...]]:
    return [(READ, named(f"fork/{number}/{at}")) for at in range(3)]


def _trimming(number: int) -> list[tuple[Any, ...]]:
    return [(named(f"trim/{number}/{call}"), KEEP) for call in range(TRIM_CALLS)]


def _getting(number: int) -> list[tuple[Any, ...]]:
    return [(named(f"append/{HELD[0]}/{(number * 21 + at) % (APPEND_ROUNDS + 1)}"),) for at in range(21)]


def _creating(number: int) -> list[tuple[Any, ...]]:
    return [(named(f"create/{number}/{at}"),) for at in range(11)]
