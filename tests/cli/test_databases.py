"""`sessionstore db`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sessionstore import migrate
from sessionstore.schema import REVISION
from tests.cli.conftest import Cli

if TYPE_CHECKING:
    import pytest


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
    no_database.run("db", "upgrade", SESSIONSTORE_DATABASE_URL=None)
    assert (no_database.folder / "sessionstore.db").exists()
    assert no_database.run("list", SESSIONSTORE_DATABASE_URL="").stdout == "there are no sessions\n"


def test_what_is_typed_counts_more_than_the_variable(no_database: Cli) -> None:
    no_database.run("db", "upgrade")
    for arguments in (("list", "--database", no_database.url), ("--database", no_database.url, "list")):
        assert no_database.run(*arguments, SESSIONSTORE_DATABASE_URL="nonsense").stdout == "there are no sessions\n"
