"""Real conversations there and back, where the recorded sets are present."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.import_roundtrip import SETS, roundtrip
from tests.support.templates import sqlite_url

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


NAME = "taubench_airline"


@pytest.fixture
def recorded() -> Path:
    path = FOLDER / f"{NAME}.jsonl.gz"
    if not path.exists():
        pytest.skip(f"the recorded conversations are not part of the repository: no {path}")
    return path


@pytest.mark.processes
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_hundred_conversations_there_and_back(
    request: pytest.FixtureRequest, recorded: Path, tmp_path: Path, database: str
) -> None:
    """F15: every body comes back equal, key order included, and a second import changes nothing."""
    fixture = "sqlite_file" if database == "sqlite" else "postgres_database"
    place = request.getfixturevalue(fixture)
    url = sqlite_url(place) if database == "sqlite" else place
    outcome = roundtrip(recorded, SETS[NAME], url, tmp_path)
    assert (outcome.imported["created"], outcome.imported["messages"]) == (200, 5308)
    assert outcome.exported["sessions"] == 200
