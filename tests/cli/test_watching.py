"""`events` and `watch`: what happened, and what happens while somebody looks on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import signal
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console
from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from sessionstore import Change, Message, SessionRepository, WatchLagError
from sessionstore.changes import parse_tenant_cursor, tenant_cursor
from sessionstore.cli import watching
from sessionstore.cli.terminal import json_of
from tests.cli.conftest import Cli

if TYPE_CHECKING:
    import subprocess
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.postgres import Postgres

HOSTILE = "\x1b[2J\x9b31m\u202e\x7f\n"


class Live:
    """A command that goes on: what it prints, line by line as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.lines.put(text)

    def line(self) -> str:
        """The next line; the test's timeout ends one that never comes."""
        return self.lines.get().decode().rstrip("\n")

    def change(self) -> dict[str, Any]:
        """The next line, of JSON."""
        found: dict[str, Any] = json.loads(self.line())
        return found

    def rest(self) -> list[str]:
        """What is left, when it has ended."""
        self._reader.join()
        return [self.line() for _ in range(self.lines.qsize())]

    def interrupt(self) -> int:
        """Press Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait()

    def errors(self) -> list[str]:
        """What it has said on standard error, when it has ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode().splitlines()


@contextlib.contextmanager
def live(cli: Cli, *arguments: str) -> Iterator[Live]:
    with cli.process(*arguments) as process:
        try:
            yield Live(process)
        finally:
            process.kill()


def say(cli: Cli, *contents: str, session: str = "s", tenant: str = "") -> None:
    """Append messages one by one, from this process."""

    async def work(sessions: SessionRepository) -> None:
        for content in contents:
            await sessions.append(session, {"role": "user", "content": content}, create=True)

    cli.store(work, tenant)


def happen(cli: Cli, kind: str, payload: Any = None, *, session: str = "s") -> None:
    cli.store(lambda sessions: sessions.record_event(session, kind, payload=payload))


def delete(cli: Cli, session: str = "s") -> None:
    cli.store(lambda sessions: sessions.delete(session))


def contents(*changes: dict[str, Any]) -> list[str]:
    return [message["body"]["content"] for change in changes for message in change["messages"]]


def words(line: str) -> list[str]:
    """The words of a line for people, its time left out."""
    return line.split()[2:]


def now() -> str:
    return tenant_cursor(time.time_ns() // 1000)


# --- events that happened ---------------------------------------------------------------------
def test_events_for_people(cli: Cli) -> None:
    say(cli, "hello", "world")
    happen(cli, "tool_started", {"name": "x" * 500})
    head, _, *rows = cli.run("events", "s").stdout.splitlines()
    assert head.split() == ["number", "time", "(UTC)", "kind", "before", "message", "payload"]
    first, second = (row.split() for row in rows)
    stored = cli.store(lambda sessions: sessions.events("s"))
    assert first == ["0", *f"{stored[0].created_at:%Y-%m-%d %H:%M:%S}".split(), "created", "0"]
    assert [second[0], *second[3:5]] == ["1", "tool_started", "2"]
    assert second[5].startswith('{"name":"xxx')
    assert rows[1].rstrip().endswith("… (411 more)")
    assert cli.run("events", "s", "--after", "1").stdout == "there are no events\n"


def test_events_for_programs(cli: Cli) -> None:
    """A line each, with all that the library gives, and the payload as it was recorded."""
    payload = {"big": 2**70, "small": 1e-9, "odd": "\ud800\x1b\n", "deep": [[[{}]]], "": None}
    say(cli, "hello")
    happen(cli, "tool_started", payload)
    happen(cli, "tool_ended")
    texts = cli.run("events", "s", "--json").stdout_bytes.splitlines()
    stored = cli.store(lambda sessions: sessions.events("s"))
    assert [json.loads(text) for text in texts] == [json.loads(json_of(event)) for event in stored]
    assert texts[1].endswith(b',"payload":' + json_of(payload) + b"}")
    assert json.loads(texts[2])["payload"] is None


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ((), [0, 1, 2, 3, 4, 5]),
        (("--after", "1"), [2, 3, 4, 5]),
        (("--limit", "3"), [0, 1, 2]),
        (("--after", "0", "--limit", "4"), [1, 2, 3, 4]),
        (("--after", "5"), []),
    ],
)
def test_events_page_by_page(
    sqlite_cli: Cli, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], numbers: list[int]
) -> None:
    """All of them, however few a call reads."""
    monkeypatch.setattr(watching, "EVENTS_PAGE", 2)
    sqlite_cli.store(lambda sessions: sessions.create("s"))
    for _ in range(5):
        happen(sqlite_cli, "tick")
    lines = sqlite_cli.run("events", "s", "--json", *options).stdout.splitlines()
    assert [json.loads(line)["number"] for line in lines] == numbers


async def _by_hand(cli: Cli, statement: str) -> None:
    url = make_url(cli.url)
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.get_backend_name()]
    engine = create_async_engine(url.set(drivername=driver))
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(statement)
    finally:
        await engine.dispose()


@pytest.mark.processes
def test_nothing_that_was_recorded_commands_the_terminal(cli: Cli) -> None:
    """Neither kinds, which somebody may have written by hand, nor payloads, roles and texts."""
    cli.store(lambda sessions: sessions.create("s"))
    happen(cli, "tool_started", {HOSTILE: HOSTILE})
    hostile = f"UPDATE sessionstore_events SET kind = 'a{HOSTILE}' WHERE number = 1"  # noqa: S608  # ours
    cli.store(lambda _: _by_hand(cli, hostile))
    cli.store(lambda sessions: sessions.append("s", {"role": "user", "content": HOSTILE}))
    shown = "a\\x1b[2J\\x9b31m\\u202e\\x7f "
    listed = cli.run("events", "s").stdout
    with live(cli, "events", "s", "--follow") as following:
        followed = [following.line() for _ in range(3)]
    for text in (listed, "\n".join(followed)):
        assert shown in text
        assert not set(HOSTILE) & (set(text) - {"\n", *"[2J31m"})
    assert followed[2].endswith(f"user  {shown.removeprefix('a')}")
    assert len(listed.splitlines()) == 4


# --- one session, as it happens ---------------------------------------------------------------
@pytest.mark.processes
def test_follow_for_people(cli: Cli) -> None:
    """What was there, then what another process does, a line each, until the session is deleted."""
    say(cli, "hello")
    with live(cli, "events", "s", "--follow") as following:
        assert words(following.line()) == ["#0", "created"]
        assert words(following.line()) == ["0", "user", "hello"]
        happen(cli, "tool_started", {"name": "search"})
        assert words(following.line()) == ["#1", "tool_started", '{"name":"search"}']
        say(cli, "a\nb", "x" * 300)
        assert words(following.line()) == ["1", "user", "a", "b"]
        assert following.line().endswith(f"user  {'x' * 160}… (140 more)")
        cli.store(lambda sessions: sessions.truncate("s", 1))
        assert " ".join(words(following.line())).startswith(
            "#2 rewritten what was shown may be no longer so (truncated)"
        )
        delete(cli)
        assert following.process.wait() == 0
        assert [words(line)[-1] for line in following.rest()] == ["deleted"]
        begin, *rest = following.errors()
        assert begin == "watching session 's' from its beginning; times are UTC; Ctrl-C stops"
        assert rest == []


@pytest.mark.processes
def test_follow_for_programs(cli: Cli) -> None:
    """A change a line, as the library tells it, at once; and nothing on standard error."""
    say(cli, "hello")
    happen(cli, "tool_started", {"n": 2**70})
    with live(cli, "events", "s", "--follow", "--json") as following:
        changes = [following.change() for _ in range(3)]
        assert [change["kind"] for change in changes] == ["created", "messages", "tool_started"]
        assert changes[2]["event"]["payload"] == {"n": 2**70}
        say(cli, "more")
        changes.append(following.change())
        message = cli.store(lambda sessions: sessions.messages("s", last=1))[0]
        assert changes[3] == {
            "session_id": "s",
            "kind": "messages",
            "generation": changes[0]["generation"],
            "messages": [
                {
                    "position": 1,
                    "role": "user",
                    "message_id": None,
                    "created_at": json.loads(json_of(message.created_at)),
                    "body": {"role": "user", "content": "more"},
                }
            ],
            "event": None,
            "cursor": cli.store(lambda sessions: sessions.get("s")).cursor,
        }
        delete(cli)
        assert following.process.wait() == 0
        assert [json.loads(line)["kind"] for line in following.rest()] == ["deleted"]
        assert following.errors() == []


def test_a_session_that_is_gone_meanwhile(cli: Cli) -> None:
    """Its cursor is still good, and tells so."""
    say(cli, "hello")
    cursor = cli.store(lambda sessions: sessions.get("s")).cursor
    delete(cli)
    assert cli.json("events", "s", "--follow", "--cursor", cursor)["kind"] == "deleted"
    shown = cli.run("events", "s", "--follow", "--cursor", cursor)
    assert words(shown.stdout)[-1] == "deleted"
    assert shown.stderr == f"watching session 's' after {cursor}; times are UTC; Ctrl-C stops\n"


@pytest.mark.processes
def test_ctrl_c_ends_it_and_tells_how_to_go_on(cli: Cli) -> None:
    say(cli, "hello")
    with live(cli, "events", "s", "--follow") as following:
        lines = [following.line(), following.line()]
        assert words(lines[1]) == ["0", "user", "hello"]
        assert following.interrupt() == 130
        _, stopped = following.errors()
    cursor = stopped.removeprefix("stopped; --cursor ").removesuffix(" goes on there")
    say(cli, "while nobody looked on")
    with live(cli, "events", "s", "--follow", "--json", "--cursor", cursor) as following:
        assert contents(following.change()) == ["while nobody looked on"]
        assert following.interrupt() == 130
        assert following.errors() == []


@pytest.mark.processes
def test_killed_and_resumed_misses_nothing(cli: Cli) -> None:
    """From the cursor of any line: what comes after it, once, in order."""
    seen: list[str] = []
    said = [str(number) for number in range(12)]
    options: list[str] = []
    cli.store(lambda sessions: sessions.create("s"))
    for begin in range(0, 12, 4):
        with live(cli, "events", "s", "--follow", "--json", *options) as following:
            say(cli, *said[begin : begin + 2])
            while len(seen) < begin + 2:
                change = following.change()
                seen += contents(change)
                options = ["--cursor", change["cursor"]]
            following.process.kill()
        say(cli, *said[begin + 2 : begin + 4])
    with live(cli, "events", "s", "--follow", "--json", *options) as following:
        while len(seen) < 12:
            seen += contents(following.change())
    assert seen == said


@pytest.mark.processes
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["people", "programs"])
def test_a_reader_that_has_seen_enough(sqlite_cli: Cli, options: tuple[str, ...]) -> None:
    """As in `events --follow | head -1`: no traceback, and no complaint."""
    say(sqlite_cli, "hello")
    with sqlite_cli.process("events", "s", "--follow", *options) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.readline()
        process.stdout.close()
        say(sqlite_cli, "nobody reads this")
        assert process.wait() == 1
        said = process.stderr.read().decode().splitlines()
    assert [line for line in said if not line.startswith("watching session 's'")] == []


def test_it_goes_on_by_itself_where_it_lagged(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last change that was shown; nothing is missed, and it says so."""
    say(cli, "hello", "world")
    happen(cli, "tick")
    watch, begun = SessionRepository.watch, []

    async def lagging(self: SessionRepository, session_id: str, *, after: str | None = None) -> AsyncIterator[Change]:
        begun.append(after)
        async for change in watch(self, session_id, after=after):
            yield change
            if change.kind == "messages":
                raise WatchLagError
            if change.kind == "tick":
                await self.delete(session_id)

    monkeypatch.setattr(SessionRepository, "watch", lagging)
    result = cli.run("events", "s", "--follow", "--json")
    changes = [json.loads(line) for line in result.stdout.splitlines()]
    assert [change["kind"] for change in changes] == ["created", "messages", "tick", "deleted"]
    assert begun == [None, changes[1]["cursor"]]
    assert result.stderr == "more happened than could be shown; going on where it was, some may come twice\n"


def test_it_lags_before_anything_was_shown(sqlite_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tenant, it goes on where it began, not where it is by now."""
    begun: list[str | None] = []

    async def lagging(_: SessionRepository, __: None, *, after: str | None = None) -> AsyncIterator[Change]:
        begun.append(after)
        if after is None:
            raise WatchLagError
        if after == "never":
            yield  # type: ignore[misc]  # what makes it a generator

    monkeypatch.setattr(SessionRepository, "watch", lagging)
    before = time.time_ns() // 1000
    sqlite_cli.run("watch")
    first, second = begun
    assert first is None
    assert before <= parse_tenant_cursor(second) <= time.time_ns() // 1000


# --- a whole tenant ---------------------------------------------------------------------------
def _first_seen(cli: Cli, following: Live) -> list[dict[str, Any]]:
    """Say something again and again until it is told: from then on, everything is."""
    while following.lines.empty():
        say(cli, "?", session="a", tenant="acme")
    return [following.change() for _ in range(following.lines.qsize())]


@pytest.mark.processes
def test_watch_a_tenant(cli: Cli) -> None:
    """From now on, all of its sessions, and nobody else's."""
    say(cli, "before", session="old", tenant="acme")
    with live(cli, "watch", "--tenant", "acme", "--json") as following:
        seen = _first_seen(cli, following)
        say(cli, "of another tenant")
        say(cli, "new", session="b", tenant="acme")
        say(cli, "after", session="old", tenant="acme")
        while not {"new", "after"} <= {*contents(*seen)}:  # two sessions, in any order
            seen.append(following.change())
        assert following.interrupt() == 130
        assert following.errors() == []
    told = [(change["session_id"], content) for change in seen for content in contents(change) if content != "?"]
    assert sorted(told) == [("b", "new"), ("old", "after")]
    assert ("b", "created") in {(change["session_id"], change["kind"]) for change in seen}


@pytest.mark.processes
def test_watch_for_people(cli: Cli) -> None:
    """When, which session, where, what; the tenant may be named before the command too."""
    with live(cli, "--tenant", "acme", "watch", "--cursor", now()) as following:
        say(cli, "hello", session="trip 1", tenant="acme")
        assert words(following.line()) == ["trip", "1", "#0", "created"]
        assert words(following.line()) == ["trip", "1", "0", "user", "hello"]
        assert following.interrupt() == 130
        begin, stopped = following.errors()
    assert begin.startswith("watching all sessions of tenant 'acme' after @")
    assert begin.endswith("; times are UTC; Ctrl-C stops")
    assert stopped.startswith("stopped; --cursor @")


@pytest.mark.processes
def test_watch_resumed_misses_nothing(cli: Cli) -> None:
    """What happened meanwhile is told, if also what was told before."""
    with live(cli, "watch", "--json", "--cursor", now()) as following:
        say(cli, "1", session="a")
        seen = [following.change(), following.change()]
        following.process.kill()
    say(cli, "2", session="a")
    say(cli, "1", session="b")
    delete(cli, "b")
    say(cli, "1", session="c")
    with live(cli, "watch", "--json", "--cursor", seen[-1]["cursor"]) as following:
        told: set[tuple[str, str]] = set()
        while not told >= {("a", "2"), ("b", "deleted"), ("c", "1")}:
            change = following.change()
            told |= {(change["session_id"], what) for what in contents(change) or [change["kind"]]}


@pytest.mark.parametrize("content", ["x" * 300, "日" * 300])
def test_a_line_fits_into_a_terminal(content: str) -> None:
    """Texts are cut, ids are not."""
    body = json_of({"role": "user", "content": content})
    message = Message("i" * 60, (7, "user", body, True, None, datetime.now(UTC)))
    change = Change("i" * 60, "messages", 1, (message,), None, "@1")
    for width, least in ((200, 0), (130, 0), (40, 20)):
        [line] = watching.lines(change, Console(width=width, force_terminal=True), named=True)
        assert line.plain.endswith("…")
        assert "i" * 60 in line.plain
        head = line.plain.partition("user")[0]
        assert line.cell_len <= max(width, len(head) + len("user  ") + least)
        assert line.cell_len >= width - 1
    [line] = watching.lines(change, Console(width=40, force_terminal=False), named=False)
    assert line.plain.endswith(f"{content[:160]}… (140 more)")


# --- what may go wrong ------------------------------------------------------------------------
@pytest.mark.parametrize("options", [(), ("--follow",), ("--follow", "--json")], ids=" ".join)
def test_a_missing_session(sqlite_cli: Cli, options: tuple[str, ...]) -> None:
    """H11: that is all that is said."""
    result = sqlite_cli.run("events", "nobody", *options, code=1)
    assert (result.stdout, result.stderr) == ("", "error: there is no session 'nobody'\n")


@pytest.mark.processes
def test_a_body_of_several_lines_is_one_line(cli: Cli) -> None:
    """Somebody may have written one by hand; a change is a line all the same."""
    say(cli, "hello")
    body = '{"role":\n"user",\n"content":"by hand"}'
    cli.store(lambda _: _by_hand(cli, f"UPDATE sessionstore_messages SET body = '{body}'"))  # noqa: S608  # ours
    with live(cli, "events", "s", "--follow", "--json") as following:
        assert following.change()["kind"] == "created"
        assert contents(following.change()) == ["by hand"]
    assert cli.json("show", "s")["messages"][0]["body"]["content"] == "by hand"


@pytest.mark.processes
def test_a_database_that_goes_away(cli: Cli) -> None:
    """F14: one line, and how to go on when it is back."""
    say(cli, "hello")
    with live(cli, "events", "s", "--follow") as following:
        lines = [following.line(), following.line()]
        cursor = cli.store(lambda sessions: sessions.get("s")).cursor
        cli.store(lambda _: _by_hand(cli, "ALTER TABLE sessionstore_sessions RENAME TO gone"))
        assert following.process.wait() == 1
        _, stopped, error = following.errors()
    assert words(lines[1]) == ["0", "user", "hello"]
    assert stopped == f"stopped; --cursor {cursor} goes on there"
    assert error.startswith("error: statement '")


@pytest.mark.processes
def test_a_server_that_goes_away(postgres_server: Postgres, postgres_database: str, tmp_path: Path) -> None:
    """F14: as on PostgreSQL when the database is dropped under it."""
    cli = Cli(postgres_database, tmp_path)
    say(cli, "hello")
    with live(cli, "watch", "--json", "--cursor", now()) as following:
        assert [following.change()["kind"] for _ in range(2)] == ["created", "messages"]
        asyncio.run(postgres_server.drop_database(make_url(postgres_database).database or ""))
        assert following.process.wait() == 1
        [error] = following.errors()
    assert error == "error: there is no database of that name on the server"
