"""Write docs/behaviours.md and the promises in README.md and docs/guarantees.md: `python -m tests.docs.behaviours`.

A test names the rows that it proves in the first line of its docstring: `H03: ...` or `X02, P2: ...`.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from tests.docs.markdown import ROOT
from tests.docs.rows import ALSO, BEHAVIOURS, GROUPS, MEASURED, NAMELESS, OUTSIDE, PROMISES

PAGE: Final = ROOT / "docs" / "behaviours.md"
README: Final = ROOT / "README.md"
GUARANTEES: Final = ROOT / "docs" / "guarantees.md"

_NAMED: Final = re.compile(r"^((?:[HFOXP]\d+, )*[HFOXP]\d+): ")
_GENERATED: Final = re.compile(r"(?<=<!-- promises -->\n).*?(?=<!-- end -->\n)", re.DOTALL)
_FIXTURES: Final = {"sqlite_file": "SQLite", "sqlite_template": "SQLite"}


class Proof(NamedTuple):
    """A test that names rows: where it is, and the databases it runs on."""

    test: str
    rows: tuple[str, ...]
    databases: tuple[str, ...]

    @property
    def file(self) -> str:
        """The file of the test."""
        return self.test.partition("::")[0]


class Collector:
    """Collects the tests that name rows."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[tuple[str, ...], set[str]]] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Note which test names which rows."""
        for item in items:
            test, _, parameters = item.nodeid.partition("[")
            named = _NAMED.match(getattr(getattr(item, "function", None), "__doc__", None) or "")
            rows = tuple(named[1].split(", ")) if named else NAMELESS.get(test, ())
            if rows:
                _, databases = self.found.setdefault(test, (rows, set()))
                databases |= _databases(parameters, getattr(item, "fixturenames", ()))


def _databases(parameters: str, fixtures: Iterable[str]) -> set[str]:
    found = {_FIXTURES[name] for name in fixtures if name in _FIXTURES}
    if "sqlite" in parameters:
        found.add("SQLite")
    if "postgres" in parameters or any("postgres" in name for name in fixtures):
        found.add("PostgreSQL")
    return found


def collect() -> list[Proof]:
    """Ask pytest for the tests, in a process of its own: it may be asked by a test."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.docs.behaviours", "--collect"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise RuntimeError(ended.stdout + ended.stderr)
    return [Proof(test, tuple(rows), tuple(databases)) for test, rows, databases in json.loads(ended.stdout)]


def _collect_here() -> int:
    collector = Collector()
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        status = pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", "tests"], plugins=[collector])
    if status:
        sys.stderr.write(output.getvalue()[-4000:])
        return int(status)
    found = [(test, rows, sorted(databases, reverse=True)) for test, (rows, databases) in collector.found.items()]
    sys.stdout.write(json.dumps(sorted(found)))
    return 0


def proofs_of(row: str, proofs: Iterable[Proof]) -> list[Proof]:
    """The tests that name a row."""
    return [proof for proof in proofs if row in proof.rows]


def page(proofs: list[Proof]) -> str:
    """docs/behaviours.md as it should be."""
    parts = [HEAD]
    for letter, title in GROUPS.items():
        parts.append(f"\n## {letter}: {title}\n\n| row | behaviour | proved by | on |\n|---|---|---|---|\n")
        for row, text in BEHAVIOURS.items():
            if row.startswith(letter):
                parts.append(f"| {row} | {text} | {_tests(row, proofs)} | {_on(proofs_of(row, proofs))} |\n")
    return "".join(parts)


HEAD: Final = """# Behaviours and their tests

Every behaviour of the store, the tests that prove it, and the databases that these tests run on. Most run on three:
SQLite in a file, SQLite in memory, PostgreSQL. A test names its rows in the first line of its docstring.

This page is written by `python -m tests.docs.behaviours`; a test fails when it is out of date.
"""


def _tests(row: str, proofs: list[Proof]) -> str:
    names: dict[str, list[str]] = {}
    for proof in proofs_of(row, proofs):
        names.setdefault(proof.file, []).append(proof.test.rpartition("::test_")[2].replace("_", " "))
    return "; ".join(f"{_link(file, '../')}: {', '.join(each)}" for file, each in names.items()) or "**nothing**"


def _link(file: str, to_root: str = "") -> str:
    return f"[{file.removeprefix('tests/').removesuffix('.py')}]({to_root}{file})"


def _on(proofs: list[Proof]) -> str:
    found = {database for proof in proofs for database in proof.databases}
    return ", ".join(sorted(found, reverse=True)) or ("no database" if proofs else "")


def readme() -> str:
    """README.md as it should be: the short form."""
    lines = ["| | promise | measured |", "|---|---|---|"]
    lines += [f"| {promise} | {text} | {MEASURED[promise]} |" for promise, text in PROMISES.items()]
    return _with(README, lines)


def guarantees(proofs: list[Proof]) -> str:
    """docs/guarantees.md as it should be."""
    lines = ["| | promise | proved by | measured | outside of it |", "|---|---|---|---|---|"]
    for promise, text in PROMISES.items():
        files = {proof.file for proof in proofs_of(promise, proofs)}
        files = files or {proof.file for row in ALSO.get(promise, ()) for proof in proofs_of(row, proofs)}
        links = ", ".join(_link(file, "../") for file in sorted(files))
        lines.append(f"| {promise} | {text} | {links or '-'} | {MEASURED[promise]} | {OUTSIDE[promise]} |")
    return _with(GUARANTEES, lines)


def _with(page_: Path, lines: list[str]) -> str:
    return _GENERATED.sub(lambda _: "\n" + "\n".join(lines) + "\n\n", page_.read_text())


def main(arguments: list[str]) -> Any:
    """Write the pages."""
    if arguments == ["--collect"]:
        return _collect_here()
    proofs = collect()
    for path, text in ((PAGE, page(proofs)), (README, readme()), (GUARANTEES, guarantees(proofs))):
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(f"wrote {path.relative_to(ROOT)}")  # noqa: T201  # it is a program
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
