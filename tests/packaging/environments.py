"""Distributions built from this checkout, and virtual environments that hold them, all without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "sessionstore"


class Built(NamedTuple):
    """What a release uploads."""

    wheel: Path
    sdist: Path


class Ended(NamedTuple):
    """How a program ended."""

    status: int
    output: str
    errors: str


class Environment(NamedTuple):
    """A virtual environment, and a directory that has nothing to do with the checkout."""

    folder: Path
    elsewhere: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        """Where its packages are."""
        return next((self.folder / "lib").glob("python*")) / "site-packages"

    def run(self, program: str, *arguments: str, **variables: str) -> Ended:
        """Run one of its programs from the unrelated directory, with nothing of ours in the surroundings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SESSIONSTORE"))}
        ended = subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.elsewhere,
            env={**kept, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    def python_code(self, code: str, *arguments: str, options: tuple[str, ...] = ()) -> str:
        """Run code in it, isolated from directories and variables, warnings being errors; returns what it prints."""
        ended = self.run("python", "-I", "-W", "error", *options, "-c", code, *arguments)
        assert ended.status == 0, ended.errors
        return ended.output.strip()


def build(root: Path, target: Path) -> Built:
    """Build both distributions, as `pip` and `build` do where they may not download a build backend."""
    _python("-m", "pip", "wheel", "--quiet", *_OFFLINE, "--no-build-isolation", "--wheel-dir", str(target), str(root))
    _python("-c", f"import hatchling.build as backend; backend.build_sdist({str(target)!r})", cwd=root)
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return Built(wheel, sdist)


def names_in(wheel: Path) -> set[str]:
    """The files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def make_environment(folder: Path) -> Environment:
    """An environment that holds what the project declares that it needs, and nothing else.

    The dependencies are links to those of the environment that the tests run in: a requirement that is not declared
    is not there, however much else happens to be installed.
    """
    _python("-m", "venv", "--without-pip", str(folder / "environment"))
    (folder / "elsewhere").mkdir()
    made = Environment(folder / "environment", folder / "elsewhere")
    for needed in _closure(PROJECT):
        for name in _tops(needed):
            link = made.site_packages / name
            if not link.exists():
                link.symlink_to(Path(str(needed.locate_file(name))).resolve())
    return made


def install(environment: Environment, wheel: Path) -> None:
    """Install a wheel without what it depends on."""
    _python("-m", "pip", "--python", str(environment.python), "install", "--quiet", *_OFFLINE, str(wheel))


_OFFLINE = ("--no-index", "--no-deps", "--disable-pip-version-check")


def _python(*arguments: str, cwd: Path | None = None, variables: Mapping[str, str] | None = None) -> None:
    ended = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def _closure(project: str) -> list[Distribution]:
    """What a project requires, directly or not, in the extras that are asked for."""
    found: dict[tuple[str, frozenset[str]], Distribution] = {}
    waiting = list(_required(distribution(project), frozenset()))
    while waiting:
        requirement = waiting.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key not in found:
            found[key] = distribution(requirement.name)
            waiting.extend(_required(found[key], key[1]))
    return list(found.values())


def _required(of: Distribution, extras: frozenset[str]) -> Iterator[Requirement]:
    for line in of.requires or ():
        requirement = Requirement(line)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement


def _tops(of: Distribution) -> set[str]:
    """The names that a distribution has directly in `site-packages`."""
    return {file.parts[0] for file in of.files or () if file.parts[0] not in {"..", "__pycache__"}}
