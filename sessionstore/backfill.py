"""Work on many rows that no migration does: in batches, each committed, from where it was when it was cut off.

For columns that follow from a stored value: after a release that adds one, or after values were changed by hand. Any
number of processes may work on one backfill at once, beside a service that reads and writes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sessionstore.checks import to_datetime
from sessionstore.dialects.base import Row
from sessionstore.errors import InvalidArgumentError
from sessionstore.limits import BACKFILL_BATCH, BACKFILL_BATCH_MAX, BACKFILL_PAUSE_SECONDS
from sessionstore.repository import SessionRepository
from sessionstore.statements import mapping
from sessionstore.units import backfill as units

__all__ = ["JOBS", "Backfill", "backfill", "backfills"]

# ruff: noqa: SLF001  # a verb of the repository that applications do not need

JOBS: Final = {name: job.what for name, job in units.JOBS.items()}
"""Every backfill by name, and what it brings up to date."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backfill:
    """How far a backfill is.

    Attributes:
        total: rows there were when it started, about; None if nobody knew.
        seen: rows it has looked at.
        changed: rows it had to change.
        unreadable: rows it had to leave, because what they hold is not JSON: `verify` names them.
        updated_at: of the last batch; all times are by the database's clock.
        finished_at: None while there is more to do.
    """

    job: str
    total: int | None
    seen: int
    changed: int
    unreadable: int
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None


async def backfill(
    sessions: SessionRepository,
    job: str,
    *,
    batch_rows: int = BACKFILL_BATCH,
    pause_seconds: float = 0.0,
    restart: bool = False,
    on_progress: Callable[[Backfill], object] | None = None,
) -> Backfill:
    """Do what is left of a backfill, for all tenants; a finished one stays finished unless it is restarted.

    Each batch is a transaction of its own, within the deadline of a call. Killed or cancelled, it goes on after the
    last batch when it is called again. A row that somebody rewrites meanwhile is left as that writer made it.

    Args:
        job: one of `JOBS`.
        batch_rows: most rows of a batch, 1 to 10,000; a batch of large rows has less.
        pause_seconds: between two batches, to leave the database to others.
        restart: look at every row again.
        on_progress: told after each batch how far it is.

    Raises:
        InvalidArgumentError: no such backfill, or an argument that cannot be; also within a caller's transaction.
        SessionStoreError: a batch could not be done.
    """
    sessions._refuse_within("backfill")
    _check(job, batch_rows, pause_seconds)
    tell = on_progress or (lambda _: None)
    so_far = backfill_of(await sessions._run(units.start(job, restart=restart)))
    tell(so_far)
    while so_far.finished_at is None:
        so_far = backfill_of(await sessions._run(units.advance(job, limit=batch_rows)))
        tell(so_far)
        if so_far.finished_at is None:
            await asyncio.sleep(pause_seconds)
    return so_far


async def backfills(sessions: SessionRepository) -> list[Backfill]:
    """Tell how far every backfill is that was ever begun on this database.

    Raises:
        SessionStoreError: it could not be read.
    """
    return [backfill_of(row) for row in await sessions._run(units.progress())]


def _check(job: str, batch_rows: Any, pause_seconds: Any) -> None:
    if job not in JOBS:
        raise InvalidArgumentError(f"there is no backfill {job!r}; there are {', '.join(JOBS)}")
    if type(batch_rows) is not int or not 1 <= batch_rows <= BACKFILL_BATCH_MAX:
        raise InvalidArgumentError(f"batch_rows must be a whole number from 1 to {BACKFILL_BATCH_MAX}")
    number = isinstance(pause_seconds, (int, float)) and not isinstance(pause_seconds, bool)
    if not number or not 0 <= pause_seconds < BACKFILL_PAUSE_SECONDS:
        raise InvalidArgumentError("pause_seconds must be a number from 0 up to an hour")


def backfill_of(row: Row) -> Backfill:
    """Make one of a row of the table."""
    job, total, seen, changed, unreadable, started_at, updated_at, finished_at = row
    return Backfill(
        job=job,
        total=total,
        seen=seen,
        changed=changed,
        unreadable=unreadable,
        started_at=to_datetime(mapping.micros(started_at)),
        updated_at=to_datetime(mapping.micros(updated_at)),
        finished_at=None if finished_at is None else to_datetime(mapping.micros(finished_at)),
    )
