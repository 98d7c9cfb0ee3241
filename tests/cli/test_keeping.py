"""`verify`, `backup` and `maintain`."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

from sqlalchemy import make_url

from sessionstore import SessionRepository
from sessionstore.cli.running import DATABASE_VARIABLE
from sessionstore.dialects.urls import normalize_url
from tests.cli.conftest import ROOT, Cli, line
from tests.support.planting import plant
from tests.support.templates import sqlite_url

if TYPE_CHECKING:
    from pathlib import Path

WORD = "canary-2c9e"
HOLE = "DELETE FROM sessionstore_messages WHERE session_id = 'b' AND position = 1"
FLAG = "UPDATE sessionstore_metadata SET plain = false WHERE session_id = 'a'"
"""Two faults."""


def filled(cli: Cli) -> None:
    entries = [line(name, WORD, WORD, WORD, metadata={"k": WORD}) for name in ("a", "b", "c")]
    cli.run("import", cli.lines(*entries))


def damage(cli: Cli, *faults: str) -> None:
    for fault in faults:
        asyncio.run(plant(normalize_url(cli.url).render_as_string(hide_password=False), fault))


# --- verify -------------------------------------------------------------------------------------


def test_nothing_is_wrong(cli: Cli) -> None:
    """P2: one line with what was looked at, and exit code 0."""
    filled(cli)
    counts = "3 sessions, 9 messages, 3 metadata values, 3 events, 0 documents"
    assert cli.run("verify").stdout == f"{counts}: nothing is wrong\n"
    assert cli.run("verify", "--tenant", "nobody").stdout.startswith("0 sessions, 0 messages")
    assert cli.json("verify", "--all-tenants") == {
        "findings": [],
        "ok": True,
        "checked": {"sessions": 3, "messages": 9, "metadata": 3, "events": 3, "documents": 0},
    }


def test_something_is_wrong(cli: Cli) -> None:
    """P2: one line each and a last one with the counts, and exit code 1; never what was said."""
    filled(cli)
    damage(cli, HOLE, FLAG)
    result = cli.run("verify", code=1)
    assert result.stdout.splitlines() == [
        "session 'b', position 1: there is no message (missing)",
        "session 'a', key 'k': the flag does not say how to read what is stored (plain)",
        "3 sessions, 8 messages, 3 metadata values, 3 events, 0 documents: 2 findings",
    ]
    assert result.stderr == ""
    assert WORD not in result.output
    found = cli.json("verify", code=1)
    assert found["findings"] == [
        {"fault": "missing", "tenant": "", "session_id": "b", "position": 1, "count": 1},
        {"fault": "plain", "tenant": "", "session_id": "a", "key": "k", "count": 1},
    ]
    assert (found["ok"], found["checked"]["messages"]) == (False, 8)
    assert WORD not in json.dumps(found)


def test_all_tenants_or_one(cli: Cli) -> None:
    """P7: without --all-tenants it is about one tenant, and both at once makes no sense."""
    filled(cli)
    cli.run("--tenant", "acme", "import", cli.lines(line("x", WORD, WORD)))
    damage(cli, "DELETE FROM sessionstore_messages WHERE session_id = 'x' AND position = 0")
    assert cli.run("verify").stdout.endswith("nothing is wrong\n")
    told = "tenant 'acme', session 'x', position 0: there is no message (missing)"
    assert cli.run("verify", "--tenant", "acme", code=1).stdout.splitlines()[0] == told
    assert cli.run("verify", "--all-tenants", code=1).stdout.splitlines() == [
        told,
        "4 sessions, 10 messages, 3 metadata values, 4 events, 0 documents: 1 finding",
    ]
    assert "it excludes --tenant" in cli.misused("verify", "--all-tenants", "--tenant", "acme")


def test_a_name_cannot_command_the_terminal(cli: Cli) -> None:
    """P11: what a finding names is shown as text, on one line."""
    filled(cli)
    damage(cli, "UPDATE sessionstore_metadata SET key = 'a\x1b[2Jb', plain = false WHERE session_id = 'a'")
    first, _ = cli.run("verify", code=1).stdout.splitlines()
    assert "\x1b" not in first
    assert "[2Jb" in first


def test_a_database_that_cannot_be_verified(no_database: Cli, unmigrated_postgres: Cli) -> None:
    """P12: it is an error, and no clean bill of health."""
    assert "db upgrade" in no_database.refused("verify")
    assert "db upgrade" in unmigrated_postgres.refused("verify")


def test_progress_is_for_those_who_look(sqlite_cli: Cli) -> None:
    """H01: on standard error, on a terminal only."""
    filled(sqlite_cli)
    main, terminal = pty.openpty()
    environment = {**os.environ, DATABASE_VARIABLE: sqlite_cli.url, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    command = [sys.executable, "-m", "sessionstore", "verify"]
    ended = subprocess.run(
        command, cwd=sqlite_cli.folder, env=environment, stderr=terminal, stdout=subprocess.PIPE, check=True
    )
    os.close(terminal)
    drawn = b""
    while b"verifying" not in drawn:
        drawn += os.read(main, 10_000)
    os.close(main)
    assert ended.stdout.decode().endswith("nothing is wrong\n")


# --- backup -------------------------------------------------------------------------------------


def test_a_backup(sqlite_cli: Cli, tmp_path: Path) -> None:
    """F08: a copy that passes `verify`, readable by its owner only; a file that is there is left alone."""
    filled(sqlite_cli)
    copy = tmp_path / "copies" / "chats.db"
    copy.parent.mkdir()
    told = sqlite_cli.run("backup", str(copy)).stdout
    assert told.startswith(f"{copy}: ")
    assert copy.stat().st_mode & 0o777 == 0o600
    copied = Cli(f"sqlite:///{copy}", tmp_path)
    assert copied.json("verify")["checked"] == sqlite_cli.json("verify")["checked"]
    assert "exists already" in sqlite_cli.refused("backup", str(copy))
    sqlite_cli.run("delete", "a")
    assert sqlite_cli.json("backup", "--force", str(copy)) == {"file": str(copy), "bytes": copy.stat().st_size}
    assert copied.json("stats")["total"]["sessions"] == 2


def test_a_backup_beside_another_process(sqlite_cli: Cli, tmp_path: Path) -> None:
    """P1, F08: while a process imports, a copy is whole sessions only."""
    entries = [line(f"s{at:04}", *range(5)) for at in range(1000)]
    with sqlite_cli.process("import", sqlite_cli.lines(*entries)) as process:
        copies: list[Path] = []
        while process.poll() is None:
            copies.append(tmp_path / f"copy-{len(copies)}.db")
            sqlite_cli.run("backup", str(copies[-1]))
    assert copies
    for copy in copies:
        checked = Cli(f"sqlite:///{copy}", tmp_path).json("verify")["checked"]
        assert checked["messages"] == 5 * checked["sessions"]


def test_a_backup_that_cannot_be(sqlite_cli: Cli, no_database: Cli, tmp_path: Path) -> None:
    """P12: a folder that is not there, a database that is not there."""
    assert "No such file" in sqlite_cli.refused("backup", str(tmp_path / "gone" / "copy.db"))
    assert "db upgrade" in no_database.refused("backup", str(tmp_path / "copy.db"))
    assert not (tmp_path / "copy.db").exists()


def test_postgresql_has_a_tool_of_its_own(postgres_database: str, tmp_path: Path) -> None:
    """F08: the error names it, and the page."""
    cli = Cli(postgres_database, tmp_path)
    reason = cli.refused("backup", str(tmp_path / "copy.db"))
    assert "pg_dump" in reason
    assert "docs/operations.md" in reason


# --- maintain -----------------------------------------------------------------------------------


def test_maintenance_leaves_no_byte_of_what_was_deleted(sqlite_cli: Cli, tmp_path: Path) -> None:
    """P5: in the file, its log and its index, with the store open in this process all along."""
    [file] = tmp_path.glob("*.db")

    async def inside() -> bytes:
        async with SessionRepository.connect(sqlite_url(file)) as sessions:
            await sessions.append("s", *[{"role": "user", "content": WORD}] * 50, create=True)
            await sessions.update("s", user_id="ann")
            await asyncio.to_thread(sqlite_cli.run, "delete", "--user", "ann", "--yes")
            before = live(tmp_path)
            await asyncio.to_thread(sqlite_cli.run, "maintain")
            assert await sessions.length("kept") == 3
            return before

    sqlite_cli.run("import", sqlite_cli.lines(line("kept", 1, 2, 3)))
    assert WORD.encode() in asyncio.run(inside())
    assert WORD.encode() not in live(tmp_path)


def live(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("*.db*"))


def test_maintenance_of_either_database(cli: Cli) -> None:
    """P5: it tells how much room there was and is, and changes nothing else."""
    filled(cli)
    before = cli.json("stats")
    found = cli.json("maintain")
    assert found["after"] > 0
    assert set(found) == {"before", "after"}
    assert cli.run("maintain").stdout.startswith("from ")
    assert cli.json("stats") == before
    assert cli.run("verify").stdout.endswith("nothing is wrong\n")


def test_maintenance_in_a_schema(postgres_empty: str, tmp_path: Path) -> None:
    """X01: the tables are found where they are."""
    cli = Cli(make_url(postgres_empty).render_as_string(hide_password=False), tmp_path)
    cli.run("--schema", "team", "db", "upgrade")
    cli.run("--schema", "team", "import", cli.lines(line("a", WORD)))
    assert cli.json("--schema", "team", "maintain")["after"] > 0
    assert cli.json("--schema", "team", "verify", "--all-tenants")["checked"]["messages"] == 1
