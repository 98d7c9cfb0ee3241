"""The parts of a Markdown page that can be checked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]

PAGES: Final = tuple(
    sorted(
        [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")],
        key=lambda page: page.relative_to(ROOT).as_posix(),
    )
)

_FENCE: Final = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"(?<!!)\[[^\]\n]+\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^(?P<marks>#+) (?P<text>.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of code: its language, the other words of its fence, and where it stands."""

    page: str
    line: int
    language: str
    words: tuple[str, ...]
    code: str

    @property
    def label(self) -> str:
        """For the name of a test."""
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    """A page's path in the project."""
    return page.relative_to(ROOT).as_posix()


def read(name: str) -> str:
    """The text of a page."""
    return (ROOT / name).read_text()


def blocks(language: str, *pages: str) -> list[Block]:
    """The blocks of a language, of some pages or of all."""
    found = []
    for name in pages or [name_of(page) for page in PAGES]:
        text = read(name)
        for match in _FENCE.finditer(text):
            first, *words = match["info"].split()
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(name, line, first, tuple(words), match["code"]))
    return [block for block in found if block.language == language]


def without_code(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def links(text: str) -> list[str]:
    """Where a page leads."""
    return [match["target"] for match in _LINK.finditer(without_code(text))]


def anchors(text: str) -> set[str]:
    """The names under which the headings of a page can be linked to."""
    headings = (match["text"] for match in _HEADING.finditer(without_code(text)))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def sections(text: str) -> dict[str, str]:
    """The text under each heading, by heading."""
    parts = _HEADING.split(text)[1:]
    return {heading: body for _, heading, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}


def rows(text: str) -> list[list[str]]:
    """The rows of every table in a text, their cells stripped, without the lines of dashes."""
    lines = (line for line in text.splitlines() if line.startswith("|"))
    cells = ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines)
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
