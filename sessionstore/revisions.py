"""The revisions that this code knows, and where they are."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from alembic.config import Config
from alembic.script import ScriptDirectory

from sessionstore.errors import InvalidArgumentError, SessionStoreError

Phase = Literal["expand", "contract"]


class Migration(NamedTuple):
    """One revision.

    Attributes:
        revision: its id, four digits.
        phase: `"expand"` is safe while the code of the release before runs; `"contract"` is not.
        title: what it brings, in one line.
        locks: what it locks, for how long.
        goes_back: what `downgrade` does, and what it loses.
    """

    revision: str
    phase: Phase
    title: str
    locks: str
    goes_back: str


@functools.cache
def location() -> Path:
    """The folder of the migrations: beside this file in a wheel, at the top of a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_alembic" / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise SessionStoreError("this installation of sessionstore has no migrations")


def config(**options: Any) -> Config:
    """Alembic's configuration, without the ini file: its interpolation would trip over a % in the path."""
    made = Config(**options)
    made.set_main_option("script_location", str(location()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    return made


@functools.cache
def known() -> tuple[str, ...]:
    """The ids of all revisions, oldest first: one line of descent, no branches."""
    return tuple(script.revision for script in _scripts())


def head() -> str:
    """The newest revision."""
    return known()[-1]


def place(revision: str) -> int:
    """Where a revision stands among those known; -1 is `"base"`, before the first.

    Raises:
        InvalidArgumentError: there is no such revision.
    """
    if revision == "base":
        return -1
    if revision == "head":
        return len(known()) - 1
    if revision not in known():
        raise InvalidArgumentError(f"there is no revision {revision!r}; there are {', '.join(known())}")
    return known().index(revision)


def history() -> list[Migration]:
    """Every revision that this code knows, oldest first. Reads no database."""
    return [
        Migration(
            revision=script.revision,
            phase=script.module.phase,
            title=script.doc,
            locks=_said(script.path, "Locks"),
            goes_back=_said(script.path, "Goes back"),
        )
        for script in _scripts()
    ]


def compatible_from(revision: str) -> str:
    """The oldest code, named by its revision, that may use tables that a revision has made."""
    oldest = known()[0]
    for script in _scripts()[: place(revision) + 1]:
        written = re.findall(r"compatible_from = '(\w+)'", inspect.getsource(script.module.upgrade))
        oldest = written[-1] if written else oldest
    return oldest


def _scripts() -> list[Any]:
    return list(reversed(list(ScriptDirectory(str(location())).walk_revisions())))


_HEADINGS: Final = ("Problem", "Phase", "Locks", "Cost at 10 M rows", "Goes back", "Revision ID")


def _said(path: str, heading: str) -> str:
    """What a revision's docstring says under a heading, in one line."""
    docstring = ast.get_docstring(ast.parse(Path(path).read_text("utf-8"))) or ""
    ends = "|".join(_HEADINGS)
    found = re.search(rf"^{heading}: (.*?)(?=^(?:{ends}): |^$|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return " ".join(found[1].split()) if found else ""
