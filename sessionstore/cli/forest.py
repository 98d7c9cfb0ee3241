"""The tree of forks, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.text import Text

from sessionstore.cli.terminal import brief, one_line, plural, when
from sessionstore.operations import Branch

_DEEPEST: Final = 40
"""Generations that are drawn: each takes three columns."""


def drawn(roots: list[Branch], *, marked: str | None = None) -> Iterator[Text]:
    """Draw the trees; `marked` stands out."""
    for root in roots:
        # What is still to be drawn: a branch, what stands before its own line, and before the lines of its forks.
        waiting: list[tuple[Branch, str, str]] = [(root, "", "")]
        while waiting:
            branch, before, below = waiting.pop()
            yield Text.assemble((before, "dim"), _label(branch, marked))
            if len(below) >= _DEEPEST * 3 and branch.forks:
                hidden = plural(_descendants(branch), "session")
                yield Text(f"{below}└─ … {hidden} below: tree {one_line(branch.id)}", style="dim")
                continue
            last = len(branch.forks) - 1
            lines = [
                (fork, below + ("└─ " if at == last else "├─ "), below + ("   " if at == last else "│  "))
                for at, fork in enumerate(branch.forks)
            ]
            waiting += reversed(lines)


def _label(branch: Branch, marked: str | None) -> Text:
    summary = branch.summary
    if summary is None:
        return Text.assemble((one_line(branch.id), "dim strike"), ("  is gone", "dim"))
    return Text.assemble(
        (one_line(branch.id), "bold reverse" if branch.id == marked else "bold"),
        f"  {brief(summary.title)}" if summary.title else "",
        (f"  {plural(summary.message_count, 'message')}, {when(summary.updated_at)}", "dim"),
        (f"  its parent {one_line(summary.parent_id or '')} descends from it" if branch.comes_round else "", "red"),
    )


def listed(roots: list[Branch]) -> list[dict[str, Any]]:
    """The trees as a flat list in the order in which they are drawn; JSON readers stop at some depth."""
    rows: list[dict[str, Any]] = []
    waiting = [(root, 0) for root in reversed(roots)]
    while waiting:
        branch, depth = waiting.pop()
        summary = branch.summary
        rows.append(
            {
                "id": branch.id,
                "depth": depth,
                "missing": summary is None,
                "circular": branch.comes_round,
                "parent_id": summary.parent_id if summary else None,
                "title": summary.title if summary else None,
                "message_count": summary.message_count if summary else 0,
                "updated_at": summary.updated_at if summary else None,
                "forks": [fork.id for fork in branch.forks],
            }
        )
        waiting += [(fork, depth + 1) for fork in reversed(branch.forks)]
    return rows


def _descendants(branch: Branch) -> int:
    waiting, count = list(branch.forks), 0
    while waiting:
        count += 1
        waiting += waiting.pop().forks
    return count
