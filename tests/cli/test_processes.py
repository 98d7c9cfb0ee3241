"""The command line as a process: killed, interrupted, read from by somebody who goes away."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import Cli, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.processes

SESSIONS = 400
MESSAGES = 5


def many(cli: Cli) -> str:
    return cli.lines(*(line(f"s{at:03}", *range(MESSAGES)) for at in range(SESSIONS)))


def stored(cli: Cli) -> int:
    total = cli.json("stats")["total"]
    assert total["messages"] == MESSAGES * total["sessions"], "a session is there in part"
    return int(total["sessions"])


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


@contextlib.contextmanager
def fed(cli: Cli, sessions: int) -> Iterator[subprocess.Popen[bytes]]:
    """An import from a pipe that has given so many sessions and stays open."""
    with cli.process("import", "-") as process:
        assert process.stdin is not None
        for at in range(sessions):
            process.stdin.write(json.dumps(line(f"s{at:03}", *range(MESSAGES))).encode() + b"\n")
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def errors_of(process: subprocess.Popen[bytes]) -> str:
    assert process.stderr is not None
    return process.stderr.read().decode()


def test_killed_halfway_and_run_again(cli: Cli) -> None:
    """P1, X08: `kill -9` leaves whole sessions only; running it again stores the rest, and each once."""
    with fed(cli, SESSIONS // 2) as process:
        until(lambda: stored(cli) > 0)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    before = stored(cli)
    assert 0 < before <= SESSIONS // 2
    report = cli.json("import", many(cli))
    assert (report["created"], report["skipped"]) == (SESSIONS - before, before)
    assert stored(cli) == SESSIONS
    assert cli.json("import", many(cli))["skipped"] == SESSIONS


def test_interrupted_by_the_keyboard(cli: Cli) -> None:
    """One word, what was done, how to go on; and the process ends although nobody closes the pipe."""
    with fed(cli, 20) as process:
        until(lambda: stored(cli) == 20)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        said = errors_of(process)
    assert said.splitlines() == ["interrupted", "20 sessions imported; 100 messages; running it again finishes it"]


def test_a_reader_that_has_seen_enough(sqlite_cli: Cli) -> None:
    """As in `export - | head`: no traceback, and no complaint."""
    sqlite_cli.run("import", sqlite_cli.lines(*(line(f"s{at}", "x" * 100_000) for at in range(20))))
    with sqlite_cli.process("export", "-") as process:
        assert process.stdout is not None
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(30) == 1
        assert errors_of(process) == ""


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("list",), 0, ""),
        (("show", "nobody"), 1, "error: there is no session 'nobody'"),
        (("frobnicate",), 2, "Usage: sessionstore [OPTIONS] COMMAND [ARGS]..."),
    ],
)
def test_exit_codes(sqlite_cli: Cli, arguments: tuple[str, ...], code: int, error: str) -> None:
    with sqlite_cli.process(*arguments) as process:
        _, errors = process.communicate()
    assert process.returncode == code
    assert errors.decode().partition("\n")[0] == error


def test_the_console_script_is_the_same(sqlite_cli: Cli) -> None:
    script = (
        "import sys; from sessionstore.cli import main; sys.argv = ['sessionstore', 'list', '--json']; sys.exit(main())"
    )
    environment = {**os.environ, "SESSIONSTORE_DATABASE_URL": sqlite_cli.url}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"sessions": [], "cursor": None}


def test_an_ascii_terminal_is_no_reason_to_fail(sqlite_cli: Cli) -> None:
    sqlite_cli.run("import", sqlite_cli.lines(line("a", title="日本")))
    environment = {**os.environ, "SESSIONSTORE_DATABASE_URL": sqlite_cli.url, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "sessionstore", "list"], env=environment, capture_output=True, check=True
    )
    assert b"\\u65e5\\u672c" in done.stdout


def on_a_terminal(cli: Cli, *arguments: str) -> tuple[int, bytes, bytes]:
    """Run a command whose standard error is a terminal; its exit code, its output, and what the terminal got."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "SESSIONSTORE_DATABASE_URL": cli.url, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "sessionstore", *arguments]
    seen = b""
    with (
        tempfile.TemporaryFile() as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=theirs) as process,
    ):
        os.close(theirs)
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while chunk := os.read(ours, 65536):
                seen += chunk
        os.close(ours)
        process.wait()
        output.seek(0)
        return process.returncode, output.read(), seen


def test_progress_is_drawn_on_a_terminal_only(sqlite_cli: Cli) -> None:
    path = many(sqlite_cli)
    code, output, seen = on_a_terminal(sqlite_cli, "import", path)
    assert code == 0
    assert output.startswith(b"400 sessions imported")
    assert b"importing" in seen
    assert re.search(rb"\d+ sessions, [\d,]+ messages", seen)
    broken = sqlite_cli.lines(line("x"), "broken", line("y"), name="broken.jsonl")
    code, output, seen = on_a_terminal(sqlite_cli, "import", broken, "--on-error", "continue")
    assert (code, output.partition(b";")[0]) == (1, b"2 sessions imported, 1 failed")
    shown = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).replace(b"\r", b"\n").splitlines()
    assert b"line 2: not JSON at character 0: Expecting value" in shown
    sqlite_cli.run("delete", "x", "y")
    code, output, seen = on_a_terminal(sqlite_cli, "export", "-")
    assert len(output.splitlines()) == SESSIONS
    assert b"exporting" in seen
    code, output, seen = on_a_terminal(sqlite_cli, "prune", "--max-sessions", "1", "--yes", "--json")
    assert json.loads(output)["total"] == SESSIONS - 1
    assert b"pruning" in seen
    with sqlite_cli.process("import", path) as process:
        assert process.communicate()[1] == b""


def test_no_other_process_reads_what_was_exported(sqlite_cli: Cli) -> None:
    """P11: files are private whatever the umask says."""
    sqlite_cli.run("import", sqlite_cli.lines(line("a")))
    out = sqlite_cli.folder / "out.jsonl"
    before = os.umask(0)
    try:
        sqlite_cli.run("export", str(out))
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_reader_beside_a_writer(sqlite_cli: Cli) -> None:
    """P13: listing works while somebody holds the write lock; writing says who is to blame when its time is up."""
    sqlite_cli.run("import", sqlite_cli.lines(line("a")))
    file = sqlite_cli.url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(sqlite_cli.json("list")["sessions"]) == 1
        error = sqlite_cli.refused("--timeout", "2", "trim", "a", "--keep-last", "0")
        assert "locked" in error
        other.execute("ROLLBACK")
    assert sqlite_cli.run("trim", "a", "--keep-last", "0").stdout == "0 messages kept\n"
