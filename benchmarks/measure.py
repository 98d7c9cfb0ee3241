"""Measuring: rounds in which everybody has a turn, in an order drawn anew each time.

Absolute times drift with the disk and with whatever else the machine does, several-fold within an hour. So a ratio is
taken within each round, and the median over the rounds is reported.
"""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.contenders import OURS, Contender

clock: Final = time.perf_counter_ns

LEAST_ROUNDS: Final = 3
"""Measured even if they take longer than they may."""

TURN_NANOS: Final = 400_000_000
"""A turn ends after the call in which it came to this: slow contenders take part with fewer calls."""

Block = Callable[[Contender, int], Awaitable[list[int]]]
"""One turn of a contender in a round: nanoseconds of each call."""


@dataclass(frozen=True)
class Workload:
    """One row of the report.

    Attributes:
        key: unique; what `--only` names is the part before the slash.
        verb: what a contender must have to take part.
        turn: runs and times one turn.
    """

    key: str
    title: str
    verb: str
    turn: Block


@dataclass(frozen=True)
class Group:
    """Workloads whose turns are mixed in the same rounds, so that they can be compared with each other.

    Attributes:
        rounds: enough for a stable median.
        share: of the time that a group may take.
    """

    workloads: tuple[Workload, ...]
    rounds: int
    share: float = 1.0


@dataclass
class Series:
    """What one contender took for one workload: nanoseconds of each call, by round."""

    rounds: dict[int, list[int]] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median of all calls, in microseconds."""
        return statistics.median(value for values in self.rounds.values() for value in values) / 1000

    @property
    def calls(self) -> int:
        """How many calls were timed."""
        return sum(map(len, self.rounds.values()))

    def ratios(self, other: Series) -> list[float]:
        """Round by round, how many times as long as the other."""
        return [
            statistics.median(values) / statistics.median(other.rounds[number])
            for number, values in sorted(self.rounds.items())
            if number in other.rounds
        ]


Measured = dict[str, dict[str, Series]]
"""By key of the workload, then by name of the contender."""


class Failures(dict[tuple[str, str], str]):
    """Workloads that a peer could not do after all, by key of the workload and name of the peer."""

    def note(self, key: str, name: str, error: Exception) -> None:
        """Keep the first line of what a peer raised."""
        self[key, name] = f"{name} failed in {key}: {type(error).__name__}: {str(error).splitlines()[0]}"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Collect garbage before, not meanwhile."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def timed(call: Callable[..., Awaitable[Any]], arguments: Sequence[tuple[Any, ...]]) -> list[int]:
    """Call once for each tuple of arguments, and time all calls but the first, which warms up."""
    samples: list[int] = []
    result: Any = None
    with undisturbed():
        begun = clock()
        for given in arguments:
            result = None  # freeing what the last call gave is not part of this one
            start = clock()
            result = await call(*given)
            samples.append(clock() - start)
            if clock() - begun > TURN_NANOS and len(samples) > 1:
                break
    del result
    return samples[1:]


async def run(
    group: Group,
    contenders: Mapping[str, Contender],
    failures: Failures,
    *,
    rounds: int,
    seconds: float,
    source: random.Random,
) -> Measured:
    """Measure a group: at most so many rounds or seconds, after one round that warms up and is not counted.

    A peer that fails in a workload takes no further part in it. The store and its floor may not fail.
    """
    turns = [
        (workload, name, contender)
        for workload in group.workloads
        for name, contender in contenders.items()
        if hasattr(contender, workload.verb)
    ]
    measured: Measured = {workload.key: {} for workload in group.workloads}
    begun = time.monotonic()
    for number in range(min(group.rounds, rounds) + 1):
        if number > LEAST_ROUNDS and time.monotonic() - begun > seconds * group.share:
            break
        source.shuffle(turns)
        for workload, name, contender in turns:
            if (workload.key, name) in failures:
                continue
            try:
                samples = await workload.turn(contender, number)
            except Exception as error:
                if contender.needs == OURS:
                    raise
                failures.note(workload.key, name, error)
                measured[workload.key].pop(name, None)
                continue
            if number > 0:
                measured[workload.key].setdefault(name, Series()).rounds[number] = samples
    return measured
