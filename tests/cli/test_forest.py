"""The tree of forks, whatever parents say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import SessionSummary
from sessionstore.cli import forest
from sessionstore.operations import Branch, grow

MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


def summary(session_id: str, parent_id: str | None = None, *, age: int = 0, title: str | None = None) -> SessionSummary:
    created = MOMENT - timedelta(minutes=age)
    return SessionSummary(session_id, "", title, parent_id, 2, None, None, created, MOMENT)


def picture(*summaries: SessionSummary) -> list[str]:
    return [line.plain.replace("  2 messages, 2025-01-01 00:00", "") for line in forest.drawn(grow(summaries))]


def test_forks_are_drawn_below_their_parent_oldest_first() -> None:
    summaries = (summary("d", "b"), summary("c", "a"), summary("b", "a", age=5), summary("a", age=9), summary("e"))
    assert picture(*summaries) == [
        "a",
        "├─ b",
        "│  └─ d",
        "└─ c",
        "e",
    ]


def test_titles() -> None:
    assert picture(summary("a", title="two\nlines \x1b[2J")) == ["a  two lines \\x1b[2J"]


def test_a_parent_that_is_gone() -> None:
    assert picture(summary("b", "a"), summary("c", "a"), summary("d", "b")) == [
        "a  is gone",
        "├─ b",
        "│  └─ d",
        "└─ c",
    ]


def test_parents_that_form_a_circle() -> None:
    assert picture(summary("b", "a"), summary("c", "b"), summary("a", "c"), summary("x", "b")) == [
        "a  its parent c descends from it",
        "└─ b",
        "   ├─ c",
        "   └─ x",
    ]


def test_a_session_that_is_its_own_parent() -> None:
    assert picture(summary("a", "a"), summary("b", "a")) == ["a  its parent a descends from it", "└─ b"]


def test_a_deep_line_of_forks_is_cut_where_nobody_could_read_it() -> None:
    summaries = [summary("s0"), *(summary(f"s{at}", f"s{at - 1}") for at in range(1, 5000))]
    drawn = picture(*summaries)
    assert len(drawn) == 42
    assert drawn[-1].strip() == "└─ … 4,959 sessions below: tree s40"
    listed = forest.listed(grow(summaries))
    assert [row["id"] for row in listed] == [f"s{at}" for at in range(5000)]
    assert listed[-1]["depth"] == 4999


def test_as_a_list() -> None:
    listed = forest.listed(grow([summary("b", "a", title="t"), summary("c", "b"), summary("x", "x")]))
    assert [(row["id"], row["depth"], row["missing"], row["circular"], row["forks"]) for row in listed] == [
        ("a", 0, True, False, ["b"]),
        ("b", 1, False, False, ["c"]),
        ("c", 2, False, False, []),
        ("x", 0, False, True, []),
    ]
    assert [row["title"] for row in listed] == [None, "t", None, None]


parents = st.lists(st.integers(0, 14) | st.none(), max_size=12)


@given(parents)
def test_every_session_stands_in_one_place(of: list[int | None]) -> None:
    """Whatever parents there are: none, missing ones, circles."""
    summaries = [summary(f"s{at:02}", None if parent is None else f"s{parent:02}") for at, parent in enumerate(of)]
    roots = grow(summaries)
    found: list[Branch] = []
    waiting = list(roots)
    while waiting:
        branch = waiting.pop()
        found.append(branch)
        waiting += branch.forks
        for fork in branch.forks:
            assert fork.summary is not None
            assert fork.summary.parent_id == branch.id
        assert len(found) <= 2 * len(of), "it goes on for ever"
    there = [branch for branch in found if branch.summary is not None]
    assert sorted(branch.id for branch in there) == [entry.id for entry in summaries]
    missing = {branch.id for branch in found if branch.summary is None}
    assert missing == {f"s{parent:02}" for parent in of if parent is not None and parent >= len(of)}
    for root in roots:
        assert root.comes_round or root.summary is None or root.summary.parent_id is None
    assert len(list(forest.drawn(roots))) == len(found)


def test_branches_are_told_apart_by_identity() -> None:
    with pytest.raises(ValueError, match="not in list"):
        [Branch("a")].remove(Branch("a"))
