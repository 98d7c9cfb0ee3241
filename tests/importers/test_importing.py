"""Sessions into the store: each whole or not at all, and again until all are there."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    Session,
    SessionExistsError,
    SessionRepository,
    StorageFullError,
    Transcript,
    VersionConflictError,
)
from sessionstore.importers import Fault, Import, ImportReport, JsonLines, Reading, StoppedError
from sessionstore.importers import importing as module
from sessionstore.importers.sources import Piece
from sessionstore.operations import save_new
from tests.importers.conftest import exported, imported
from tests.support.repositories import row_counts, rows

if TYPE_CHECKING:
    from pathlib import Path

Lines = Callable[..., JsonLines]


def line(session_id: str, *contents: Any, **columns: Any) -> dict[str, Any]:
    return {"id": session_id, "messages": [{"role": "user", "content": content} for content in contents], **columns}


async def contents(sessions: SessionRepository, session_id: str) -> list[Any]:
    return [message.body["content"] for message in await sessions.messages(session_id)]


async def everything(sessions: SessionRepository) -> list[list[tuple[Any, ...]]]:
    """Every row of every table, recency and versions included."""
    tables = ("sessions", "messages", "metadata", "documents")
    return [sorted(await rows(sessions, f"SELECT * FROM sessionstore_{table}"), key=repr) for table in tables]  # noqa: S608


async def test_sessions_arrive_as_they_are(sessions: SessionRepository, lines: Lines) -> None:
    """F08, F15: columns, metadata, times and bodies, whatever is in them."""
    body = {"z": "\0\ud800é", "role": "assistant", "content": [{"type": "text"}], "n": [1, 1.0, -0.0, 2**80]}
    columns = {"user_id": "u", "title": "t", "metadata": {"k": {"b": 1, "a": 2}}}
    times = {"created_at": "2020-01-01T00:00:00Z", "updated_at": "2021-01-01T00:00:00.000001Z"}
    report = await imported(sessions, lines({"id": "a/../b", "messages": [body], **columns, **times}, line("c")))
    assert (report.created, report.skipped, report.failed, report.messages) == (2, 0, 0, 1)
    session = await sessions.get("a/../b")
    assert (session.user_id, session.title, session.metadata) == ("u", "t", {"k": {"b": 1, "a": 2}})
    assert session.created_at == datetime(2020, 1, 1, tzinfo=UTC)
    assert session.updated_at == datetime(2021, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    [message] = await sessions.messages("a/../b")
    assert message.role == "assistant"
    assert repr(message.body) == repr(body)
    assert await sessions.length("c") == 0


async def test_who_speaks(sessions: SessionRepository, lines: Lines) -> None:
    """H28: the role is stated beside a body that has none, and the body stays as it is."""
    bodies: list[dict[str, Any]] = [{"role": "tool", "speaker": "A"}, {"speaker": "A", "role": None}, {"speaker": 5}]
    source = lines({"id": "a", "messages": bodies})
    await imported(sessions, source, reading=Reading(role_key="speaker", default_role="someone"))
    messages = await sessions.messages("a")
    assert [message.role for message in messages] == ["tool", "A", "someone"]
    assert [list(message.body.items()) for message in messages] == [list(body.items()) for body in bodies]


async def test_what_is_there_is_skipped(sessions: SessionRepository, lines: Lines) -> None:
    await sessions.append("a", {"role": "user", "content": "mine"}, create=True)
    before = await everything(sessions)
    report = await imported(sessions, lines(line("a", "theirs")))
    assert (report.created, report.skipped, report.messages) == (0, 1, 0)
    assert await everything(sessions) == before


async def test_what_is_there_is_an_error(sessions: SessionRepository, lines: Lines) -> None:
    await sessions.create("a")
    faults: list[Fault] = []
    with pytest.raises(StoppedError, match=r"^line 1: session 'a' exists already$"):
        await imported(sessions, lines(line("a", "theirs")), on_conflict="error", on_fault=faults.append)
    assert faults == [Fault("line 1", "session 'a' exists already")]
    assert await sessions.length("a") == 0


async def test_what_is_there_is_replaced(sessions: SessionRepository, lines: Lines) -> None:
    """H31: the whole of it."""
    await sessions.append("a", *({"role": "user", "content": at} for at in range(5)), create=True)
    await sessions.set_metadata("a", {"gone": 1})
    report = await imported(sessions, lines(line("a", "x", "y"), line("b")), on_conflict="replace")
    assert (report.created, report.replaced, report.skipped) == (1, 1, 0)
    assert await contents(sessions, "a") == ["x", "y"]
    assert (await sessions.get("a")).metadata == {}


@pytest.mark.parametrize(("on_conflict", "kept"), [("skip", "first"), ("replace", "last")])
async def test_an_id_twice_in_one_file(sessions: SessionRepository, lines: Lines, on_conflict: Any, kept: str) -> None:
    source = lines(line("a", "first"), *(line("a", "then") for _ in range(20)), line("a", "last"))
    report = await imported(sessions, source, on_conflict=on_conflict)
    assert (report.created, report.replaced + report.skipped) == (1, 21)
    assert await contents(sessions, "a") == [kept]


async def test_a_session_that_appears_between_the_question_and_the_save_is_not_overwritten(
    sessions: SessionRepository, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X04: an application may create it at any moment."""

    async def exists(self: SessionRepository, session_id: str) -> bool:
        await self.append(session_id, {"role": "user", "content": "theirs"}, create=True)
        return False

    monkeypatch.setattr(SessionRepository, "exists", exists)
    report = await imported(sessions, lines(line("a", "ours")))
    assert (report.created, report.skipped) == (0, 1)
    assert await contents(sessions, "a") == ["theirs"]


async def test_a_new_session_only(sessions: SessionRepository) -> None:
    session = await save_new(sessions, Transcript.of("a", [{"role": "user", "content": 1}], metadata={"k": 1}))
    assert (session.length, session.version, session.metadata) == (1, 0, {"k": 1})
    before = await everything(sessions)
    with pytest.raises(SessionExistsError):
        await save_new(sessions, Transcript.of("a", [{"role": "user", "content": 2}]))
    assert await everything(sessions) == before
    with pytest.raises(InvalidArgumentError):
        await save_new(sessions, Transcript.of("b\n"))


async def test_two_imports_at_once(sessions: SessionRepository, lines: Lines) -> None:
    """X04: each session is stored by one of them."""
    source = lines(*(line(f"s{at}", at, at) for at in range(60)))
    first, second = await asyncio.gather(imported(sessions, source), imported(sessions, source))
    assert first.created + second.created == 60
    assert first.skipped + second.skipped == 60
    assert await row_counts(sessions) == {
        "sessionstore_sessions": 60,
        "sessionstore_messages": 120,
        "sessionstore_metadata": 0,
        "sessionstore_events": 60,
    }


BAD = [
    ("nonsense", "not JSON at character 0: Expecting value"),
    (line("a\u202e"), "session id must not hold the character U+202E"),
    ({"id": "b", "messages": [{"role": "user"}, {"x": 1}]}, "message 1: $.role: is required"),
    ({"id": "c", "messages": [{"role": "user", "x": "y" * 20}, 5]}, "message 1: $: must be a JSON object, not int"),
    (line("d", title=5), "title must be a string, not int"),
    (line("e", title="\0"), "title must not hold the character U+0000"),
    (line("f", metadata={"": 1}), "metadata key must not be empty or blank"),
    (line("g", metadata={"k": "x" * 70_000}), "metadata 'k': $: at least 70001 bytes, over the limit of 65536"),
]


async def test_bad_lines_are_told_and_the_others_go_on(sessions: SessionRepository, lines: Lines) -> None:
    """F05: by number and reason; nothing of a bad session is stored."""
    entries = [entry for at, (bad, _) in enumerate(BAD) for entry in (line(f"good{at}", at), bad)]
    faults: list[Fault] = []
    report = await imported(sessions, lines(*entries), on_error="continue", on_fault=faults.append)
    assert (report.created, report.failed) == (len(BAD), len(BAD))
    expected = {f"line {2 * at + 2}": reason for at, (_, reason) in enumerate(BAD)}
    assert {fault.place: fault.reason for fault in faults} == expected
    assert [fault.place for fault in faults if fault.no_role] == ["line 6"]
    assert await row_counts(sessions) == {
        "sessionstore_sessions": len(BAD),
        "sessionstore_messages": len(BAD),
        "sessionstore_metadata": 0,
        "sessionstore_events": len(BAD),
    }


@pytest.mark.parametrize(("bad", "reason"), [BAD[0], BAD[2]], ids=["in the reading", "in the saving"])
async def test_a_bad_line_stops_it(sessions: SessionRepository, lines: Lines, bad: Any, reason: str) -> None:
    source = lines(line("good", 1), bad, *(line(f"after{at}", 1) for at in range(300)))
    job = Import(sessions)
    with pytest.raises(StoppedError) as caught:
        await job.run([source])
    assert caught.value.message == f"line 2: {reason}"
    assert await sessions.exists("good")
    assert not await sessions.exists("after299")
    assert job.report.failed == 1
    assert (await row_counts(sessions))["sessionstore_sessions"] == job.report.created


async def test_running_it_again_finishes_it(sessions: SessionRepository, lines: Lines) -> None:
    entries = [line(f"s{at}", *range(at % 5)) for at in range(50)]
    with pytest.raises(StoppedError):
        await imported(sessions, lines(*entries[:20], "broken", *entries[20:]))
    report = await imported(sessions, lines(*entries))
    assert report.created + report.skipped == 50
    assert report.skipped >= 20
    assert [await contents(sessions, f"s{at}") for at in range(50)] == [list(range(at % 5)) for at in range(50)]
    before = await everything(sessions)
    assert (await imported(sessions, lines(*entries))).skipped == 50
    assert await everything(sessions) == before


async def test_several_sources(sessions: SessionRepository, lines: Lines) -> None:
    job = Import(sessions)
    await job.run([lines(line("a"), name="x.jsonl"), lines(line("b"), line("a"), name="y.jsonl")])
    assert (job.report.created, job.report.skipped) == (2, 1)
    assert job.report.done == job.report.total


async def test_unknown_keys_are_told_once(sessions: SessionRepository, lines: Lines) -> None:
    entries = [line("a"), line("b", source="s", extra=1), line("c", source="s")]
    report = await imported(sessions, lines(*entries))
    assert report.ignored == {"extra": "line 2", "source": "line 2"}
    many = lines(line("d", **{f"k{at:03}": 1 for at in range(500)}))
    assert len((await imported(sessions, many)).ignored) == 100


async def test_progress(sessions: SessionRepository, lines: Lines) -> None:
    seen: list[tuple[int, int]] = []

    def told(report: ImportReport) -> None:
        seen.append((report.created + report.skipped + report.failed, report.done))

    report = await imported(sessions, lines(*(line(f"s{at}", at) for at in range(30))), on_progress=told)
    assert [count for count, _ in seen] == list(range(1, 31))
    assert report.done == report.total
    assert report.seconds > 0


async def test_a_history_longer_than_an_append_may_be(sessions: SessionRepository, lines: Lines) -> None:
    count = sessions.settings.max_batch + 1
    report = await imported(sessions, lines(line("a", *range(count))))
    assert report.messages == count == await sessions.length("a")


async def test_trimmed_sessions_keep_their_positions(sessions: SessionRepository, lines: Lines) -> None:
    """H22: positions, message ids and times are part of what is imported."""
    fields = {"message_id": ["m5", None], "created_at": ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00.5Z"]}
    await imported(sessions, lines(line("a", "x", "y", first_position=5, message_fields=fields)))
    messages = await sessions.messages("a")
    assert [message.position for message in messages] == [5, 6]
    assert [message.message_id for message in messages] == ["m5", None]
    assert messages[1].created_at == datetime(2020, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert await sessions.append("a", {"role": "user"}) == [7]


# --- when the database fails, and when nobody waits any more --------------------------------------


async def test_a_failing_database_stops_it(
    sessions: SessionRepository, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F14: with the database's own error, also where bad lines would go on."""
    saved = 0

    async def full(_: SessionRepository, __: Transcript) -> Session:
        nonlocal saved
        saved += 1
        raise StorageFullError

    monkeypatch.setattr(module, "save_new", full)
    job = Import(sessions, on_error="continue")
    with pytest.raises(StorageFullError):
        await job.run([lines(*(line(f"s{at}") for at in range(500)))])
    assert saved < 200
    assert (job.report.created, job.report.failed) == (0, 0)


async def test_an_error_about_no_line_stops_it(
    sessions: SessionRepository, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def conflict(_: SessionRepository, transcript: Transcript) -> Session:
        raise VersionConflictError(transcript.session.id, expected=1, actual=2)

    monkeypatch.setattr(module, "save_new", conflict)
    with pytest.raises(VersionConflictError):
        await imported(sessions, lines(line("a")), on_error="continue")


async def test_cancelled_in_the_middle(sessions: SessionRepository, lines: Lines) -> None:
    """X08: what is there is whole, nothing goes on behind our back, and running it again finishes it."""
    entries = [line(f"s{at}", *range(20)) for at in range(300)]
    halfway = asyncio.Event()

    def told(report: ImportReport) -> None:
        if report.created == 100:
            halfway.set()

    job = Import(sessions, on_progress=told)
    task = asyncio.create_task(job.run([lines(*entries)]))
    await halfway.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert job.report.seconds > 0
    counts = await row_counts(sessions)
    assert 100 <= counts["sessionstore_sessions"] < 300
    assert counts["sessionstore_messages"] == 20 * counts["sessionstore_sessions"]
    report = await imported(sessions, lines(*entries))
    assert report.created + report.skipped == 300
    assert (await row_counts(sessions))["sessionstore_messages"] == 6000


async def test_what_is_imported_is_exported_and_imported_again(sessions: SessionRepository, lines: Lines) -> None:
    """H22: the second store's export is the first one's, to the byte."""
    await imported(sessions, lines(line("a", 1, "\0", metadata={"k": 2**70}), line("b", "x" * 300, title="")))
    await sessions.append("b", {"role": "tool", "x": 1.0})
    await sessions.trim("b", 1)
    await sessions.fork_at("a", 1, new_id="c")
    first = await exported(sessions)
    other = sessions.for_tenant("other")
    report = await imported(other, lines(*(json.loads(text) for text in first.splitlines()), name="again.jsonl"))
    assert report.created == 3
    assert await exported(other) == first


class Endless(JsonLines):
    """A source of as many lines as one likes, made one by one."""

    def __init__(self, count: int) -> None:
        super().__init__("-")
        self._count = count

    def pieces(self) -> Iterator[Piece]:
        for at in range(self._count):
            raw = json.dumps(line(f"s{at}", "x" * 20_000)).encode()
            yield Piece(f"line {at + 1}", raw, len(raw), at)


class Bottomless(SessionRepository):
    """Takes every session and keeps none."""

    async def exists(self, session_id: str) -> bool:
        await asyncio.sleep(0)
        return False


async def test_memory_is_flat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stamp = datetime(2025, 1, 1, tzinfo=UTC)

    async def save(_: SessionRepository, transcript: Transcript) -> Session:
        await asyncio.sleep(0)
        return Session(id=transcript.session.id, created_at=stamp, updated_at=stamp, last_accessed_at=stamp)

    monkeypatch.setattr(module, "save_new", save)
    sessions = Bottomless.connect(f"sqlite:///{tmp_path / 'never made'}")

    async def peak(count: int) -> int:
        tracemalloc.reset_peak()
        report = await imported(sessions, Endless(count))
        assert report.created == count
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        few, many = await peak(200), await peak(2_000)
    finally:
        tracemalloc.stop()
    assert many < 1.5 * few, f"{few} bytes for 200 sessions, {many} for 2,000"
