"""Where sessions come from: lines of a file, plain or gzipped, and the session files of a folder."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol, cast
from urllib.parse import unquote

from sessionstore.errors import InvalidArgumentError
from sessionstore.importers import jsonl, state_store
from sessionstore.importers.bounds import LINE_BYTES
from sessionstore.importers.sessions import Read, Reading

STANDARD_INPUT: Final = "-"
_GZIP: Final = b"\x1f\x8b"
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Piece:
    """One session as it stands in a source, not yet decoded.

    Attributes:
        place: for reports: `line 7`, or the name of a file.
        raw: the text; what is wrong where there is none.
        size: its bytes.
        done: how far the source has been read, in the unit of its total.
    """

    place: str
    raw: bytes | InvalidArgumentError
    size: int
    done: int


class Source(Protocol):
    """Something that sessions are read from, one at a time."""

    @property
    def total(self) -> int | None:
        """How much there is to read: bytes or files; None where nobody knows."""

    def pieces(self) -> Iterator[Piece]:
        """Read piece by piece; blocks.

        Raises:
            OSError: it cannot be opened or read.
        """

    def read(self, piece: Piece, reading: Reading) -> Read:
        """Make a session of a piece.

        Raises:
            InvalidArgumentError: there is none in it.
        """


class JsonLines:
    """A file of one session a line. That it is gzipped is seen by its first bytes, not by its name."""

    def __init__(self, path: str, *, name: str = "", limit: int = LINE_BYTES) -> None:
        """Name a file, or `-` for standard input.

        Args:
            path: of the file.
            name: what reports call it, where there are several.
            limit: longest line in bytes.
        """
        self._path = path
        self._prefix = f"{name} " if name else ""
        self._limit = limit

    @property
    def total(self) -> int | None:
        """Bytes of the file, as it is on disk."""
        if self._path == STANDARD_INPUT:
            return None
        size = Path(self._path).stat().st_size
        return size or None

    def pieces(self) -> Iterator[Piece]:
        """Read line by line, empty ones left out."""
        with contextlib.ExitStack() as stack:
            standard = self._path == STANDARD_INPUT
            raw = _standard_input() if standard else stack.enter_context(Path(self._path).open("rb"))
            yield from self._lines(io.BufferedReader(_Counted(raw)))

    def _lines(self, file: io.BufferedReader) -> Iterator[Piece]:
        counted: _Counted = file.raw  # type: ignore[assignment]
        lines: BinaryIO = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == _GZIP else file  # type: ignore[assignment]
        number = 0
        while True:
            number += 1
            place = f"{self._prefix}line {number}"
            try:
                line = lines.readline(self._limit + 1)
                size = len(line)
                too_long = size > self._limit
                while too_long and line and not line.endswith(b"\n"):
                    line = lines.readline(self._limit)
            except (EOFError, gzip.BadGzipFile, zlib.error):
                fault = InvalidArgumentError("the gzip data is cut off or damaged; what follows cannot be read")
                yield Piece(place, fault, 0, counted.bytes)
                return
            if not line and not too_long:
                return
            if too_long:
                fault = InvalidArgumentError(f"longer than {self._limit} bytes")
                yield Piece(place, fault, size, counted.bytes)
                continue
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if line.strip():
                yield Piece(place, line, size, counted.bytes)

    def read(self, piece: Piece, reading: Reading) -> Read:
        """Make a session of a line."""
        return jsonl.read_line(_text(piece), reading)


def _standard_input() -> BinaryIO:
    """Standard input, past the lock of `sys.stdin`: the interpreter cannot end while a thread that waits holds that."""
    try:
        return cast("BinaryIO", io.FileIO(sys.stdin.fileno(), closefd=False))
    except io.UnsupportedOperation:  # somebody put something else there that is no file
        return sys.stdin.buffer


class _Counted(io.RawIOBase):
    """Counts the bytes that are read of a file, also where it is a pipe."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read1 = getattr(self._file, "read1", self._file.read)
        data = read1(len(buffer))
        buffer[: len(data)] = data
        self.bytes += len(data)
        return len(data)


class SessionFiles:
    """The session files of a state store: every `*.json` in a folder, or a single file."""

    def __init__(self, path: Path, *, limit: int = LINE_BYTES) -> None:
        """Name a folder or a file."""
        self._path = path
        self._limit = limit

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path]
        with os.scandir(self._path) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".json") and not entry.name.startswith(".")]
        return [self._path / name for name in sorted(names)]

    @property
    def total(self) -> int | None:
        """Files of the folder."""
        return len(self._files())

    def pieces(self) -> Iterator[Piece]:
        """Read file by file, in the order of their names."""
        for done, path in enumerate(self._files(), start=1):
            raw: bytes | InvalidArgumentError
            try:
                with path.open("rb") as file:
                    raw = file.read(self._limit + 1)
            except OSError as error:
                raw = InvalidArgumentError(f"cannot be read: {error.strerror}")
            if isinstance(raw, bytes) and len(raw) > self._limit:
                raw = InvalidArgumentError(f"longer than {self._limit} bytes")
            yield Piece(path.name, raw, len(raw) if isinstance(raw, bytes) else 0, done)

    def read(self, piece: Piece, reading: Reading) -> Read:
        """Make a session of a file."""
        default_id = unquote(piece.place.removesuffix(".json"), errors="surrogateescape")
        return state_store.read_file(_text(piece).removeprefix(_BYTE_ORDER_MARK), reading, default_id=default_id)


def _text(piece: Piece) -> bytes:
    if isinstance(piece.raw, InvalidArgumentError):
        raise piece.raw
    return piece.raw
