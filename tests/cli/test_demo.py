"""`sessionstore demo`: what a newcomer sees first."""

from __future__ import annotations

import json
import tempfile
from importlib.resources import files
from typing import TYPE_CHECKING

from tests.cli.conftest import Cli

if TYPE_CHECKING:
    import pytest


def test_it_shows_what_the_product_does(no_database: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """H26, H23, O14: import, append, read, fork, trim, prune; and nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(no_database.folder / "nowhere"))
    said = no_database.run("demo").stdout
    for words in (
        "8 sessions, 35 messages",
        "positions 9 to 12",
        '→ book({"room": "Graça", "nights": 2})',
        "4 messages copied",
        "4 messages kept",
        "would go: facture, patra",
        "2 sessions deleted",
        "├─ lisbon-by-train",
        "└─ lisbon-by-bus",
        "明日の京都の天気",
    ):
        assert words in said, words
    assert len(said.splitlines()) < 60
    assert list((no_database.folder / "nowhere").iterdir()) == []


def test_the_database_can_be_kept(no_database: Cli) -> None:
    file = no_database.folder / "nowhere" / "kept.db"
    said = no_database.run("demo", "--keep", str(file)).stdout
    command = said.splitlines()[-1].split()
    assert command == ["sessionstore", "--database", f"sqlite:///{file}", "tree"]
    assert "lisbon-by-bus" in no_database.run(*command[1:]).stdout
    assert no_database.refused("demo", "--keep", str(file)) == f"{file} is there already"


def test_it_never_touches_the_database_that_is_configured(sqlite_cli: Cli) -> None:
    sqlite_cli.run("demo")
    assert sqlite_cli.json("list") == {"sessions": [], "cursor": None}


def test_the_sample_is_ours() -> None:
    """Several languages, a tool-using agent, a fork."""
    lines = (files("sessionstore.cli") / "sample.jsonl").read_text("utf-8").splitlines()
    sessions = [json.loads(line) for line in lines]
    assert len({session["metadata"]["lang"] for session in sessions}) >= 5
    assert any("tool_calls" in message for session in sessions for message in session["messages"])
    parents = {session["id"]: session["messages"] for session in sessions}
    [fork] = [session for session in sessions if "parent_id" in session]
    kept = fork["fork_position"]
    assert parents[fork["parent_id"]][:kept] == fork["messages"][:kept]
