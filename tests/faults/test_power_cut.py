"""A power cut under a SQLite file: of all that was written only what had been synchronised is left."""

from __future__ import annotations

import asyncio
import random
import shutil
from typing import TYPE_CHECKING

import pytest

from sessionstore import SessionRepository
from tests.support import templates
from tests.support.faults_counts import figure, rounds
from tests.support.faults_history import SHARED, History, Writer
from tests.support.faults_power import STRACE, Event, recorded, survivors
from tests.support.faults_processes import Worker
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(
        shutil.which("strace") is None, reason="needs strace (on Debian and Ubuntu: apt install strace)"
    ),
]

TASKS = 4
FILLER = 3000
"""Characters of a body: enough for the log to be folded into the file a few times."""


@pytest.fixture
def home(sqlite_template: Path, tmp_path: Path) -> Path:
    """A folder with a SQLite file that holds the shared session, and nothing else."""
    folder = tmp_path / "home"
    folder.mkdir()
    asyncio.run(_begin(sqlite_url(templates.copy_sqlite(sqlite_template, folder / "sessions.db"))))
    return folder


async def _begin(url: str) -> None:
    async with SessionRepository.connect(url) as repository:
        await repository.create(SHARED)


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.iterdir()}


async def _record(file: Path, trace: Path, durability: str) -> list[Event]:
    """Let a process append to a file until it has done so often enough, and close."""
    options = {"name": "w", "tasks": TASKS, "batches": rounds(60, 150), "filler": FILLER, "durability": durability}
    writer = await Worker.start("write", sqlite_url(file), before=(*STRACE, str(trace)), **options)
    writer.go()
    await writer.ended()
    return recorded(trace, file.parent)


def _cuts(events: Sequence[Event], count: int, chance: random.Random) -> list[int]:
    """Moments to cut at: half of them just after somebody was told, when everything before must hold."""
    told = [at + 1 for at, event in enumerate(events) if event.told and "batch" in event.told]
    return chance.sample(told, count // 2) + chance.sample(range(told[0], len(events)), count - count // 2)


def _told(events: Sequence[Event]) -> History:
    history = History()
    for event in events:
        if event.told and "batch" in event.told:
            history.acknowledged[event.told["batch"]] = event.told["positions"]
    return history


def _restart(left: dict[str, bytes], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in left.items():
        (folder / name).write_bytes(content)


async def _lost(folder: Path, history: History, everything: History) -> int:
    """Go on after a cut; how many of the acknowledged appends are gone. Nothing else may be wrong."""
    url = sqlite_url(folder / "sessions.db")
    after = History(unknown=everything.acknowledged.keys() | history.unknown)
    async with SessionRepository.connect(url) as repository:
        await Writer(repository, after, "after", with_ids=True).append()
    messages = (await after.check(url)).messages["", SHARED]
    return len(history.lost(messages))


@pytest.mark.parametrize("durability", ["full", "normal"])
async def test_power_cut(durability: str, home: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """P1: after a power cut every acknowledged append is there; with durability="normal" the newest are not."""
    before = _files(home)
    events = await _record(home / "sessions.db", tmp_path / "trace", durability)
    chance = random.Random(3)
    everything = _told(events)
    cuts = _cuts(events, rounds(6, 40), chance)
    lossy = lost = 0
    for cut in cuts:
        history = _told(events[:cut])
        for some in (None, chance):
            left = survivors(home, before, events[:cut], chance=some)
            _restart(left, tmp_path / "after")
            gone = await _lost(tmp_path / "after", history, everything)
            lossy += bool(gone)
            lost += gone
    figure(request, cuts=len(cuts), replays=2 * len(cuts), acknowledged=len(everything.acknowledged))
    figure(request, replays_with_loss=lossy, lost=lost, corrupt=0)
    assert bool(lost) == (durability == "normal")
    # The recording saw what it must see: the log written, synchronised, and folded into the file.
    assert {event.path.name for event in events if event.what == "synced"} >= {"sessions.db", "sessions.db-wal"}
