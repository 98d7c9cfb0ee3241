"""What an export leaves on the disk."""

from __future__ import annotations

import gzip
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError
from sessionstore.importers.targets import FileNames, folder, gzipped, new_file


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("session_id", "stem"),
    [
        ("0192f3c4-11", "0192f3c4-11"),
        ("Trip_1.b", "Trip_1.b"),
        ("../x", "%2E.%2Fx"),
        ("..", "%2E."),
        (".hidden", "%2Ehidden"),
        ("a/b\\c", "a%2Fb%5Cc"),
        ("50% 状態~", "50%25%20%E7%8A%B6%E6%85%8B%7E"),
        ("con", "%63on"),
        ("NUL.txt", "%4EUL.txt"),
        ("console", "console"),
    ],
)
def test_an_id_as_a_file_name(session_id: str, stem: str) -> None:
    """O07: `../` in an id is only text, and reaches no path."""
    assert FileNames().stem(session_id) == stem


def test_an_id_that_is_too_long_for_a_name() -> None:
    names = FileNames()
    long = ["é" * 255, "é" * 254 + "e", "é" * 254 + "E"]
    stems = [names.stem(session_id) for session_id in long]
    assert all(len(f".{stem}.json.0123abcd.part") <= 255 for stem in stems)
    assert len({stem.lower() for stem in stems}) == 3


def test_ids_that_differ_in_case_only_do_not_meet_on_any_file_system() -> None:
    names = FileNames()
    assert names.stem("Trip") == "Trip"
    assert names.stem("trip").startswith("trip~")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40), unique=True))
def test_no_two_ids_share_a_name_and_none_leads_elsewhere(session_ids: list[str]) -> None:
    """O07: whatever the ids are."""
    names = FileNames()
    stems = [names.stem(session_id) for session_id in session_ids]
    assert len({stem.lower() for stem in stems}) == len(stems)
    for stem in stems:
        assert stem.isascii()
        assert "/" not in stem
        assert not stem.startswith(".")


def test_a_file_is_private_and_complete(tmp_path: Path) -> None:
    with new_file(tmp_path / "x", force=False) as file:
        file.write(b"content")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_bytes() == b"content"
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o600
    assert left(tmp_path) == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, force: bool) -> None:
    if force:
        (tmp_path / "x").write_text("before")

    def fail() -> None:
        with new_file(tmp_path / "x", force=force) as file:
            file.write(b"half")
            raise RuntimeError("the database went away")

    with pytest.raises(RuntimeError):
        fail()
    assert left(tmp_path) == (["x"] if force else [])
    assert not force or (tmp_path / "x").read_text() == "before"


def write(path: Path, *, force: bool, meanwhile: str | None = None) -> None:
    with new_file(path, force=force) as file:
        file.write(b"new")
        if meanwhile is not None:
            path.write_text(meanwhile)


def test_nothing_is_overwritten_unless_by_force(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("before")
    with pytest.raises(InvalidArgumentError, match="is there already; it is only overwritten by force"):
        write(tmp_path / "x", force=False)
    assert (tmp_path / "x").read_text() == "before"
    write(tmp_path / "x", force=True)
    assert (tmp_path / "x").read_text() == "new"
    assert left(tmp_path) == ["x"]


def test_a_file_that_somebody_made_meanwhile_stays(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="is there already"):
        write(tmp_path / "x", force=False, meanwhile="theirs")
    assert (tmp_path / "x").read_text() == "theirs"
    assert left(tmp_path) == ["x"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("exists", [False, True], ids=["dangling", "of a file"])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, force: bool, exists: bool) -> None:
    elsewhere = tmp_path / "elsewhere"
    if exists:
        elsewhere.write_text("precious")
    (tmp_path / "x").symlink_to(elsewhere)
    with pytest.raises(InvalidArgumentError, match="is a symbolic link, which is not followed"):
        write(tmp_path / "x", force=force)
    assert (tmp_path / "x").is_symlink()
    assert elsewhere.exists() == exists
    assert not exists or elsewhere.read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path, force: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InvalidArgumentError, match="is not a regular file"):
            write(tmp_path / name, force=force)
    assert left(tmp_path) == ["folder", "pipe"]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "none" / "x", force=False)
    assert caught.value.filename == str(tmp_path / "none" / "x")


def test_the_same_content_makes_the_same_gzip_file(tmp_path: Path) -> None:
    for name in ("x.gz", "y.gz"):
        with new_file(tmp_path / name, force=False) as file, gzipped(file) as compressed:
            compressed.write(b"content" * 100)
    assert (tmp_path / "x.gz").read_bytes() == (tmp_path / "y.gz").read_bytes()
    assert gzip.decompress((tmp_path / "x.gz").read_bytes()) == b"content" * 100


def test_a_folder_is_private(tmp_path: Path) -> None:
    made = folder(tmp_path / "out")
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    assert folder(made) == made
