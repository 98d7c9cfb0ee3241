"""Recorded conversations in and out through the command line, on both databases: are they what they were, and how fast?

    python -m benchmarks.import_roundtrip [FOLDER] [--only NAME] [--sqlite | --postgresql]

For each set: import into a fresh database, export, compare every body with its source (types, signs and key order
included), import again with `--on-conflict skip`, and compare the export to the byte. FOLDER holds `*.jsonl.gz`.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sessionstore import codec, limits
from tests.support.postgres import PostgresServer

FOLDER: Final = Path("../shared/data")

SETS: Final = {
    "taubench_airline": (),
    "oasst_en_validation": (),
    "provider_wire_a": ("--default-role", "item"),
    "intercode_a": (),
    "sgd_train": ("--role-key", "speaker"),
}
"""The sets, and what has to be said of each: how its messages name the speaker."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One set, there and back.

    Attributes:
        imported, exported: the reports of the commands.
        skipped_seconds: how long the second import took.
        import_megabytes, export_megabytes: the most memory that each took.
    """

    imported: dict[str, Any]
    exported: dict[str, Any]
    skipped_seconds: float
    import_megabytes: int
    export_megabytes: int


def run(database: str, *arguments: str) -> tuple[dict[str, Any], int]:
    """Run a command of the installed package; its report, and the most memory it took in megabytes.

    Raises:
        RuntimeError: it failed.
    """
    environment = {**os.environ, "SESSIONSTORE_DATABASE_URL": database}
    command = [sys.executable, "-m", "sessionstore", *arguments, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}: {errors.decode()}")
    return json.loads(output), usage.ru_maxrss // 1024


def roundtrip(source: Path, options: tuple[str, ...], database: str, folder: Path) -> Outcome:
    """Take a set there and back.

    Raises:
        RuntimeError: a command failed.
        AssertionError: something is not what it was.
    """
    run(database, "db", "upgrade")
    imported, import_megabytes = run(database, "import", str(source), *options)
    first, second = folder / "first.jsonl.gz", folder / "second.jsonl"
    exported, export_megabytes = run(database, "export", str(first))
    expected = dict(digests(source))
    assert imported["created"] == exported["sessions"] == len(expected), "sessions are missing"
    assert dict(digests(first)) == expected, "bodies are not what they were"
    again, _ = run(database, "import", str(source), *options, "--on-conflict", "skip")
    assert (again["created"], again["replaced"], again["skipped"]) == (0, 0, len(expected)), "not all was skipped"
    run(database, "export", str(second))
    with gzip.open(first) as before, second.open("rb") as after:
        assert hashlib.file_digest(before, "sha256").digest() == hashlib.file_digest(after, "sha256").digest(), (
            "the second import changed something"
        )
    first.unlink()
    second.unlink()
    return Outcome(imported, exported, again["seconds"], import_megabytes, export_megabytes)


def digests(path: Path) -> Iterator[tuple[str, bytes]]:
    """The ids of a file's sessions, each with a digest of its messages: equal only if type, sign and key order are."""
    with gzip.open(path) as lines:
        for line in lines:
            session = json.loads(line)
            digest = hashlib.sha256()
            for message in session["messages"]:
                text = codec.encode(message, max_bytes=limits.INT64_MAX, max_depth=limits.DEPTH).text
                digest.update(text.encode() + b"\n")
            yield session["id"], digest.digest()


def _report(name: str, database: str, outcome: Outcome) -> None:
    put, got = outcome.imported, outcome.exported
    print(
        f"{name:<22}{database:<12}{put['created']:>8,}{put['messages']:>10,}"
        f"{put['messages'] / put['seconds']:>10,.0f}{put['bytes'] / put['seconds'] / 1e6:>8.1f}"
        f"{outcome.import_megabytes:>6}"
        f"{got['messages'] / got['seconds']:>10,.0f}{got['bytes'] / got['seconds'] / 1e6:>8.1f}"
        f"{outcome.export_megabytes:>6}{outcome.skipped_seconds:>8.1f}",
        flush=True,
    )


def main() -> None:
    """Take every set there and back, and print the rates."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.import_roundtrip")
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the *.jsonl.gz are")
    parser.add_argument("--only", choices=SETS, action="append", help="only this set")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--sqlite", action="store_true", help="only on SQLite")
    where.add_argument("--postgresql", action="store_true", help="only on PostgreSQL")
    wanted = parser.parse_args()
    print(f"{'set':<22}{'database':<12}{'sessions':>8}{'messages':>10}{'in/s':>10}{'MB/s':>8}{'MB':>6}", end="")
    print(f"{'out/s':>10}{'MB/s':>8}{'MB':>6}{'again s':>8}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sessionstore-roundtrip-")))
        server = None if wanted.sqlite else stack.enter_context(PostgresServer(fsync=True))
        for name in wanted.only or SETS:
            source = wanted.folder / f"{name}.jsonl.gz"
            if not wanted.postgresql:
                _report(name, "sqlite", roundtrip(source, SETS[name], f"sqlite:///{folder / name}.db", folder))
            if server is not None:
                database = asyncio.run(server.create_database(name))
                _report(name, "postgresql", roundtrip(source, SETS[name], database, folder))


if __name__ == "__main__":
    main()
