"""What is in the wheel and in the sdist."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import pytest

from tests.packaging import environments
from tests.packaging.environments import ROOT, Built, names_in

pytestmark = pytest.mark.processes


def _files(folder: str) -> set[str]:
    """The files of a folder of the checkout, caches left out."""
    paths = (ROOT / folder).rglob("*")
    return {path.relative_to(ROOT).as_posix() for path in paths if path.is_file() and "__pycache__" not in path.parts}


def _metadata(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return dict(HeaderParser().parsestr(archive.read(name).decode()))


def test_the_wheel_holds_the_package_its_migrations_and_nothing_else(built: Built) -> None:
    about = re.sub(r"-py3-none-any\.whl$", ".dist-info", built.wheel.name)
    expected = _files("sessionstore")
    expected |= {f"sessionstore/_alembic/{name}" for name in {"alembic.ini", *_files("migrations")}}
    expected |= {f"{about}/{name}" for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")}
    assert names_in(built.wheel) == expected


def test_the_wheel_is_typed_and_has_every_revision(built: Built) -> None:
    names = names_in(built.wheel)
    assert "sessionstore/py.typed" in names
    revisions = {path.name for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py")}
    assert "0001_initial.py" in revisions
    assert revisions <= {Path(name).name for name in names if "/_alembic/migrations/versions/" in name}


def test_the_files_of_the_wheel_are_those_of_the_checkout(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        for name in archive.namelist():
            if name.startswith("sessionstore/"):
                source = ROOT / name.replace("sessionstore/_alembic/", "", 1)
                assert archive.read(name) == source.read_bytes(), name


def test_the_sdist_builds_the_same_wheel(built: Built, tmp_path: Path) -> None:
    with tarfile.open(built.sdist) as archive:
        # The first releases of Python 3.11 know no filter; later ones warn without it.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **safely)  # noqa: S202  # this run has packed it itself
    (unpacked,) = tmp_path.iterdir()
    again = environments.build(unpacked, tmp_path / "dist")
    assert names_in(again.wheel) == names_in(built.wheel)


def test_the_sdist_has_what_its_tests_need(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "Makefile", "constraints.txt", "LICENSE", "README.md", "CHANGELOG.md"} <= names
    assert {"tests/conftest.py", "docs/schema.md", "mkdocs.yml", "migrations/versions/0001_initial.py"} <= names
    assert not {name for name in names if name.startswith(".venv") or name.endswith((".pyc", ".db"))}


def test_the_version_is_the_newest_of_the_changelog(built: Built) -> None:
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert _metadata(built.wheel)["Version"] == newest[1]


def test_the_readme_is_the_description(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        assert (ROOT / "README.md").read_text().strip() in archive.read(name).decode()
