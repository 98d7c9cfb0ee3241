"""What a unit of work is."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from sessionstore.dialects.base import Call, Dialect, Rows
from sessionstore.limits import ACTIVITY_BUCKET_MICROS

T = TypeVar("T")

Steps: TypeAlias = Generator[Call, Rows, T]
"""The statements of a unit, and its result. A failing statement is thrown in where it was yielded."""


class Kind(Enum):
    """What a unit needs of the database; `reads` where nothing is written."""

    reads: bool

    READ = "read"
    """Reads; each statement may see a moment of its own."""
    SNAPSHOT = "snapshot"
    """Reads; all statements see the same moment."""
    WRITE = "write"
    """Writes with one statement, that commits for itself; others only read."""
    TRANSACTION = "transaction"
    """Writes with several statements, all or none."""

    def __init__(self, name: str) -> None:
        self.reads = name in {"read", "snapshot"}


Touched: TypeAlias = tuple[str, str | None]
"""A tenant and a session of it; None for some of its sessions."""


class Unit(NamedTuple, Generic[T]):
    """A unit of work: replayable, because it is a function of its arguments.

    Attributes:
        name: of the verb, for errors and traces.
        steps: starts the generator; called again for each try.
        repeatable: doing it twice leaves what doing it once leaves, so it may be tried again after an unknown outcome.
        rows: how many rows it writes, at most; for grouping.
        size: how many bytes it writes, about.
        joint: how it may be run together with others like it.
        tenantless: it looks at nothing that belongs to a tenant. Of any other, each statement names the tenant.
        touches: the tenant and the session that it changes; several sessions where that is None.
        then: makes the unit that follows once this one has committed; databases with one writer do both in one.
    """

    name: str
    kind: Kind
    steps: Callable[[Dialect], Steps[T]]
    repeatable: bool = False
    rows: int = 1
    size: int = 0
    touches: Touched | None = None
    then: Callable[[T], Unit[Any] | None] | None = None
    joint: Joint[T] | None = None
    tenantless: bool = False


class Joint(NamedTuple, Generic[T]):
    """How units may be run as one.

    Attributes:
        key: units of the same key wait for each other in the database anyway.
        part: what this unit brings along.
        join: makes one unit of several parts; it gives the result of each.
    """

    key: Hashable
    part: Any
    join: Callable[[list[Any]], Unit[Any]]


class RunInstead(Exception):  # noqa: N818  # not an error: a unit hands over to another one
    """Raised by a unit: undo what it did and run another one, within the same call."""

    def __init__(self, unit: Unit[Any]) -> None:
        super().__init__(unit.name)
        self.unit = unit


class MessageIdTakenError(Exception):
    """Thrown into a unit: a statement would have stored a message id of the session a second time."""


class Stamp(NamedTuple):
    """The moment of a call, by this process's clock in microseconds since 1970, as the statements take it."""

    now: int

    @classmethod
    def of_now(cls) -> Stamp:
        """Read the clock."""
        return cls(time.time_ns() // 1000)

    @property
    def changed(self) -> dict[str, int]:
        """Parameters of a change."""
        return {"now": self.now, "bucket": bucket_of(self.now)}

    @property
    def rewritten(self) -> dict[str, int]:
        """Parameters of a change of history: generations start at a moment, so that no re-creation repeats one."""
        return {"now": self.now, "bucket": bucket_of(self.now), "generation": self.now}


def bucket_of(micros: int) -> int:
    """The activity bucket of a moment."""
    return micros // ACTIVITY_BUCKET_MICROS
