"""What happens as JSON lines in files: for people and their tools, and never to anybody's harm."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import shutil
import stat
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import pytest

from sessionstore import InvalidArgumentError, SessionRepository, StoreSettings, eventlog
from tests.contract._watching import kinds
from tests.support.repositories import callers_engine, say, talk
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

VARIABLE = "SESSIONSTORE_EVENT_LOG_DIR"


def mend(folder: Path) -> None:
    """Take away what is in the place of a directory."""
    folder.unlink()


def prepare(folder: Path) -> Path:
    """Make a directory."""
    folder.mkdir()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def logging_to(folder: object) -> StoreSettings:
    return StoreSettings(event_log_dir=folder)  # type: ignore[arg-type]


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of the one file there is."""
    [path] = _files(folder)
    return read(path)


async def reads(folder: Path, *expected: object) -> None:
    """Wait until the end of the one file is this."""

    def there() -> bool:
        files = _files(folder)
        return (
            bool(files)
            and files[0].read_bytes().endswith(b"\n")
            and what(read(files[0]))[-len(expected) :] == [*expected]
        )

    await until(there)


def check(lines: list[dict[str, Any]]) -> None:
    """What must be true of every file."""
    assert [line["index"] for line in lines] == list(range(len(lines)))
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert all(moment.tzinfo is not None for moment in times)


def what(lines: list[dict[str, Any]]) -> list[Any]:
    """Kinds, and positions of messages."""
    return [line["position"] if line["kind"] == "message" else line["kind"] for line in lines]


async def test_everything_is_written(rows_url: str, folder: Path) -> None:
    """H35: messages and events in order, with contents, an index and times; in one file of the session."""
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        await sessions.create("s", title="t")
        await sessions.append("s", say("user", "héllo\n\u2028"), say("assistant", None, big=2**70, odd="\ud800\0"))
        await sessions.record_event("s", "mine", payload={"x": [1.0, "\ud800", 2**70]})
        await reads(folder, "mine")  # what is trimmed before it was read is not written
        await sessions.trim("s", 1)
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", 0, 1, "mine", "trimmed"]
    assert lines[1]["body"] == {"role": "user", "content": "héllo\n\u2028"}
    assert lines[2]["body"] == {"role": "assistant", "content": None, "big": 2**70, "odd": "\ud800\0"}
    assert lines[3]["payload"] == {"x": [1.0, "\ud800", 2**70]}
    assert {line["session_id"] for line in lines} == {"s"}


async def test_what_the_environment_says(rows_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H35: the variable is the default, and the setting counts where there is one."""
    monkeypatch.setenv(VARIABLE, str(folder / "environment"))
    async with SessionRepository.connect(rows_url) as sessions:
        await sessions.create("s")
    assert what(logged(folder / "environment")) == ["created"]
    async with SessionRepository.connect(rows_url, settings=logging_to(str(folder / "setting"))) as sessions:
        await sessions.open("t")
    assert what(logged(folder / "setting")) == ["created"]
    assert len(_files(folder / "environment")) == 1


@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
async def test_nothing_without_a_directory(
    rows_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """H36: unset or empty, nothing is written anywhere."""
    monkeypatch.chdir(tmp_path)
    before = _files(tmp_path)
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    async with SessionRepository.connect(rows_url) as sessions:
        await sessions.open("s")
    assert [path for path in _files(tmp_path) if path not in before and path.suffix not in {".db-wal", ".db-shm"}] == []


@pytest.mark.parametrize("bad", [5, b"log", ["log"]], ids=ascii)
async def test_bad_settings(bad: Any) -> None:
    """P8: what is no path is refused at once."""
    with pytest.raises(InvalidArgumentError):
        StoreSettings(event_log_dir=bad)


async def test_a_file_for_each_session(rows_url: str, folder: Path) -> None:
    """H35: also of several tenants with the same ids, readable by its owner alone."""
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        for handle in (sessions, sessions.for_tenant("theirs")):
            for session_id in ("a", "A", "b"):
                await handle.append(session_id, say("user", f"{handle.tenant}/{session_id}"), create=True)
    files = _files(folder)
    assert len(files) == 6
    assert len({path.name.casefold() for path in files}) == 6
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        lines = read(path)
        check(lines)
        assert {(line["tenant"], line["session_id"]) for line in lines} == {
            tuple(lines[-1]["body"]["content"].split("/"))
        }
        assert str(os.getpid()) in path.name


HOSTILE = [
    *("../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "C:\\x", "con", "NUL", ".hidden", "-rf", "~", "%2e%2e%2f"),
    *(
        "x" * 255,
        "é" * 255,
        "日本語",
        "e\u0301",
        "\u00e9",
        "a b",
        "a\tb",
        "a\nb",
        '*?<>|":',
        "\u202e",
        "🦊" * 60,
        "a.",
        "a ",
    ),
]


async def test_names_are_safe(rows_url: str, folder: Path) -> None:
    """H36: whatever the ids are: a file each, in the directory and nowhere else, with a name for any system."""
    inside = prepare(folder) / "deep" / "log"
    taken = []
    async with SessionRepository.connect(rows_url, settings=logging_to(inside)) as sessions:
        for session_id in HOSTILE:
            try:
                await sessions.create(session_id)
            except InvalidArgumentError:
                continue
            taken.append(session_id)
    assert len(taken) > 15
    files = _files(inside)
    assert sorted(read(path)[0]["session_id"] for path in files) == sorted(taken)
    assert _files(folder) == [folder / "deep"]
    for path in files:
        assert path.name.isascii()
        assert len(path.name) <= 120
        assert set(path.name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
        assert not path.name.startswith(".")


async def test_closing_and_opening_again(lasting_url: str, folder: Path) -> None:
    """H35, H36: goes on where it ended: no line twice, none lost, none taken away."""
    text = b""
    for at in range(4):
        async with SessionRepository.connect(lasting_url, settings=logging_to(folder)) as sessions:
            await sessions.append("s", say("user", at), create=True)
            await sessions.open("s")
        [path] = _files(folder)
        assert path.read_bytes().startswith(text)
        text = path.read_bytes()
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", 0, 1, 2, 3]


async def test_what_was_done_without_a_log_is_made_up_for(lasting_url: str, folder: Path) -> None:
    """H35: with the next change that this process makes."""
    async with SessionRepository.connect(lasting_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 0), create=True)
    async with SessionRepository.connect(lasting_url) as sessions:
        await sessions.append("s", say("user", 1))
        await sessions.record_event("s", "mine")
    async with SessionRepository.connect(lasting_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 2))
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", 0, 1, "mine", 2]


@pytest.mark.parametrize("way", ["one engine", "two engines"])
async def test_no_second_sink(lasting_url: str, folder: Path, way: str) -> None:
    """H35: however many repositories of one process write to a session, its lines are written once."""
    engine = callers_engine(lasting_url)
    settings = logging_to(folder)
    other = SessionRepository(engine, settings=settings)
    one = (
        SessionRepository(engine, settings=settings)
        if way == "one engine"
        else SessionRepository.connect(lasting_url, settings=settings)
    )
    async with one, other:
        await one.create("s")
        await other.open("s")
        for at in range(10):
            await asyncio.gather(one.append("s", say("user", at)), other.append("s", say("user", at)))
        await one.record_event("s", "mine")
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", *range(20), "mine"]
    await engine.dispose()


async def test_more_sessions_than_are_remembered(rows_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H35: those that are written at once, too, keep their index."""
    monkeypatch.setattr(eventlog, "EVENT_LOG_FILES", 2)
    names = [f"s-{at}" for at in range(6)]
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        for name in names:
            await sessions.create(name)
        for at in range(12):
            await asyncio.gather(*(sessions.append(name, say("user", at)) for name in names))
    assert len(_files(folder)) == 6
    for path in _files(folder):
        lines = read(path)
        check(lines)
        assert what(lines) == ["created", *range(12)]


async def test_a_clock_that_goes_back(rows_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """H35: times never decrease, in one run and over a restart."""
    real, offset = time.time_ns, [0]
    monkeypatch.setattr("sessionstore.eventlog.time.time_ns", lambda: real() + offset[0])
    for hours in (0, -5, -10):
        offset[0] = hours * 3_600_000_000_000
        async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
            await sessions.open("s")
            await sessions.record_event("s", "one")
            await reads(folder, "one")
            offset[0] -= 3_600_000_000_000
            await sessions.record_event("s", "two")
        if rows_url.endswith("://"):
            break  # a database in memory has no restart
    check(logged(folder))


async def test_rewriting_and_deletion_are_lines(rows_url: str, folder: Path) -> None:
    """H35: and the file goes on when the id is used again."""
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", *talk(2), create=True)
        await reads(folder, "created", 0, 1)
        await sessions.pop("s")
        await reads(folder, "rewritten")
        await sessions.delete("s")
        await reads(folder, "deleted")
        await sessions.append("s", say("user", "anew"), create=True)
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", 0, 1, "rewritten", "deleted", "created", 0]


@pytest.mark.parametrize("torn", [b'{"index": 99, "cur', b"{", b"\xff\xfe", b'{"index": 5}', b"null", b"[]", b'"x"'])
async def test_a_torn_line(lasting_url: str, folder: Path, torn: bytes) -> None:
    """H36: what a crash has left stays where it is, and the next line begins after it."""
    async with SessionRepository.connect(lasting_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 0), create=True)
    [path] = _files(folder)
    before = path.read_bytes()
    path.write_bytes(before + torn)
    async with SessionRepository.connect(lasting_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 1))
        await sessions.append("s", say("user", 2))
    text = path.read_bytes()
    assert text.startswith(before + torn + b"\n")
    lines = [json.loads(line) for line in before.split(b"\n") + text[len(before + torn) :].split(b"\n") if line]
    check(lines)
    assert what(lines) == ["created", 0, 1, 2]


# --- where it cannot be written -------------------------------------------------------------------


def _is_file(folder: Path) -> None:
    folder.write_text("no directory")


def _below_file(folder: Path) -> None:
    folder.parent.joinpath("log").write_text("no directory")


def _is_dangling(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere" / "deep")


@pytest.mark.parametrize("spoil", [_is_file, _is_dangling])
async def test_a_directory_that_is_none(
    rows_url: str, folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    """H36, P11, P12: no call fails, it is said once and without contents, and goes on once it is mended."""
    spoil(folder)
    with caplog.at_level(logging.DEBUG, "sessionstore"):
        async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
            for at in range(3):
                await sessions.append("canary", say("user", f"canary {at}"), create=True)
                await asyncio.sleep(0.02)
            await until(lambda: bool(caplog.records))
            mend(folder)
            await sessions.append("canary", say("user", "canary 3"))
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert "canary" not in caplog.text
    lines = logged(folder)
    check(lines)
    assert what(lines) == ["created", 0, 1, 2, 3]


async def test_a_name_that_is_no_path(rows_url: str) -> None:
    """H36: nor does what no system takes as a name."""
    async with SessionRepository.connect(rows_url, settings=logging_to("a\0b")) as sessions:
        await sessions.create("s")
        assert kinds(await sessions.events("s")) == ["created"]


class _Disk:
    """Lets only so many bytes of the log be written: what is over is cut off, and after that nothing can be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        monkeypatch.setattr(eventlog, "open", lambda *a, **o: _Short(open(*a, **o), self), raising=False)  # noqa: SIM115, PTH123


class _Short:
    def __init__(self, file: Any, disk: _Disk) -> None:
        self._file, self._disk = file, disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        if self._disk.left is None:
            return int(self._file.write(data))
        if self._disk.left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = int(self._file.write(data[: self._disk.left]))
        self._disk.left -= written
        return written


@pytest.mark.parametrize("space", [0, 1, 50, 300, 500, 700])
async def test_a_full_disk(
    rows_url: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, space: int
) -> None:
    """H36, P12: no call fails; a line that was cut off is written again whole once there is room, with its index."""
    disk = _Disk(monkeypatch)
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 0), create=True)
        await reads(folder, "created", 0)
        disk.left = space
        for at in range(1, 5):
            await sessions.append("s", say("user", at), say("user", at))
        await until(lambda: "cannot be written" in caplog.text)
        disk.left = None
        await sessions.record_event("s", "mended")
    [path] = _files(folder)
    lines = []
    for line in path.read_bytes().split(b"\n"):
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    check(lines)
    assert what(lines) == ["created", *range(9), "mended"]


@pytest.mark.parametrize("whole", [False, True], ids=["file", "directory"])
async def test_a_file_that_is_taken_away(
    rows_url: str, folder: Path, caplog: pytest.LogCaptureFixture, *, whole: bool
) -> None:
    """H36: by somebody who tidies up: what comes is written to a new one, which begins with 0."""
    async with SessionRepository.connect(rows_url, settings=logging_to(folder)) as sessions:
        await sessions.append("s", say("user", 0), create=True)
        await reads(folder, "created", 0)
        if whole:
            shutil.rmtree(folder)
        else:
            _files(folder)[0].unlink()
        await sessions.append("s", say("user", 1))
        await until(lambda: "cannot be written" in caplog.text or bool(_files(folder)))
        await sessions.append("s", say("user", 2))
        await reads(folder, 1, 2)
    lines = logged(folder)
    check(lines)
    assert what(lines) == [1, 2]


async def test_a_last_line_with_half_a_character(lasting_url: str, tmp_path: Path) -> None:
    """H35: its index is read all the same, and goes on."""
    for content in ("\ud800", "after"):
        settings = StoreSettings(event_log_dir=tmp_path / "log")
        async with SessionRepository.connect(lasting_url, settings=settings) as sessions:
            await sessions.append("s", say("user", content), create=True)
    assert [line["index"] for line in logged(tmp_path / "log")] == [0, 1, 2]
