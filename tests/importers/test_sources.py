"""Files as they come: plain, gzipped, damaged, without an end."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from sessionstore import InvalidArgumentError
from sessionstore.importers import JsonLines, Reading, SessionFiles

LINE = b'{"id":"a","messages":[]}'


def pieces(source: JsonLines | SessionFiles) -> list[tuple[str, Any]]:
    return [
        (piece.place, piece.raw.message if isinstance(piece.raw, InvalidArgumentError) else piece.raw.strip())
        for piece in source.pieces()
    ]


def file(folder: Path, content: bytes, name: str = "x.jsonl") -> JsonLines:
    (folder / name).write_bytes(content)
    return JsonLines(str(folder / name))


@pytest.mark.parametrize(
    "content",
    [
        LINE + b"\n" + LINE + b"\n",
        LINE + b"\n" + LINE,
        LINE + b"\r\n" + LINE + b"\r\n",
        b"\xef\xbb\xbf" + LINE + b"\n" + LINE + b"\n",
    ],
    ids=["plain", "no newline at the end", "CR LF", "byte order mark"],
)
def test_lines(content: bytes, tmp_path: Path) -> None:
    assert pieces(file(tmp_path, content)) == [("line 1", LINE), ("line 2", LINE)]


def test_empty_lines_count_and_are_left_out(tmp_path: Path) -> None:
    assert pieces(file(tmp_path, b"\n  \n" + LINE + b"\n\n")) == [("line 3", LINE)]


def test_an_empty_file(tmp_path: Path) -> None:
    source = file(tmp_path, b"")
    assert pieces(source) == []
    assert source.total is None


def test_a_line_separator_of_unicode_is_no_line_break(tmp_path: Path) -> None:
    line = '{"id":"a","messages":[{"role":"user","content":"x\u2028y\x85z"}]}'.encode()
    assert pieces(file(tmp_path, line + b"\n")) == [("line 1", line)]


def test_gzip_is_seen_by_the_content_not_by_the_name(tmp_path: Path) -> None:
    two_members = gzip.compress(LINE + b"\n") + gzip.compress(LINE + b"\n")
    assert pieces(file(tmp_path, two_members)) == [("line 1", LINE), ("line 2", LINE)]
    assert pieces(file(tmp_path, LINE, name="x.jsonl.gz")) == [("line 1", LINE)]


def test_a_gzip_file_that_was_cut_off(tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(LINE + b" " * at + b"\n" for at in range(2000)))
    found = pieces(file(tmp_path, whole[: len(whole) // 2]))
    assert found[0] == ("line 1", LINE)
    place, reason = found[-1]
    assert place == f"line {len(found)}"
    assert reason == "the gzip data is cut off or damaged; what follows cannot be read"


def test_gzip_with_something_else_behind(tmp_path: Path) -> None:
    found = pieces(file(tmp_path, gzip.compress(LINE + b"\n") + b"garbage"))
    assert [place for place, _ in found] == ["line 1", "line 2"]
    assert found[1][1].startswith("the gzip data is cut off or damaged")


def test_a_line_that_is_too_long_costs_only_itself(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(LINE + b"\n" + b"x" * 1000 + b"\n" + LINE + b"\n" + b"y" * 101)
    source = JsonLines(str(tmp_path / "x.jsonl"), limit=100)
    too_long = "longer than 100 bytes"
    assert pieces(source) == [("line 1", LINE), ("line 2", too_long), ("line 3", LINE), ("line 4", too_long)]


def test_how_far_it_is(tmp_path: Path) -> None:
    source = file(tmp_path, gzip.compress(b"".join(LINE + b"%d" % at + b"\n" for at in range(20_000))))
    done = [piece.done for piece in source.pieces()]
    assert done == sorted(done)
    assert done[-1] == source.total == (tmp_path / "x.jsonl").stat().st_size


def test_several_files_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(LINE)
    assert pieces(JsonLines(str(tmp_path / "x.jsonl"), name="x.jsonl")) == [("x.jsonl line 1", LINE)]


def test_standard_input_is_read_while_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as standard, os.fdopen(writer, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdin", standard)
        source = JsonLines("-")
        assert source.total is None
        found = source.pieces()
        pipe.write(LINE + b"\n")
        assert next(found).raw == LINE + b"\n"  # although the other end is still open
        pipe.write(LINE + b"\n")
        threading.Thread(target=pipe.close).start()
        assert [piece.place for piece in found] == ["line 2"]


def test_standard_input_that_is_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINE)))
    assert pieces(JsonLines("-")) == [("line 1", LINE)]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    source = JsonLines(str(tmp_path / "none.jsonl"))
    with pytest.raises(FileNotFoundError):
        _ = source.total
    with pytest.raises(FileNotFoundError):
        next(source.pieces())


def test_a_folder_of_session_files(tmp_path: Path) -> None:
    """O07: the id comes out of the file, or out of its name if it has none; either is only text."""
    (tmp_path / "b.json").write_text(json.dumps({"session_id": "../elsewhere", "user_messages": []}))
    (tmp_path / "a%2Fb.json").write_text(json.dumps({"user_messages": []}))
    (tmp_path / ".hidden.json").write_text("no")
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / "folder.json").mkdir()
    source = SessionFiles(tmp_path)
    assert source.total == 3
    ids = [
        source.read(piece, Reading()).transcript.session.id for piece in source.pieces() if piece.place != "folder.json"
    ]
    assert ids == ["a/b", "../elsewhere"]
    [folder] = [piece for piece in source.pieces() if piece.place == "folder.json"]
    with pytest.raises(InvalidArgumentError, match="cannot be read: Is a directory"):
        source.read(folder, Reading())


def test_a_single_session_file_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"user_messages": []}))
    [piece] = SessionFiles(tmp_path / "a.json", limit=10).pieces()
    assert isinstance(piece.raw, InvalidArgumentError)
    assert piece.raw.message == "longer than 10 bytes"
