"""What row-level security costs: `python -m benchmarks.protected`.

Two databases with the same content and one role, that of a service: one with policies and a store that tells its tenant
in each transaction, one without either. Both have a turn in each round; the ratio is taken within rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.data import body, named
from benchmarks.databases import Postgresql, server
from benchmarks.measure import Series, timed
from sessionstore import SessionRepository, StoreSettings
from sessionstore.migrate import upgrade
from sessionstore.roles import apply_roles
from tests.support.postgres import Postgres, PostgresServer

TENANTS: Final = 10
SESSIONS: Final = 100
MESSAGES: Final = 40
"""In each session, of each tenant."""

SERVICE: Final = "bench_service"
READ: Final = named("protected/0")
CALLS: Final = 21


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.protected", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-disk", action="store_true", help="commits wait for no disk, which leaves the worst case")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    with PostgresServer() if options.no_disk else server() as started:
        results = asyncio.run(measured(started, options))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    for name, (without, protected, ratio) in results.items():
        Console().print(f"{name}: {without:,.0f} us without row-level security, {protected:,.0f} us with: {ratio:.2f}")
    return 0


async def measured(started: Postgres, options: argparse.Namespace) -> dict[str, tuple[float, float, float]]:
    """Measure each verb; microseconds without and with it, and how many times as long."""
    stores = {protected: await _opened(started, protected=protected) for protected in (False, True)}
    source = random.Random(options.seed)
    series: dict[tuple[str, bool], Series] = {}
    for number in range(options.rounds + 1):
        turns = [(name, protected) for name in VERBS for protected in stores]
        source.shuffle(turns)
        for name, protected in turns:
            samples = await timed(VERBS[name], [(stores[protected], number * CALLS + at) for at in range(CALLS)])
            if number > 0:  # the first round warms up
                series.setdefault((name, protected), Series()).rounds[number] = samples
    for sessions in stores.values():
        await sessions.aclose()
    return {
        name: (
            series[name, False].median,
            series[name, True].median,
            statistics.median(series[name, True].ratios(series[name, False])),
        )
        for name in VERBS
    }


async def _append(sessions: SessionRepository, number: int) -> Any:
    return await sessions.append(named(f"protected/{1 + number % (SESSIONS - 1)}"), body(number))


async def _last(sessions: SessionRepository, _number: int) -> Any:
    return await sessions.messages(READ, last=20)


async def _get(sessions: SessionRepository, number: int) -> Any:
    return await sessions.get(named(f"protected/{number % SESSIONS}"))


async def _trim(sessions: SessionRepository, number: int) -> Any:
    return await sessions.trim(named(f"protected/{number % SESSIONS}"), MESSAGES)


VERBS: Final = {"append": _append, "last 20": _last, "get": _get, "trim": _trim}


async def _opened(started: Postgres, *, protected: bool) -> SessionRepository:
    """A database of its own, filled, and opened as the service."""
    database = Postgresql(started)
    url = await database.create(f"protected_{protected}".lower())
    await upgrade(url)
    await apply_roles(url, row_level_security=protected)
    if not protected:
        await started.execute(f"CREATE ROLE {SERVICE} LOGIN IN ROLE sessionstore_app")
    async with SessionRepository.connect(url) as filling:
        for tenant in range(TENANTS):
            for number in range(SESSIONS):
                messages = [body(at) for at in range(MESSAGES)]
                await filling.for_tenant(f"t{tenant}").append(named(f"protected/{number}"), *messages, create=True)
    await database.settle(url)
    settings = StoreSettings(row_level_security=protected)
    service = url.replace("postgres@", f"{SERVICE}@")
    return await SessionRepository.connect(service, tenant="t5", settings=settings).__aenter__()


if __name__ == "__main__":
    sys.exit(main())
