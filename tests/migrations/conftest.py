"""Empty databases of both kinds, processes that migrate together, and revisions that exist in one test only."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from sessionstore import revisions as revisions_module
from tests.migrations.revisions import Revisions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that no migration has touched; on SQLite not even the file exists."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'sessions.db'}"
    return str(request.getfixturevalue("postgres_empty"))


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Revisions]:
    """A copy of our migrations that a test may add revisions to."""
    folder = tmp_path / "migrations"
    shutil.copytree(revisions_module.location(), folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(revisions_module, "location", lambda: folder)
    revisions_module.known.cache_clear()
    yield Revisions(folder)
    revisions_module.known.cache_clear()
