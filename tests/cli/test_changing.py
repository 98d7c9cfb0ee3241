"""`fork`, `trim`, `prune`, `delete`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer

from sessionstore import SessionRepository, Transcript
from sessionstore.cli.changing import duration
from sessionstore.cli.progress import Bar
from tests.cli.conftest import Cli

NOW = datetime.now(UTC)


def fill(cli: Cli, *ages: int, tenant: str = "", user_id: str = "") -> None:
    """Sessions s0, s1, ... that were last changed so many days ago."""

    async def work(sessions: SessionRepository) -> None:
        for at, age in enumerate(ages):
            updated = NOW - timedelta(days=age)
            transcript = Transcript.of(f"s{at}", [{"role": "user", "n": at}], updated_at=updated, user_id=user_id)
            await sessions.save(transcript)

    cli.store(work, tenant)


def left(cli: Cli, *options: str) -> list[str]:
    return sorted(row["id"] for row in cli.json("list", *options)["sessions"])


def conversation(cli: Cli) -> None:
    roles = ("user", "assistant", "tool", "assistant", "user", "assistant")
    bodies: list[dict[str, Any]] = [{"role": role, "n": at} for at, role in enumerate(roles)]
    cli.store(lambda sessions: sessions.append("a", *bodies, create=True))


def test_fork(cli: Cli) -> None:
    """H16, H18, H23: whole, or the first messages; a new id is printed and nothing else."""
    conversation(cli)
    child = cli.run("fork", "a").stdout.strip()
    assert cli.store(lambda sessions: sessions.length(child)) == 6
    result = cli.run("fork", "a", "--at", "2", "--new-id", "b")
    assert (result.stdout, result.stderr) == ("b\n", "2 messages\n")
    assert cli.json("fork", "b", "--at", "0", "--new-id", "c") == {"id": "c", "parent_id": "b", "length": 0}


def test_fork_over_another_session(cli: Cli) -> None:
    """H19: only when asked to."""
    conversation(cli)
    cli.store(lambda sessions: sessions.append("b", {"role": "user"}, create=True))
    assert cli.refused("fork", "a", "--new-id", "b") == "session 'b' exists already"
    cli.run("fork", "a", "--new-id", "b", "--replace")
    assert cli.store(lambda sessions: sessions.length("b")) == 6


def test_trim(cli: Cli) -> None:
    """H26: exact, or at turns."""
    conversation(cli)
    assert cli.run("trim", "a", "--keep-last", "5").stdout == "5 messages kept\n"
    assert cli.json("trim", "a", "--keep-last", "1", "--align", "turn") == {"id": "a", "kept": 2}
    assert cli.run("trim", "a", "--keep-last", "0").stdout == "0 messages kept\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("45s", timedelta(seconds=45)),
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("9" * 20 + "d", timedelta.max),
        ("9" * 400 + "w", timedelta.max),
    ],
)
def test_times(text: str, expected: timedelta) -> None:
    """O14: a huge age does not overflow."""
    assert duration(text) == expected


@pytest.mark.parametrize("text", ["", "5", "d", "-5d", "1.5d", "5 d", "5y", "\u0665d"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time like 30d, 12h or 2w"):
        duration(text)


def test_prune_tells_what_would_go_and_asks(cli: Cli) -> None:
    """O14: and deletes when the answer is yes."""
    fill(cli, 0, 5, 50, 60)
    result = cli.run("prune", "--max-age", "30d", given="y\n")
    assert "2 sessions would go:" in result.stderr
    assert {"s2", "s3"} <= set(result.stderr.split())
    assert "delete 2 sessions for good? [y/N]" in result.output
    assert "2 sessions deleted by age" in result.stdout
    assert left(cli) == ["s0", "s1"]


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_prune_deletes_nothing_without_a_yes(cli: Cli, answer: str) -> None:
    """O14: also where there is nobody to answer."""
    fill(cli, 50)
    result = cli.run("prune", "--max-age", "30d", given=answer, code=1)
    assert result.stderr.endswith("nothing was deleted\n")
    assert left(cli) == ["s0"]


def test_prune_by_number_without_asking(cli: Cli) -> None:
    """O15: the newest stay."""
    fill(cli, 1, 2, 3, 4, 5)
    result = cli.run("prune", "--max-sessions", "3", "--yes")
    assert result.stdout == "2 sessions deleted by number\n"
    assert result.stderr == ""
    assert left(cli) == ["s0", "s1", "s2"]


def test_prune_that_finds_nothing_does_not_ask(cli: Cli) -> None:
    fill(cli, 1)
    assert cli.run("prune", "--max-age", "30d").stdout == "0 sessions deleted\n"


def test_dry_run(cli: Cli) -> None:
    """O16: age before number; nothing is deleted."""
    fill(cli, 0, 1, 2, 40, 50)
    result = cli.run("prune", "--max-age", "30d", "--max-sessions", "1", "--dry-run")
    assert [line.split() for line in result.stdout.splitlines()][-3:] == [
        ["age", "2"],
        ["number", "2"],
        ["4", "sessions", "would", "go"],
    ]
    counts = cli.json("prune", "--max-age", "30d", "--max-sessions", "1", "--dry-run")
    assert sorted(counts.pop("session_ids")) == ["s1", "s2", "s3", "s4"]
    assert counts == {"dry_run": True, "total": 4, "age": 2, "idle": 0, "number": 2}
    assert len(left(cli)) == 5
    counts = cli.json("prune", "--max-age", "30d", "--max-sessions", "1", "--yes")
    assert counts == {"dry_run": False, "total": 4, "age": 2, "idle": 0, "number": 2}


def test_only_the_first_ten_are_named(cli: Cli) -> None:
    fill(cli, *([50] * 12))
    result = cli.run("prune", "--max-age", "30d", "--dry-run")
    assert "… and 2 more (--dry-run --json names them)" in result.stderr
    assert len(result.stderr.splitlines()) == 11


def test_prune_for_each_user_and_by_idleness(cli: Cli) -> None:
    """O15: of one tenant only."""
    fill(cli, 1, 2, 3, user_id="ada")
    fill(cli, 1, 2, tenant="other")
    cli.store(lambda sessions: sessions.save(Transcript.of("mine", user_id="bob", updated_at=NOW - timedelta(days=9))))
    assert cli.json("prune", "--max-sessions", "1", "--per-user", "--yes")["number"] == 2
    assert left(cli) == ["mine", "s0"]
    assert cli.json("prune", "--max-idle", "1d", "--yes")["total"] == 0  # they were stored just now
    assert left(cli, "--tenant", "other") == ["s0", "s1"]


def test_prune_in_batches(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """O17: the count is what was really deleted, and progress adds up to it."""
    fill(cli, *([50] * 7))
    monkeypatch.setattr("sessionstore.operations.PRUNE_BATCH", 3)
    seen: list[int] = []
    advance = Bar.advance

    def noting(self: Bar, by: int) -> None:
        seen.append(by)
        advance(self, by)

    monkeypatch.setattr(Bar, "advance", noting)
    assert cli.json("prune", "--max-age", "30d", "--yes")["total"] == 7
    assert [count for count in seen if count] == [3, 3, 1]


def test_delete(cli: Cli) -> None:
    """H13, O10: what is there goes; what is not is an error, and the others go all the same."""
    fill(cli, 1, 2, 3)
    assert cli.run("delete", "s0").stdout == "1 session deleted\n"
    result = cli.run("delete", "s1", "gone", "s1", code=1)
    assert (result.stdout, result.stderr) == ("1 session deleted\n", "error: there is no session 'gone'\n")
    assert cli.json("delete", "s2", "gone", "away", code=1) == {"deleted": 1, "missing": ["gone", "away"]}
    assert cli.run("delete", "gone", "away", code=1).stderr == "error: there are no sessions 'gone', 'away'\n"
    assert left(cli) == []


def test_delete_of_a_user_asks(cli: Cli) -> None:
    """X05: every session of the user."""
    fill(cli, 1, 2, user_id="ada")
    cli.store(lambda sessions: sessions.create("mine"))
    assert cli.run("delete", "--user", "ada", given="n\n", code=1).stderr.endswith("nothing was deleted\n")
    assert len(left(cli)) == 3
    assert "2 sessions deleted" in cli.run("delete", "--user", "ada", given="y\n").stdout
    assert cli.json("delete", "--user", "ada", "--yes") == {"deleted": 0, "missing": []}
    assert left(cli) == ["mine"]
