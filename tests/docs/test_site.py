"""The site that `make docs` builds: every page is in it, links fit, and nothing is fetched from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs._hooks import FROM_THE_TOP, MERMAID, fitting
from tests.docs.markdown import PAGES, ROOT, name_of


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=project,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built once."""
    folder = tmp_path_factory.mktemp("site")
    ended = build(ROOT, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def _address(page: Path) -> str:
    """Where a page stands in the site."""
    called = {source: name for name, source in FROM_THE_TOP.items()}
    name = called.get(name_of(page), name_of(page).removeprefix("docs/"))
    return re.sub(r"(^|/)(index|README)/$", r"\1", name.removesuffix(".md") + "/") + "index.html"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_is_in_the_site_with_its_title(site: Path, page: Path) -> None:
    title = page.read_text().partition("\n")[0].removeprefix("# ")
    text = (site / _address(page)).read_text()
    found = re.search(r"<h1[^>]*>(.*?)<a class=\"headerlink\"", text)
    assert found is not None
    assert re.sub(r"<[^>]+>", "", found[1]).replace("&quot;", '"') == title.replace("`", "")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project, with pages that a test may change."""
    for path in ROOT.iterdir():
        if path.name not in {"docs", "site"}:
            (tmp_path / path.name).symlink_to(path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path


def test_a_link_to_nowhere_fails(project: Path) -> None:
    page = project / "docs" / "formats.md"
    page.write_text(page.read_text() + "\n[x](nowhere.md), [y](schema.md#nowhere)\n")
    (project / "docs" / "unlisted.md").write_text("# Unlisted\n")
    ended = build(project, project / "site")
    assert ended.returncode == 1
    assert "Aborted with 3 warnings" in ended.stderr + ended.stdout


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = [path.read_text() for path in site.rglob("*.html")]
    assert len(pages) > 40
    fetched = r"<(?:script|img|iframe|link)[^>]+(?:src|href)=\"(?:https?:)?//[^\"]*|@import[^;]*"
    assert [found for text in pages for found in re.findall(fetched, text)] == []


def test_the_diagram_is_left_to_be_drawn(site: Path) -> None:
    assert '<pre class="mermaid"><code>erDiagram' in (site / "schema" / "index.html").read_text()


def test_a_mermaid_of_our_own_is_brought_along(project: Path) -> None:
    (project / "docs" / MERMAID).write_text("var mermaid = {}")
    ended = build(project, project / "site")
    assert ended.returncode == 0, ended.stderr
    assert f'<script src="../{MERMAID}"' in (project / "site" / "schema" / "index.html").read_text()
    assert (project / "site" / MERMAID).exists()


def test_queries_say_for_which_database_they_are(site: Path) -> None:
    text = (site / "queries" / "index.html").read_text()
    assert {"PostgreSQL", "SQLite"} == set(re.findall(r'class="filename">([^<]+)<', text))


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("index.md", "[a](docs/api.md#limits)", "[a](api.md#limits)"),
        ("index.md", "![a](docs/benchmarks.svg)", "![a](benchmarks.svg)"),
        ("api.md", "[a](../README.md), [b](adr/0001-units-are-generators.md)", "[a](index.md), [b](adr/0001.md)"),
        (
            "adr/README.md",
            "[a](../api.md#limits) [b](../../CHANGELOG.md)",
            "[a](../api.md#limits) [b](../changelog.md)",
        ),
        ("api.md", "[two\nlines](../CONTRIBUTING.md)", "[two\nlines](contributing.md)"),
        ("api.md", "[a](#b) [c](https://example.org/d)", "[a](#b) [c](https://example.org/d)"),
        ("api.md", "[a](../nothing.md)", "[a](../nothing.md)"),
        (
            "api.md",
            "`[a](../LICENSE)`\n```sql\n[a](../LICENSE)\n```\n",
            "`[a](../LICENSE)`\n```sql\n[a](../LICENSE)\n```\n",
        ),
    ],
)
def test_links_fit_the_site(name: str, before: str, after: str) -> None:
    pages = {"index.md", "changelog.md", "contributing.md", "api.md", "adr/0001.md", "benchmarks.svg"}
    before, after = (text.replace("adr/0001.md", "adr/0001-units-are-generators.md") for text in (before, after))
    assert fitting(before, name, pages | {"adr/0001-units-are-generators.md"}, None) == after


def test_links_to_other_files_lead_to_the_repository_if_there_is_one() -> None:
    text = "[the *test*](../tests/docs/markdown.py) and [the licence](../LICENSE)"
    assert fitting(text, "api.md", {"api.md"}, None) == "the *test* and the licence"
    expected = "[the licence](https://forge.example/us/it/blob/HEAD/LICENSE)"
    assert fitting("[the licence](../LICENSE)", "api.md", {"api.md"}, "https://forge.example/us/it") == expected
