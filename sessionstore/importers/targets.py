"""Files that an export writes: private, complete or not there at all, never over another one unless asked to."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast
from urllib.parse import quote

from sessionstore.errors import InvalidArgumentError
from sessionstore.importers.bounds import FILE_NAME_CHARS

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_PRIVATE: Final = 0o600
_PRIVATE_FOLDER: Final = 0o700
_DEVICES: Final = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{at}" for name in ("com", "lpt") for at in range(10))}
)


class FileNames:
    """Names of files for session ids: two ids never share one, on no file system."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def stem(self, session_id: str) -> str:
        """Return the stem for an id: what is not a letter or digit of ASCII, `-`, `_` or `.` is percent-encoded.

        An id that would become too long, or differs from another one only in case, gets a digest at its end.
        """
        stem = quote(session_id, safe="").replace("~", "%7E")
        if stem.startswith(".") or stem.partition(".")[0].lower() in _DEVICES:
            stem = f"%{ord(stem[0]):02X}{stem[1:]}"
        if len(stem) > FILE_NAME_CHARS or stem.lower() in self._taken:
            stem = f"{stem[:FILE_NAME_CHARS]}~{hashlib.sha256(session_id.encode()).hexdigest()[:16]}"
        self._taken.add(stem.lower())
        return stem


def check_target(path: Path, *, force: bool) -> None:
    """Refuse a target that is there already, before any work is done for it.

    Raises:
        InvalidArgumentError: it is there and must not be overwritten, or is no regular file.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISLNK(mode):
        raise InvalidArgumentError(f"{path} is a symbolic link, which is not followed")
    if not stat.S_ISREG(mode):
        raise InvalidArgumentError(f"{path} is there and is not a regular file")
    if not force:
        raise InvalidArgumentError(f"{path} is there already; it is only overwritten by force")


@contextlib.contextmanager
def new_file(path: Path, *, force: bool) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when it is complete, and not at all if something fails.

    Raises:
        InvalidArgumentError: as for `check_target`.
        OSError: it cannot be written.
    """
    check_target(path, force=force)
    part = path.with_name(f".{path.name[:FILE_NAME_CHARS]}.{secrets.token_hex(4)}.part")
    try:
        file = os.fdopen(os.open(part, _FLAGS, _PRIVATE), "wb")
    except OSError as error:
        error.filename = str(path)  # the name that was asked for
        raise
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not force:
            _claim(path)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _claim(path: Path) -> None:
    """Take a name, unless somebody has taken it since it was looked at."""
    try:
        os.close(os.open(path, _FLAGS, _PRIVATE))
    except FileExistsError:
        raise InvalidArgumentError(f"{path} is there already; it is only overwritten by force") from None


@contextlib.contextmanager
def gzipped(file: BinaryIO) -> Iterator[BinaryIO]:
    """Compress what is written: the same content always makes the same file."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as compressed:
        yield cast("BinaryIO", compressed)


def folder(path: Path) -> Path:
    """Make a private folder, if there is none yet.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    path.mkdir(mode=_PRIVATE_FOLDER, parents=True, exist_ok=True)
    return path
