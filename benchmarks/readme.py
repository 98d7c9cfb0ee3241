"""Write the ratios of a run into a page: `python -m benchmarks.readme results.json README.md`, between its markers."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.contenders import Store

_PLACE: Final = re.compile(r"(?<=<!-- speed -->\n).*?(?=<!-- end -->)", re.DOTALL)
_TITLES: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Read results, renew a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("results", type=Path, help="what `python -m benchmarks --peers --json` wrote")
    parser.add_argument("page", type=Path, help="a page with <!-- speed --> and <!-- end -->")
    options = parser.parse_args(arguments)
    table = "\n".join(["", *lines(json.loads(options.results.read_text())), ""]) + "\n"
    page = options.page.read_text()
    if not _PLACE.search(page):
        sys.exit(f"{options.page} has no <!-- speed --> ... <!-- end -->")
    options.page.write_text(_PLACE.sub(lambda _: table, page, count=1))
    return 0


def lines(results: dict[str, Any]) -> Iterator[str]:
    """The table: for each workload and database how many times the floor the store takes, and the fastest peer."""
    databases = results["databases"]
    heads = [f"{_TITLES[kind]} | {'to one hop | ' * _hops(kind)}fastest other" for kind in databases]
    yield "| times the floor | " + " | ".join(heads) + " |"
    yield "|---" * (1 + 2 * len(databases) + sum(map(_hops, databases))) + "|"
    rows = {kind: {row["key"]: row for row in database["workloads"]} for kind, database in databases.items()}
    for key, row in next(iter(rows.values())).items():
        cells = [_cells(kind, rows[kind][key], databases[kind]) for kind in databases]
        yield f"| {row['title']} | " + " | ".join(cells) + " |"


def _hops(kind: str) -> bool:
    return kind == "sqlite"


def _cells(kind: str, row: dict[str, Any], database: dict[str, Any]) -> str:
    hop = f"{'' if row['key'] == report.FLAT[0] else report.to_hop(row['contenders'])} | " if _hops(kind) else ""
    return f"{_store(row)} | {hop}{_fastest(row, database)}"


def _store(row: dict[str, Any]) -> str:
    return f"{row['contenders'][Store.name]['ratio']:.2f}"


def _fastest(row: dict[str, Any], database: dict[str, Any]) -> str:
    known = report.peer_names(database)
    found = [(entry["ratio"], name) for name, entry in row["contenders"].items() if name in known and "ratio" in entry]
    if not found or row["key"] == report.FLAT[0]:
        return ""
    ratio, name = min(found)
    return f"{ratio:,.1f} ({name})" if ratio < 100 else f"{ratio:,.0f} ({name})"


if __name__ == "__main__":
    sys.exit(main())
