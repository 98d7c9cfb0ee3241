"""Draw the ratios of a run: `python -m benchmarks.plot results.json docs/benchmarks.svg` (the extra `bench`)."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.contenders import FLOOR, Store, StoreOnEngine

_OURS: Final = "#1a6fb5"
_GREY: Final = "#8a8f98"
_TARGET: Final = "#c0392b"
_MARKERS: Final = ("v", "s", "^", "D", "P", "X")
_TITLES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read results, write a picture."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("results", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("picture", type=Path, help="an .svg or .png")
    options = parser.parse_args(arguments)
    try:
        draw(json.loads(options.results.read_text()), options.picture)
    except ImportError as error:
        sys.exit(f"{error}: install the extra `bench`")
    return 0


def draw(results: dict[str, Any], picture: Path) -> None:
    """Draw a panel for each database: a row for each workload, its ratios on a logarithmic axis."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    # Text stays text, and equal results make equal files.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "sessionstore", "font.size": 8})
    pyplot = importlib.import_module("matplotlib.pyplot")
    databases = results["databases"]
    for database in databases.values():
        # That one is not a ratio to the floor.
        database["workloads"] = [row for row in database["workloads"] if row["key"] != report.FLAT[0]]
    most = max(len(database["workloads"]) for database in databases.values())
    figure, axes = pyplot.subplots(
        1, len(databases), figsize=(4.6 * len(databases), 1.5 + 0.26 * most), squeeze=False, layout="constrained"
    )
    markers = _markers(databases)
    for axis, (kind, database) in zip(axes[0], databases.items(), strict=True):
        _panel(axis, f"{_TITLES[kind]} {database['version']}", database["workloads"], markers)
    handles: dict[str, Any] = {}
    for axis in axes[0]:
        handles |= {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, frameon=False)
    machine = results["machine"]
    figure.suptitle(
        f"Time a call takes, as a multiple of hand-written SQL on the bare driver (Python {machine['python']}, "
        f"{machine['processors']} processors)",
        fontsize=9,
    )
    figure.savefig(picture, dpi=150, metadata={"Date": None} if picture.suffix == ".svg" else None)
    pyplot.close(figure)


def _markers(databases: dict[str, Any]) -> dict[str, str]:
    """A marker for each peer, the same in all panels."""
    names = {name: None for database in databases.values() for name in report.peer_names(database)}
    return dict(zip(sorted(names), _MARKERS, strict=False))


def _panel(axis: Any, title: str, rows: list[dict[str, Any]], markers: dict[str, str]) -> None:
    places = range(len(rows))
    axis.axvline(1, color="black", linewidth=0.8, label=FLOOR)
    targets = [(row["target"], at) for row, at in zip(rows, places, strict=True) if not isinstance(row["target"], str)]
    axis.scatter(*zip(*targets, strict=True), marker="|", s=90, color=_TARGET, linewidths=1.6, label="target")
    for name, marker in markers.items():
        _points(axis, rows, name, marker=marker, s=14, color=_GREY, linewidths=0, alpha=0.9)
    _points(axis, rows, StoreOnEngine.name, marker="o", s=22, facecolors="none", edgecolors=_OURS, linewidths=1)
    _points(axis, rows, Store.name, marker="o", s=30, color=_OURS, linewidths=0, zorder=3)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_yticks(list(places), [row["title"] for row in rows])
    axis.invert_yaxis()
    axis.grid(axis="x", which="major", linewidth=0.4, color="#dddddd")
    axis.set_axisbelow(True)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    axis.set_title(title, fontsize=9, loc="left")


def _points(axis: Any, rows: list[dict[str, Any]], name: str, **style: Any) -> None:
    found = [(row["contenders"][name]["ratio"], at) for at, row in enumerate(rows) if name in row["contenders"]]
    if found:
        axis.scatter(*zip(*found, strict=True), label=name, **style)


if __name__ == "__main__":
    sys.exit(main())
