"""Sessions out of the store: all of them, each as of one moment."""

from __future__ import annotations

import gzip
import io
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import NewMessage, SessionNotFoundError, SessionRepository, Transcript
from sessionstore.importers import Export, ExportReport, Fault, FilesTarget, LinesTarget, StoppedError
from sessionstore.importers import exporting as module
from sessionstore.importers.targets import gzipped
from tests.importers.conftest import exported
from tests.support.repositories import execute

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MOMENT = datetime(2025, 1, 1, 12, 0, 0, 1000, tzinfo=UTC)


def ids(written: bytes) -> list[str]:
    return [json.loads(line)["id"] for line in written.splitlines()]


async def fill(sessions: SessionRepository, count: int, **columns: Any) -> None:
    """Sessions s0, s1, ... each a second younger than the one before."""
    for at in range(count):
        moment = MOMENT - timedelta(seconds=at)
        await sessions.save(Transcript.of(f"s{at}", [{"role": "user", "n": at}], updated_at=moment, **columns))


async def test_a_line(sessions: SessionRepository) -> None:
    """H22, H30: bodies are written as they are stored; what is known beside them stands beside them."""
    messages = [
        NewMessage({"z": 1.0, "role": "user", "a": "\0"}, message_id="m1", created_at=MOMENT),
        NewMessage({"b": 2**70}, role="tool", created_at=MOMENT),
    ]
    columns = {"title": "", "user_id": "u", "fork_position": 0, "parent_id": "p"}
    transcript = Transcript.of("a", messages, metadata={"k": "\ud800"}, created_at=MOMENT, updated_at=MOMENT, **columns)
    await sessions.save(transcript)
    assert await exported(sessions) == (
        b'{"id":"a","user_id":"u","title":"","parent_id":"p","fork_position":0,'
        b'"created_at":"2025-01-01T12:00:00.001Z","updated_at":"2025-01-01T12:00:00.001Z",'
        b'"metadata":{"k":"\\ud800"},'
        b'"messages":[{"z":1.0,"role":"user","a":"\\u0000"},{"b":1180591620717411303424}],'
        b'"message_fields":{"role":[null,"tool"],"message_id":["m1",null],'
        b'"created_at":["2025-01-01T12:00:00.001Z","2025-01-01T12:00:00.001Z"]}}\n'
    )


async def test_an_empty_session(sessions: SessionRepository) -> None:
    await sessions.save(Transcript.of("a", updated_at=MOMENT))
    [line] = (await exported(sessions)).splitlines()
    assert json.loads(line) == {
        "id": "a",
        "created_at": "2025-01-01T12:00:00.001Z",
        "updated_at": "2025-01-01T12:00:00.001Z",
        "messages": [],
    }


async def test_all_in_the_order_of_the_listing(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """O12: newest change first, page after page."""
    monkeypatch.setattr(module, "LISTING_PAGE", 3)
    await fill(sessions, 10)
    assert ids(await exported(sessions)) == [f"s{at}" for at in range(10)]


async def test_only_some(sessions: SessionRepository) -> None:
    await fill(sessions, 3)
    await sessions.create("mine", user_id="ada")
    assert ids(await exported(sessions, "s2", "s0", "s2")) == ["s2", "s0"]
    written = io.BytesIO()
    await Export(sessions, LinesTarget(written)).run(user_id="ada")
    assert ids(written.getvalue()) == ["mine"]


async def test_only_this_tenant(sessions: SessionRepository) -> None:
    """X01: whatever the others have."""
    await sessions.for_tenant("other").create("a")
    assert await exported(sessions) == b""


async def test_a_named_session_that_is_not_there(sessions: SessionRepository) -> None:
    with pytest.raises(SessionNotFoundError):
        await exported(sessions, "a")


async def test_nothing_is_left_out_that_changes_meanwhile(
    sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X08: a session that is written to moves to the front of the listing, behind the back of the export."""
    monkeypatch.setattr(module, "LISTING_PAGE", 2)
    monkeypatch.setattr(module, "SNAPSHOTS", 1)
    await fill(sessions, 8)
    written: list[str] = []
    plain = sessions.list_sessions

    async def and_somebody_writes(**options: Any) -> Any:
        page = await plain(**options)
        if len(written) < 6:
            await sessions.append("s7", {"role": "user", "n": "late"})
            await sessions.append("s5", {"role": "user", "n": "late"})
        return page

    monkeypatch.setattr(sessions, "list_sessions", and_somebody_writes)

    class Noting:
        def put(self, transcript: Transcript) -> int:
            written.append(transcript.session.id)
            return 1

    await Export(sessions, Noting()).run()
    assert sorted(written) == [f"s{at}" for at in range(8)]


async def test_a_session_deleted_meanwhile_is_left_out(
    sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sessions, 3)
    plain = sessions.snapshot

    async def and_somebody_deletes(session_id: str) -> Transcript:
        await sessions.delete("s1")
        return await plain(session_id)

    monkeypatch.setattr(sessions, "snapshot", and_somebody_deletes)
    assert ids(await exported(sessions)) == ["s0", "s2"]


async def test_snapshots_are_bounded(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many and however long sessions are, a bounded part of them is in memory."""
    monkeypatch.setattr(module, "SNAPSHOT_MESSAGES", 10)
    lengths = [1, 1, 1, 25, 1, 9, 9, *[0] * 30]
    for at, length in enumerate(lengths):
        moment = MOMENT - timedelta(seconds=at)
        await sessions.save(Transcript.of(f"s{at}", [{"role": "user"}] * length, updated_at=moment))
    waiting: dict[str, int] = {}
    most: list[tuple[int, int]] = []
    plain = sessions.snapshot

    async def counted(session_id: str) -> Transcript:
        waiting[session_id] = lengths[int(session_id[1:])]
        most.append((len(waiting), sum(waiting.values())))
        return await plain(session_id)

    class Taking:
        def put(self, transcript: Transcript) -> int:
            del waiting[transcript.session.id]
            return 1

    monkeypatch.setattr(sessions, "snapshot", counted)
    await Export(sessions, Taking()).run()
    assert not waiting
    assert max(count for count, _ in most) == 8
    assert max(messages for count, messages in most if count > 2) <= 20


async def damage(sessions: SessionRepository, session_id: str) -> None:
    """Make a body that is not JSON any more; PostgreSQL has a type against that, so a body that is no object."""
    sql = "UPDATE sessionstore_messages SET body = '[1]' WHERE session_id = :id"
    await execute(sessions, sql, id=session_id)


async def test_a_damaged_body_stops_it(sessions: SessionRepository) -> None:
    """F11: it is never skipped or hidden."""
    await fill(sessions, 3)
    await damage(sessions, "s1")
    with pytest.raises(StoppedError, match=r"^session 's1': the body at position 0 of .* is not a JSON object"):
        await exported(sessions)


async def test_the_others_go_on(sessions: SessionRepository) -> None:
    """O13: one damaged row fails only its own session."""
    await fill(sessions, 3)
    await damage(sessions, "s1")
    faults: list[Fault] = []
    written = io.BytesIO()
    job = Export(sessions, LinesTarget(written), on_error="continue", on_fault=faults.append)
    await job.run()
    assert ids(written.getvalue()) == ["s0", "s2"]
    assert [fault.place for fault in faults] == ["session 's1'"]
    assert (job.report.sessions, job.report.failed) == (2, 1)


async def test_a_body_that_somebody_laid_out_by_hand_stays_on_its_line(sessions: SessionRepository) -> None:
    await fill(sessions, 1)
    body = '{\n  "role": "user",\n  "n": "a\\nb"\n}'
    await execute(sessions, "UPDATE sessionstore_messages SET body = :body", body=body)
    [line] = (await exported(sessions)).splitlines()
    assert json.loads(line)["messages"] == [json.loads(body)]


async def test_a_session_that_no_import_would_read(
    sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(sessions, 1)
    monkeypatch.setattr(module, "LINE_BYTES", 50)
    with pytest.raises(StoppedError, match=r"session 's0': takes \d+ bytes, more than an import would read"):
        await exported(sessions)


async def test_progress(sessions: SessionRepository) -> None:
    await fill(sessions, 4)
    seen: list[tuple[int, int | None]] = []
    note: Callable[[ExportReport], None] = lambda report: seen.append((report.sessions, report.total))  # noqa: E731
    await exported(sessions, "s0", "s3", on_progress=note)
    assert seen == [(1, 2), (2, 2)]


async def test_gzipped(sessions: SessionRepository) -> None:
    await fill(sessions, 2)
    packed = io.BytesIO()
    with gzipped(packed) as file:
        await Export(sessions, LinesTarget(file)).run()
    assert gzip.decompress(packed.getvalue()) == await exported(sessions)


async def test_a_failing_write_is_raised(sessions: SessionRepository, tmp_path: Path) -> None:
    await fill(sessions, 2)
    with pytest.raises(FileNotFoundError):
        await Export(sessions, FilesTarget(tmp_path / "none", force=False)).run()
