"""A power cut, replayed: what a process asked of the kernel, and which bytes that had put on the disk by a moment.

`strace` records every write, truncation, synchronisation and removal, with its data. A disk is then built as a cut
would have left it: of each file only what was synchronised before, and, where asked for, some of the later writes as
well, because a kernel may write what it likes as early as it likes. A file that was made or removed is so for certain
once its folder was synchronised.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["STRACE", "Event", "recorded", "survivors"]

STRACE: Final = (
    *("strace", "-f", "-y", "-xx", "-s", "20000000"),
    *("-e", "trace=openat,write,pwrite64,pwritev,ftruncate,fsync,fdatasync,unlink,rename", "-o"),
)
"""The command, but for the file that it writes to. SQLite's index of the log is not among what is recorded: it lives in
shared memory, and is built anew from the log."""

_CALL: Final = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED: Final = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_UNFINISHED: Final = " <unfinished ...>"
_FILE: Final = re.compile(r"\d+<((?:\\x[0-9a-f]{2})+)>")
_TEXT: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Event(NamedTuple):
    """Something that a process did to a file, or told: `told` has the line."""

    what: str
    path: Path = Path()
    data: bytes = b""
    offset: int = 0
    told: Any = None


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


def recorded(trace: Path, folder: Path) -> list[Event]:
    """What a trace tells of the files of a folder, and of the lines that were told, in order.

    A write counts from its beginning and a synchronisation from its end, as far as they can be told apart.
    """
    events: list[Event] = []
    begun: dict[str, str] = {}
    with trace.open() as lines:
        for line in lines:
            if (call := _CALL.match(line)) is None:
                resumed = _RESUMED.match(line)
                if resumed is None or (start := begun.pop(resumed[1], None)) is None:
                    continue
                name, rest = resumed[2], start + resumed[3]
            elif line.rstrip().endswith(_UNFINISHED):
                begun[call[1]] = call[3].rstrip().removesuffix(_UNFINISHED)
                continue
            else:
                name, rest = call[2], call[3]
            event = _event(name, rest, folder)
            if event is not None:
                events.append(event)
    return events


def _event(name: str, rest: str, folder: Path) -> Event | None:
    arguments, _, result = rest.rpartition(" = ")
    if result.startswith("-1"):
        return None
    texts = _TEXT.findall(arguments)
    if name == "write" and arguments.startswith("1<"):
        line = _bytes(texts[0])
        return Event("told", told=json.loads(line)) if line.startswith(b"{") else None
    file = _FILE.match(arguments)
    path = Path(_bytes(file[1] if file else texts[0]).decode()) if file or texts else Path()
    if path == folder:
        return Event("synced", path) if name in {"fsync", "fdatasync"} else None
    if path.parent != folder or path.name.endswith("-shm"):
        return None
    return _of_file(name, arguments, path, texts)


def _of_file(name: str, arguments: str, path: Path, texts: list[str]) -> Event | None:
    match name:
        case "openat":
            return Event("made", path) if "O_CREAT" in arguments else None
        case "unlink":
            return Event("removed", path)
        case "fsync" | "fdatasync":
            return Event("synced", path)
        case "ftruncate":
            return Event("cut", path, offset=_last_number(arguments))
        case "pwrite64":
            return Event("written", path, _bytes(texts[0]), _last_number(arguments))
    msg = f"{name} of {path.name} cannot be replayed"
    raise AssertionError(msg)


def _last_number(arguments: str) -> int:
    return int(arguments.rstrip(" )").rpartition(", ")[2])


@dataclass
class _File:
    """A file: what is on the disk, and what the kernel has yet to put there."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Event] = field(default_factory=list)

    def sync(self) -> None:
        for event in self.pending:
            self.apply(event)
        self.pending.clear()

    def apply(self, event: Event) -> None:
        if event.what == "cut":
            del self.synced[event.offset :]
            return
        end = event.offset + len(event.data)
        self.synced.extend(bytes(max(end - len(self.synced), 0)))
        self.synced[event.offset : end] = event.data


class _Folder:
    """A folder: the files in it, and those that it is certain to hold after a cut."""

    def __init__(self, path: Path, files: dict[Path, bytes]) -> None:
        self._path = path
        self.files = {name: _File(bytearray(content)) for name, content in files.items()}
        self.certain = dict(self.files)

    def do(self, event: Event) -> None:
        match event.what:
            case "made":
                self.files.setdefault(event.path, _File())
            case "removed":
                self.files.pop(event.path, None)
            case "synced" if event.path == self._path:
                self.certain = dict(self.files)
            case "synced":
                self.files[event.path].sync()
            case "written" | "cut":
                self.files[event.path].pending.append(event)


def survivors(
    folder: Path, before: dict[Path, bytes], events: list[Event], *, chance: random.Random | None = None
) -> dict[str, bytes]:
    """The files of a folder as a power cut after the last event leaves them, by name.

    Args:
        before: the files at the beginning, which were on the disk.
        chance: picks some of the writes that were not synchronised, which then survive too.
    """
    disk = _Folder(folder, before)
    for event in events:
        disk.do(event)
    left = disk.certain
    if chance is not None and chance.random() < 0.5:
        left = disk.files
    for file in left.values():
        for event in file.pending:
            if chance is not None and chance.random() < 0.5:
                file.apply(event)
    return {path.name: bytes(file.synced) for path, file in left.items()}
