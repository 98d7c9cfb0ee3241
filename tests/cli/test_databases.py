"""`sessionstore db`."""

from __future__ import annotations

import pytest

from sessionstore import migrate
from sessionstore.backfill import backfills
from sessionstore.schema import REVISION
from tests.cli.conftest import Cli
from tests.support.repositories import execute, rows


def test_from_nothing_to_the_newest(no_database: Cli) -> None:
    """X06: the file is made, and made private."""
    assert no_database.run("db", "upgrade").stdout == f"the database is at revision {REVISION}\n"
    assert no_database.run("db", "current").stdout == f"{REVISION}\n"
    assert no_database.run("db", "check").stdout == "the tables are at the newest revision\n"
    assert no_database.run("list").stdout == "there are no sessions\n"
    file = no_database.folder / "nowhere" / "sessions.db"
    assert file.stat().st_mode & 0o077 == 0
    assert no_database.json("db", "upgrade") == {"revision": REVISION}
    assert no_database.json("db", "current") == {"revision": REVISION}
    assert no_database.json("db", "check") == {"ok": True}


def test_a_schema_of_its_own(unmigrated_postgres: Cli) -> None:
    """X06: the option counts before the command and behind it."""
    assert unmigrated_postgres.json("db", "upgrade", "--schema", "chat") == {"revision": REVISION}
    assert unmigrated_postgres.json("--schema", "chat", "db", "current") == {"revision": REVISION}
    assert unmigrated_postgres.json("db", "current") == {"revision": None}
    assert unmigrated_postgres.json("list", "--schema", "chat") == {"sessions": [], "cursor": None}


def test_the_script_needs_no_database(no_database: Cli) -> None:
    script = no_database.run("db", "sql", "--schema", "chat").stdout
    assert script == migrate.sql(schema="chat")
    assert '"chat"' in script
    assert "CREATE TABLE" in script
    assert list((no_database.folder / "nowhere").iterdir()) == []


def test_the_default_database_is_in_this_folder(no_database: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(no_database.folder)
    told = no_database.run("db", "upgrade", SESSIONSTORE_DATABASE_URL=None)
    assert told.stderr == "no database was named, so it is sqlite:///sessionstore.db in this folder\n"
    assert no_database.run("db", "upgrade").stderr == ""
    assert (no_database.folder / "sessionstore.db").exists()
    assert no_database.run("list", SESSIONSTORE_DATABASE_URL="").stdout == "there are no sessions\n"


def test_what_is_typed_counts_more_than_the_variable(no_database: Cli) -> None:
    no_database.run("db", "upgrade")
    for arguments in (("list", "--database", no_database.url), ("--database", no_database.url, "list")):
        assert no_database.run(*arguments, SESSIONSTORE_DATABASE_URL="nonsense").stdout == "there are no sessions\n"


def test_back_and_forth(cli: Cli) -> None:
    """P9: going back says what it costs, and asks first."""
    refused = cli.run("db", "downgrade", "--to", "0001", code=1)
    assert "0003: `downgrade` drops the table." in refused.stderr
    assert "0002: `downgrade` drops the views" in refused.stderr
    assert "0001:" not in refused.stderr
    assert refused.stderr.endswith("nobody answered; --yes does not ask\nnothing was changed\n")
    assert cli.json("db", "current") == {"revision": REVISION}
    assert cli.json("db", "downgrade", "--to", "0001", "--yes") == {"revision": "0001"}
    assert cli.refused("db", "check").endswith("db upgrade")
    assert cli.run("db", "upgrade", "--to", "0002", "--timeout", "5").stdout == "the database is at revision 0002\n"
    assert cli.run("db", "downgrade", "--to", "base", "--yes").stdout == "there are no sessionstore tables\n"
    assert cli.run("db", "downgrade", "--to", "base").stdout == "there are no sessionstore tables\n"


def test_nobody_is_asked_for_json(cli: Cli) -> None:
    """P9: going back without --yes is refused, and nothing was done."""
    assert "there is nobody to ask: add --yes" in cli.misused("db", "downgrade", "--to", "0001", "--json")
    assert cli.json("db", "check") == {"ok": True}


def test_an_upgrade_goes_no_way_back(cli: Cli) -> None:
    """P9: to an older revision there is nothing to do."""
    assert cli.json("db", "upgrade", "--to", "0002") == {"revision": REVISION}
    assert cli.json("db", "check") == {"ok": True}


def test_the_history(cli: Cli) -> None:
    lines = cli.run("db", "history").stdout.splitlines()
    assert [line[:6] for line in lines] == ["  0001", "  0002", "  0003", "* 0004"]
    assert "expand" in lines[0]
    found = cli.json("db", "history")
    assert found["current"] == REVISION
    assert [each["revision"] for each in found["revisions"]] == ["0001", "0002", "0003", "0004"]
    assert all(each["locks"] and each["goes_back"] and each["title"] for each in found["revisions"])


def test_a_script_in_either_direction(no_database: Cli) -> None:
    """P9: for databases that change only through somebody's hands."""
    assert "CREATE TABLE sessionstore_backfills" in no_database.run("db", "sql", "--from", "0002").stdout
    down = no_database.run("db", "sql", "--from", "head", "--to", "0002").stdout
    assert "DROP TABLE sessionstore_backfills" in down
    assert "DROP VIEW" not in down
    assert no_database.refused("db", "sql", "--from", "0002", "--to", "0002").endswith("there is nothing to do")


def test_backfills(cli: Cli) -> None:
    """P8: what there is, how far it is, and what it did."""
    cli.store(lambda sessions: sessions.append("s", {"role": "user", "seed_id": "x"}, create=True))
    assert cli.run("db", "backfill").stdout.count("not begun") == 2
    assert cli.run("db", "backfill", "message-columns").stdout == "1 row seen, 0 changed\n"
    assert cli.json("db", "backfill", "message-columns", "--restart")["seen"] == 1
    assert "finished" in cli.run("db", "backfill").stdout
    [found] = cli.json("db", "backfill")["backfills"]
    assert (found["job"], found["seen"], found["changed"], found["unreadable"]) == ("message-columns", 1, 0, 0)
    assert cli.refused("db", "backfill", "nothing").startswith("there is no backfill 'nothing'; there are message-col")
    cli.store(lambda sessions: execute(sessions, "UPDATE sessionstore_messages SET body = '[]'"))
    told = cli.run("db", "backfill", "message-columns", "--restart", code=1)
    assert "1 row could not be read: sessionstore verify --all-tenants" in told.stderr


@pytest.mark.processes
def test_a_backfill_that_is_killed_goes_on(cli: Cli) -> None:
    """P6: wherever it was."""
    bodies = [{"role": "user", "seed_id": f"s{at}"} for at in range(200)]
    cli.store(lambda sessions: sessions.append("s", *bodies, create=True))
    cli.store(lambda sessions: execute(sessions, "UPDATE sessionstore_messages SET seed_id = NULL"))
    process = cli.process("db", "backfill", "message-columns", "--batch", "5", module="tests.support.stepped")
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(4):
        assert process.stdout.readline() == b"batch\n"
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert process.stdout.readline() == b"batch\n"
    process.kill()
    process.communicate()
    [left] = cli.store(backfills)
    assert (left.seen, left.finished_at) == (20, None)
    assert cli.run("db", "backfill", "message-columns").stdout == "200 rows seen, 200 changed\n"
    found = cli.store(lambda sessions: rows(sessions, "SELECT count(*) FROM sessionstore_messages WHERE seed_id <> ''"))
    assert found == [(200,)]
