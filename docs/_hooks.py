"""What MkDocs has to know of these pages, which are written for a forge and not for it.

README.md is the first page, CHANGELOG.md and CONTRIBUTING.md are pages too. A link to a file that is no page leads to
the repository, if pyproject.toml names one, and is otherwise left out: its text stays. The words behind the language of
a block of code, which the tests read, become its title.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]

FROM_THE_TOP: Final = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages that stand beside docs/, by their names in the site."""

MERMAID: Final = "mermaid.min.js"
"""Draws diagrams. Where somebody has put it into docs/, the site brings it along instead of sending readers for it."""

TITLES: Final = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}

_FENCE: Final = re.compile(r"^```(?P<language>\w+) (?P<words>.+)$", re.MULTILINE)
_LINK: Final = re.compile(
    r"^```.*?^```$|``.*?``|`[^`]*`|(?P<label>!?\[[^\]]+\])\((?P<target>[^)\s]+)\)", re.MULTILINE | re.DOTALL
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the repository, put files in the place of a pattern of the navigation, and take a Mermaid of our own."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        config.repo_url = tomllib.load(file)["project"].get("urls", {}).get("Repository")
    config.nav = _expanded(config.nav, Path(config.docs_dir))
    if Path(config.docs_dir, MERMAID).exists():
        config.extra_javascript.append(MERMAID)
    return config


def _expanded(entries: list[Any] | None, folder: Path) -> list[Any]:
    found: list[Any] = []
    for entry in entries or []:
        if isinstance(entry, dict):
            found.append({title: _expanded(below, folder) for title, below in entry.items()})
        elif "*" in entry:
            pages = sorted(path.relative_to(folder).as_posix() for path in folder.glob(entry))
            found += [page for page in pages if not page.endswith("README.md")]
        else:
            found.append(entry)
    return found


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand beside docs/."""
    from mkdocs.structure.files import File  # noqa: PLC0415  # only MkDocs, who calls this, needs it to be there

    for name, source in FROM_THE_TOP.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make a page fit for the site."""
    text = fitting(markdown, page.file.src_uri, set(files.src_uris), config.repo_url)
    return _FENCE.sub(_titled, text)


def fitting(markdown: str, name: str, pages: set[str], repository: str | None) -> str:
    """A page with links that lead somewhere from where it stands in the site."""
    source = FROM_THE_TOP.get(name, f"docs/{name}")

    def linked(match: re.Match[str]) -> str:
        target = match["target"]
        if target is None or "://" in target or target.startswith(("#", "mailto:")):
            return match[0]
        path, _, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        page = {stands: called for called, stands in FROM_THE_TOP.items()}.get(path)
        page = path.removeprefix("docs/") if page is None and path.startswith("docs/") else page
        if page in pages:
            there = posixpath.relpath(page, posixpath.dirname(name) or ".")
            return f"{match['label']}({there}{'#' + anchor if anchor else ''})"
        if not (ROOT / path).exists():
            return match[0]  # MkDocs will say so
        return f"{match['label']}({repository}/blob/HEAD/{path})" if repository else match["label"].strip("![]")

    return _LINK.sub(linked, markdown)


def _titled(match: re.Match[str]) -> str:
    titles = [TITLES[word] for word in match["words"].split() if word in TITLES]
    return f"```{match['language']}" + "".join(f' title="{title}"' for title in titles)
