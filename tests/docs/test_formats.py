"""docs/formats.md: its examples are imported as they stand and come back equal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from sessionstore import Message, SessionRepository
from sessionstore.importers import Export, FilesTarget, Import, JsonLines, LinesTarget, Reading, SessionFiles
from sessionstore.importers.jsonl import KNOWN
from tests.docs.markdown import blocks, read, rows, sections

PAGE = "docs/formats.md"


async def _imported(sessions: SessionRepository, source: Any, **reading: Any) -> None:
    job = Import(sessions, reading=Reading(**reading), on_conflict="error", on_error="stop")
    await job.run([source])
    assert (job.report.failed, job.report.ignored) == (0, {})


async def test_lines_come_back_equal(database_url: str, tmp_path: Path) -> None:
    """H31, F08: what an export writes is what an import read, key by key."""
    lines = "".join(block.code for block in blocks("jsonl", PAGE) if not block.words)
    file = tmp_path / "sessions.jsonl"
    file.write_text(lines)
    written = io.BytesIO()
    async with SessionRepository.connect(database_url) as sessions:
        await _imported(sessions, JsonLines(str(file)))
        await Export(sessions, LinesTarget(written)).run()
    exported = {line["id"]: line for line in map(json.loads, written.getvalue().splitlines())}
    full = json.loads(lines.splitlines()[1])
    assert exported["trip-2"] == full
    assert list(map(json.dumps, exported["trip-2"]["messages"])) == list(map(json.dumps, full["messages"]))
    assert exported["trip-1"]["messages"] == json.loads(lines.splitlines()[0])["messages"]


async def test_a_role_key_leaves_the_body_alone(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("jsonl", PAGE) if "role-key" in block.words)
    file = tmp_path / "sessions.jsonl"
    file.write_text(block.code)
    async with SessionRepository.connect("sqlite://") as sessions:
        await _imported(sessions, JsonLines(str(file)), role_key="speaker")
        (message,) = await sessions.messages("chat-1")
    assert message.role == "USER"
    assert message.body == {"speaker": "USER", "utterance": "Find me a table for two."}


async def test_a_session_file_comes_back_equal(database_url: str, tmp_path: Path) -> None:
    """O04, O06: the export of a session file equals the file."""
    (block,) = blocks("json", PAGE)
    source, target = tmp_path / "in", tmp_path / "out"
    for folder in (source, target):
        folder.mkdir()
    (source / "anything.json").write_text(block.code)
    async with SessionRepository.connect(database_url) as sessions:
        await _imported(sessions, SessionFiles(source))
        transcript = await sessions.snapshot("s-1")
        await Export(sessions, FilesTarget(target, force=False)).run()
    roles = [message.role for message in transcript.messages if isinstance(message, Message)]
    assert roles == ["user", "assistant"]
    (file,) = target.iterdir()
    assert json.loads(file.read_text()) == json.loads(block.code)


def test_every_key_is_explained() -> None:
    explained = [key.strip("` ") for row in rows(sections(read(PAGE))["JSON Lines"])[1:] for key in row[0].split(",")]
    assert sorted(explained) == sorted(KNOWN)


@pytest.mark.parametrize("block", blocks("jsonl", PAGE), ids=lambda block: block.label)
def test_a_line_is_one_line(block: Any) -> None:
    assert block.code.count("\n") == 1
    assert isinstance(json.loads(block.code), dict)
