"""`python -m benchmarks`: the store against its floor, and against its peers if they are installed."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import checks, data, measure, peers, report
from benchmarks.contenders import FLOORS, OURS, STORES, Contender
from benchmarks.data import QUICK, Sizes
from benchmarks.databases import Database, Postgresql, Sqlite, fsync_micros, server, workplace
from benchmarks.measure import Failures, Measured
from benchmarks.workloads import KEYS, Workloads

KINDS = ("sqlite", "postgresql")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, and say whether all results were right."""
    options = _options().parse_args(arguments)
    console = Console() if sys.stdout.isatty() else Console(width=150)
    started, begun = datetime.now(UTC), time.monotonic()
    results: dict[str, Any] = {
        "format": report.FORMAT,
        "started_at": started.isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": report.machine(),
        "databases": {},
    }
    with workplace(options.folder) as folder:
        for kind in KINDS:
            if options.database in {None, kind}:
                with _database(kind, folder) as database:
                    results["databases"][kind] = asyncio.run(_measured(database, folder, options, console))
    results["seconds"] = round(time.monotonic() - begun, 1)
    report.show(results, console)
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(any(database["faults"] for database in results["databases"].values()))


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes and few rounds: does it work at all?")
    parser.add_argument("--only", metavar="W1,W4", type=_keys, default=KEYS, help="these workloads only")
    parser.add_argument("--database", choices=KINDS, help="this database only")
    parser.add_argument("--peers", action="store_true", help="other stores too (the extra `peers`)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as well")
    parser.add_argument("--folder", type=Path, help="where the databases are made, on the disk to be measured")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which contenders have their turns")
    return parser


@contextlib.contextmanager
def _database(kind: str, folder: Path) -> Iterator[Database]:
    if kind == "sqlite":
        yield Sqlite(folder)
        return
    with server() as started:
        yield Postgresql(started)


async def _measured(database: Database, folder: Path, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure everything on one database."""
    sizes = QUICK if options.quick else Sizes()
    page = fsync_micros(folder)
    ours = (*FLOORS[database.kind], *STORES)
    faults = await checks.same_effects(database, ours)
    others, skipped = peers.installed(database.kind) if options.peers else ([], [])
    with console.status(f"{database.kind}: filling databases"):
        done = Workloads(sizes, database)
        groups = [group for group in done.groups() if group.workloads[0].key.partition("/")[0] in options.only]
        if any(workload.verb == "prune" for group in groups for workload in group.workloads):
            done.prune_template = await database.build("prune", list(data.pruned_sessions(sizes)))
        urls, contenders = await _opened(database, done, [*ours, *others])
    measured: Measured = {}
    failures = Failures()
    source = random.Random(options.seed)
    # Whatever lives by now stays: the collections between turns need not look at it again.
    gc.collect()
    gc.freeze()
    for at, group in enumerate(groups, 1):
        with console.status(f"{database.kind}: {at} of {len(groups)}, {group.workloads[0].title}"):
            seconds = sizes.seconds * (1 + len(others))
            measured |= await measure.run(
                group, contenders, failures, rounds=sizes.rounds, seconds=seconds, source=source
            )
    found = await checks.after(database, done, contenders, urls)
    faults += found.faults
    notes = [*skipped, *failures.values(), *found.of_peers]
    for contender in contenders.values():
        await contender.close()
    for url in urls.values():
        await database.drop(url)
    workloads = [workload for group in groups for workload in group.workloads]
    results = report.of_database(database, workloads, measured)
    return {"fsync_us": round(page, 1)} | results | {"notes": notes, "faults": faults}


def _keys(text: str) -> tuple[str, ...]:
    wanted = tuple(name.strip().upper() for name in text.split(","))
    if not set(wanted) <= set(KEYS):
        raise argparse.ArgumentTypeError(f"there are {', '.join(KEYS)}")
    return wanted


async def _opened(
    database: Database, done: Workloads, kinds: Sequence[Any]
) -> tuple[dict[str, str], dict[str, Contender]]:
    """Give each contender a database of its own with the same content."""
    seeded = list(done.seeded())
    template = await database.build("template", seeded)
    urls, contenders = {}, {}
    for at, kind in enumerate(kinds):
        if kind.needs == OURS:
            url = await database.copy(template, f"contender_{at}")
        else:
            url = await database.create(f"contender_{at}")
            await kind.prepare(url, seeded)
        urls[kind.name] = url
        contenders[kind.name] = await kind.open(url)
    await database.drop(template)
    await database.calm()
    return urls, contenders


if __name__ == "__main__":
    sys.exit(main())
