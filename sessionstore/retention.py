"""How a prune goes about it, and how often."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sessionstore import telemetry
from sessionstore.checks import check_instant, check_seconds
from sessionstore.limits import PRUNE_BATCH
from sessionstore.statements import removal
from sessionstore.statements.removal import Victims
from sessionstore.units import events
from sessionstore.units import removal as units
from sessionstore.units.unit import Stamp, Unit, bucket_of
from sessionstore.values import PrunePolicy, PruneReport

_EARLIEST: Final = check_instant(datetime.min.replace(tzinfo=UTC), "the earliest time")


Run = Callable[[Unit[Any]], Awaitable[Any]]
"""Runs a unit: each with a deadline of its own, so that only a batch has one, not the whole."""


async def remove_user(run: Run, tenant: str, user_id: str) -> int:
    """Delete every session of a user; how many."""
    return await _remove_all(run, tenant, removal.OF_USER, {"user": user_id}, PRUNE_BATCH, verb="delete_user")


async def remove_tenant(run: Run, tenant: str) -> int:
    """Delete every session of a tenant; how many."""
    total = await _remove_all(run, tenant, removal.OF_TENANT, {}, PRUNE_BATCH, verb="delete_all")
    await run(events.forget(tenant))
    return total


async def _remove_all(
    run: Run, tenant: str, victims: Victims, params: dict[str, Any], batch_size: int, *, verb: str
) -> int:
    """Delete batch after batch until there is no victim left."""
    total = 0
    while (removed := await run(units.batch(tenant, victims, params, batch_size=batch_size))).chosen:
        telemetry.count(telemetry.Counter.PRUNE_BATCHES, verb=verb)
        total += removed.gone
    return total


async def prune(run: Run, tenant: str, policy: PrunePolicy, *, batch_size: int, dry_run: bool) -> PruneReport:
    """Delete what a policy names, or list it."""
    steps = _steps(policy, Stamp.of_now().now, preview=dry_run)
    if dry_run:
        return _previewed(steps, await run(units.preview(tenant, [(step.victims, step.params) for step in steps])))
    counts: dict[str, Any] = {}
    await run(events.purge_old(tenant))
    for step in steps:
        counts[step.counter] = await _remove_all(run, tenant, step.victims, step.params, batch_size, verb="prune")
    return PruneReport(**counts)


class _Step(NamedTuple):
    """One step of a prune: which sessions it chooses, and where the report counts them."""

    counter: str
    victims: Victims
    params: dict[str, Any]


def _steps(policy: PrunePolicy, now: int, *, preview: bool) -> list[_Step]:
    """Return the steps of a prune that begins now: by age, then by idleness, then by number.

    Sessions that are used after it began are spared. In a preview the last step leaves out what the first two would
    have deleted.
    """
    steps: list[_Step] = []
    since = {"changed_since": _EARLIEST, "used_since": _EARLIEST}
    if policy.max_age is not None:
        cutoff = _before(now, policy.max_age)
        params = {"bucket": bucket_of(cutoff), "cutoff": cutoff, "started": now}
        steps.append(_Step("by_age", removal.BY_AGE, params))
        since["changed_since"] = cutoff
    if policy.max_idle is not None:
        cutoff = _before(now, policy.max_idle)
        steps.append(_Step("by_idle", removal.BY_IDLE, {"cutoff": cutoff, "started": now}))
        since["used_since"] = cutoff
    if policy.max_sessions is not None:
        victims = removal.BY_NUMBER_PER_USER if policy.per_user else removal.BY_NUMBER
        if not preview:
            since = dict.fromkeys(since, _EARLIEST)
        steps.append(_Step("by_number", victims, {"keep": policy.max_sessions, "started": now, **since}))
    return steps


def _previewed(steps: list[_Step], chosen: list[list[str]]) -> PruneReport:
    """Report what the steps of a preview chose, counting a session where it would go first."""
    seen: dict[str, None] = {}
    counts: dict[str, Any] = {}
    for step, ids in zip(steps, chosen, strict=True):
        before = len(seen)
        seen |= dict.fromkeys(ids)
        counts[step.counter] = len(seen) - before
    return PruneReport(**counts, session_ids=tuple(seen))


def _before(now: int, age: timedelta) -> int:
    return max(now - age // timedelta(microseconds=1), _EARLIEST)


class PruneThrottle:
    """Lets one of many callers of this process through, then none until the cooldown is over. Thread-safe.

    `SessionRepository.claim` is the same for many processes.
    """

    def __init__(self, cooldown_seconds: float) -> None:
        """Let the first call through.

        Raises:
            InvalidArgumentError: a negative cooldown. 0 lets everybody through.
        """
        self._cooldown = check_seconds(cooldown_seconds, "cooldown_seconds")
        self._open_at = 0.0
        self._lock = threading.Lock()

    def ready(self) -> bool:
        """Whether it is time; if so the cooldown begins anew. A refusal does not prolong it."""
        with self._lock:
            now = time.monotonic()
            if now < self._open_at:
                return False
            self._open_at = now + self._cooldown
            return True
