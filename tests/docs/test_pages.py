"""Every page: what it links to and what it names is there; every decision has its parts."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.markdown import PAGES, ROOT, anchors, links, name_of, read, rows, sections, without_code

DECISIONS: Final = sorted((ROOT / "docs" / "adr").glob("[0-9]*.md"))
FILE: Final = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|ini|toml))(?:::(\w+))?`")
PLACES: Final = (ROOT, ROOT / "sessionstore", ROOT / "docs")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page.read_text()):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            assert file.exists(), target
            assert not anchor or anchor in anchors(file.read_text()), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    for path, function in FILE.findall(without_code(page.read_text())):
        if "NNNN" in path:
            continue
        found = [place / path for place in PLACES if (place / path).exists()]
        assert found or "_alembic" in path, path
        if function:
            tree = ast.parse(found[0].read_text())
            named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert function in named, f"{path}::{function}"


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_has_its_parts_on_one_page(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {page.name[:4]}. ")
    assert list(sections(text))[1:] == ["Context", "Decision", "Consequences", "Held in place by"]
    assert text.count("\n") <= 60
    assert "`tests/" in sections(text)["Held in place by"]


def test_decisions_are_numbered_and_listed() -> None:
    assert [page.name[:4] for page in DECISIONS] == [f"{number:04}" for number in range(1, len(DECISIONS) + 1)]
    listed = [(row[0], row[1]) for row in rows(read("docs/adr/README.md"))[1:]]
    titles = [page.read_text().partition("\n")[0].partition(". ")[2] for page in DECISIONS]
    assert listed == [(f"[{page.name[:4]}]({page.name})", title) for page, title in zip(DECISIONS, titles, strict=True)]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "behaviours.md"], ids=name_of)
def test_lines_are_short(page: Path) -> None:
    lines = without_code(page.read_text()).splitlines()
    assert [line for line in lines if len(line) > 120 and not line.startswith("|")] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = {ROOT / "README.md"}, [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        targets = {(page.parent / target.partition("#")[0]).resolve() for target in links(page.read_text())}
        new = {target for target in targets if target.suffix == ".md" and target.exists()} - reached
        reached |= new
        waiting += new
    assert set(PAGES) <= reached
