"""What the tests of import and export share."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import SessionRepository
from sessionstore.importers import Export, Import, ImportReport, JsonLines, LinesTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def sessions(database_url: str) -> AsyncIterator[SessionRepository]:
    async with SessionRepository.connect(database_url) as repository:
        yield repository


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., JsonLines]:
    """Makes a file of lines, each an object or text as it is."""

    def write(*entries: Any, name: str = "sessions.jsonl") -> JsonLines:
        texts = [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]
        path = tmp_path / name
        path.write_text("".join(f"{text}\n" for text in texts))
        return JsonLines(str(path))

    return write


async def imported(sessions: SessionRepository, source: Any, **options: Any) -> ImportReport:
    """Import one source; the report."""
    job = Import(sessions, **options)
    await job.run([source])
    return job.report


async def exported(sessions: SessionRepository, *session_ids: str, **options: Any) -> bytes:
    """Everything, or the named sessions, as JSON Lines."""
    written = io.BytesIO()
    await Export(sessions, LinesTarget(written), **options).run(session_ids)
    return written.getvalue()
