"""The results: as plain values that become JSON, and as tables."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import BYTES, FLOOR, HOP, Store, StoreOnEngine
from benchmarks.databases import Database
from benchmarks.measure import Measured, Series, Workload

FORMAT: Final = 1

ONE_HOP: Final = "one hop"
"""What cannot be a ratio: the floor of a read in memory is a function call, and a thread is not."""

TARGETS: Final[dict[str, dict[str, float | str]]] = {
    "W1/10": {"sqlite": 1.6, "postgresql": 1.3},
    "W1/1000": {"sqlite": 1.6, "postgresql": 1.3},
    "W1/10000": {"sqlite": 1.6, "postgresql": 1.3},
    "W1/flat": {"sqlite": 1.2, "postgresql": 1.2},
    "W2/own": {"sqlite": 0.4, "postgresql": 1.2},
    "W2/one": {"sqlite": 0.4, "postgresql": 0.2},
    "W3": {"sqlite": 1.2, "postgresql": 1.25},
    "W4/all": {"sqlite": 1.1, "postgresql": 1.0},
    "W4/last": {"sqlite": 2.5, "postgresql": 1.3},
    "W5": {"sqlite": 2.5, "postgresql": 1.4},
    "W6": {"sqlite": 1.2, "postgresql": 1.2},
    "W7/trim": {"sqlite": 1.3, "postgresql": 1.3},
    "W7/prune": {"sqlite": 1.3, "postgresql": 1.3},
    "W8/get": {"sqlite": ONE_HOP, "postgresql": 1.5},
    "W8/create": {"sqlite": 1.4, "postgresql": 1.4},
}
"""How many times the floor a call through `connect()` may take; `W1/flat`: its own at 10,000 messages against at 10."""

FLAT: Final = ("W1/flat", "append at 10,000 against at 10", "W1/10000", "W1/10")

Results = dict[str, Any]


def machine() -> dict[str, Any]:
    """Where it was measured: absolute times mean nothing elsewhere."""
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
    }


def of_database(database: Database, workloads: Iterable[Workload], measured: Measured) -> Results:
    """The results of one database."""
    rows = [_row(database.kind, workload, measured[workload.key]) for workload in workloads if measured[workload.key]]
    flat = _flat(database.kind, measured)
    if flat is not None:
        place = 1 + max(at for at, row in enumerate(rows) if row["key"].startswith("W1/"))
        rows.insert(place, flat)
    return {"version": database.version, "workloads": rows}


def _row(kind: str, workload: Workload, series: dict[str, Series]) -> Results:
    floor = series[FLOOR]
    contenders = {
        name: {
            "median_us": round(one.median, 2),
            "calls": one.calls,
            "rounds": len(one.rounds),
            **({} if name == FLOOR else spread(one.ratios(floor))),
        }
        for name, one in series.items()
        if any(one.rounds.values())
    }
    return _judged(kind, workload.key, workload.title, contenders)


def _flat(kind: str, measured: Measured) -> Results | None:
    key, title, many, few = FLAT
    contenders = {
        name: spread(measured[many][name].ratios(series))
        for name, series in measured.get(few, {}).items()
        if name in measured.get(many, {})
    }
    return _judged(kind, key, title, contenders) if contenders else None


def spread(ratios: Sequence[float]) -> dict[str, float]:
    """The median of ratios, and the quarters around it."""
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [*ratios] * 3
    return {"ratio": round(statistics.median(ratios), 3), "low": round(low, 3), "high": round(high, 3)}


def _judged(kind: str, key: str, title: str, contenders: Results) -> Results:
    target = TARGETS[key][kind]
    ours = contenders.get(Store.name)
    met = None if ours is None or isinstance(target, str) else ours["ratio"] <= target
    return {"key": key, "title": title, "target": target, "met": met, "contenders": contenders}


# -- tables ------------------------------------------------------------------------------------------------------------


def show(results: Results, console: Console) -> None:
    """Print the tables of a run."""
    for kind, database in results["databases"].items():
        console.print(_main_table(kind, database))
        for row in database["workloads"]:
            other = row["contenders"].get(BYTES)
            ours = row["contenders"].get(Store.name)
            if other is not None and ours is not None:
                console.print(
                    f"{row['key']}: the floor reads bodies as str, the driver's default. As bytes, as the store does, "
                    f"{_time(other['median_us'])}; connect() took {ours['ratio'] / other['ratio']:.2f} times that."
                )
        peers = peer_names(database)
        if peers:
            console.print(_peer_table(kind, database, peers))
        for note in database["notes"]:
            console.print(note)
        for fault in database["faults"]:
            console.print(f"[bold red]WRONG[/] {fault}")
    console.print(
        "Ratios are medians of the ratios within a round; only they mean anything, and only within one run."
        f" Took {results['seconds']:.0f} s."
    )


def peer_names(database: Results) -> list[str]:
    """Whoever is neither the store nor the floor."""
    known = {FLOOR, BYTES, HOP, Store.name, StoreOnEngine.name}
    names = {name: None for row in database["workloads"] for name in row["contenders"] if name not in known}
    return list(names)


def _main_table(kind: str, database: Results) -> Table:
    title = f"{kind} {database['version']}, one page to the disk: {_time(database['fsync_us'])}"
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("workload")
    for heading in ("floor", "connect()", "ratio", "quarters", "target", "to one hop", "own engine", "ratio"):
        table.add_column(heading, justify="right")
    for row in database["workloads"]:
        floor, ours, engine = (row["contenders"].get(name, {}) for name in (FLOOR, Store.name, StoreOnEngine.name))
        verdict = {True: "[green]", False: "[bold red]", None: ""}[row["met"]]
        target = row["target"] if isinstance(row["target"], str) else f"{row['target']:g}"
        table.add_row(
            row["key"],
            row["title"],
            _time(floor.get("median_us")),
            _time(ours.get("median_us")),
            f"{verdict}{_ratio(ours)}",
            f"[dim]{_quarters(ours)}",
            target,
            "" if row["key"] == FLAT[0] else to_hop(row["contenders"]),
            _time(engine.get("median_us")),
            _ratio(engine),
        )
    return table


def _peer_table(kind: str, database: Results, peers: Sequence[str]) -> Table:
    table = Table(title=f"{kind}: times the floor", title_justify="left")
    table.add_column("", no_wrap=True)
    table.add_column("workload")
    for name in (Store.name, *peers):
        table.add_column(name, justify="right")
    for row in database["workloads"]:
        if any(name in row["contenders"] for name in peers):
            ratios = [_ratio(row["contenders"].get(name, {})) for name in (Store.name, *peers)]
            table.add_row(row["key"], row["title"], *ratios)
    return table


def to_hop(contenders: Results) -> str:
    """How many times the floor in a thread of its own `connect()` takes."""
    hop, ours = contenders.get(HOP), contenders.get(Store.name)
    return f"{ours['ratio'] / hop['ratio']:.2f}" if hop and ours else ""


def _time(micros: float | None) -> str:
    if micros is None:
        return "-"
    if micros >= 10_000:
        return f"{micros / 1000:,.1f} ms"
    return f"{micros:,.0f} us" if micros >= 100 else f"{micros:.1f} us"


def _ratio(entry: Results) -> str:
    ratio = entry.get("ratio")
    if ratio is None:
        return "-"
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _quarters(entry: Results) -> str:
    return f"{entry['low']:.2f}-{entry['high']:.2f}" if "low" in entry else ""
