"""What happens to the sessions that this process works on, as JSON lines in a directory: for people and their tools.

One file a session and process. Its lines are numbered from 0 without gaps, their times never go back, and each says
where it was, so that a file is gone on with where it ends. Nothing that goes wrong here reaches a caller of the store.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from sessionstore import codec
from sessionstore.changes import NOTHING, Change, Cursor
from sessionstore.errors import InvalidArgumentError, SessionStoreError
from sessionstore.executors.base import Executor
from sessionstore.feeds import Hub
from sessionstore.limits import DEPTH_CEILING, EVENT_LOG_FILES, EVENT_LOG_TAIL_BYTES, INT64_MAX
from sessionstore.units import feed

VARIABLE: Final = "SESSIONSTORE_EVENT_LOG_DIR"

_log: Final = logging.getLogger("sessionstore")
_writing: Final = threading.Lock()
"""Held while a file is written: several databases' executors, in several threads, may log one session."""
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


def directory_of(setting: str | os.PathLike[str] | None) -> Path | None:
    """The directory that is configured, if there is one."""
    chosen = setting if setting is not None else os.environ.get(VARIABLE)
    return Path(chosen) if chosen else None


def file_name(database: str, tenant: str, session_id: str) -> str:
    """The name of a session's file in this process: readable, safe everywhere, and no other session's or process's."""
    readable = _UNSAFE.sub("_", session_id).lstrip(".")[:64]
    digest = hashlib.blake2b(f"{database}\0{tenant}\0{session_id}".encode(), digest_size=8).hexdigest()
    host = _UNSAFE.sub("_", socket.gethostname())[:64]  # in containers every process has the same number
    return f"{readable or '_'}-{digest}-{host}-{os.getpid()}.jsonl"


class EventLog:
    """The logs of the sessions that a process changes through one database's executor."""

    def __init__(self, hub: Hub, database: str, directory: Path) -> None:
        self.hub = hub
        self._database = database
        self._directory = directory
        self._files: OrderedDict[tuple[str, str], _File] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = False

    @classmethod
    def of(cls, executor: Executor, database: str, directory: Path, timeout_seconds: float) -> EventLog:
        """The log of an executor in a directory: one, however many repositories ask for it."""
        for hub in list(executor.listeners.values()):
            if isinstance(hub, Hub) and not hub.ended and directory in hub.logs:
                return hub.logs[directory]  # type: ignore[no-any-return]
        hub = Hub.of(executor, timeout_seconds)
        log = hub.logs[directory] = cls(hub, database, directory)
        hub.taps.append(log.touched)
        return log

    def touched(self, tenant: str, session_id: str) -> None:
        """Write what is new in a session."""
        key = tenant, session_id
        file = self._files.get(key)
        if file is None:
            self._make_room()
            path = self._directory / file_name(self._database, tenant, session_id)
            file = self._files[key] = _File(tenant, session_id, path)
        self._files.move_to_end(key)
        if file.busy:
            file.again = True
            return
        file.busy = True
        task = self.hub.start(self._write(file))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _make_room(self) -> None:
        """Forget the file that was not written for longest, but none that is being written."""
        if len(self._files) >= EVENT_LOG_FILES:
            idle = next((key for key, file in self._files.items() if not file.busy), None)
            if idle is not None:
                del self._files[idle]

    async def flush(self, seconds: float) -> None:
        """Wait for what is being written, but not for ever."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)

    async def _write(self, file: _File) -> None:
        try:
            more = True
            while more:
                if not file.begun:
                    await asyncio.to_thread(file.begin)
                file.again = False
                found = await self.hub.run(feed.follow(file.tenant, file.session_id, file.cursor))
                if found.changes and not await asyncio.to_thread(file.append, found.changes):
                    file.begun = False
                    continue
                file.cursor = found.cursor
                more = found.more or file.again
            self._failed = False
        except (OSError, ValueError, SessionStoreError) as error:
            file.begun = False  # whatever of it was written is looked at again
            if not self._failed:  # said once an outage; what could not be written now is written with the next change
                self._failed = True
                why = error.strerror if isinstance(error, OSError) else type(error).__name__
                fields = {"event": "sessionstore.event_log_failed", "error": type(error).__name__}
                _log.warning("the event log cannot be written: %s", why, extra=fields)
        finally:
            file.busy = False  # here, where nothing can come between the last look at `again` and this


class _File:
    """The log of one session."""

    def __init__(self, tenant: str, session_id: str, path: Path) -> None:
        self.tenant = tenant
        self.session_id = session_id
        self.cursor = NOTHING
        self.begun = False
        self.busy = False
        self.again = False
        self._path = path
        self._index = 0
        self._time = 0
        self._end = 0

    def begin(self) -> None:
        """Go on where the file ends, if there is one."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._index = 0
        self._end, lines = _last_lines(self._path)
        for line in lines:
            try:
                last = json.loads(line)  # orjson reads no lone surrogates
                self.cursor = Cursor.parse(last["cursor"])
                self._index = int(last["index"]) + 1
                self._time = int(datetime.fromisoformat(last["time"]).timestamp() * 1_000_000)
            except (ValueError, KeyError, TypeError, InvalidArgumentError):
                continue  # the end of a line that a crash cut off; the one before it will do
            break
        self.begun = True

    def append(self, changes: list[Change]) -> bool:
        """Write a line for each message and each event, all at once; False if the file is not as it was left."""
        index, moment = self._index, max(self._time, time.time_ns() // 1000)
        at = datetime.fromtimestamp(moment / 1_000_000, UTC).isoformat(timespec="microseconds")
        lines = []
        for change in changes:
            for entry in _entries(change):
                head = {"index": index, "time": at, "tenant": self.tenant, "session_id": self.session_id}
                lines.append(orjson.dumps(head | entry, option=orjson.OPT_APPEND_NEWLINE))
                index += 1
        with _writing, open(self._path, "r+b", buffering=0, opener=_opened) as file:
            end = file.seek(0, os.SEEK_END)
            if end != self._end:
                return False
            if end:
                file.seek(end - 1)
                if file.read(1) != b"\n":
                    lines.insert(0, b"\n")
            left = memoryview(b"".join(lines))
            while left:
                written = file.write(left)  # less than all of it, where a disk gets full
                self._end += written
                left = left[written:]
        self._index, self._time = index, moment
        return True


def _opened(path: str, _: int) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)


def _entries(change: Change) -> Iterator[dict[str, Any]]:
    """The lines of a change, each with the cursor after it."""
    facts = {"generation": change.generation}
    if change.messages:
        after = Cursor.parse(change.cursor)
        for message in change.messages:
            yield {
                "kind": "message",
                **facts,
                "position": message.position,
                "role": message.role,
                "message_id": message.message_id,
                "created_at": message.created_at,
                "body": orjson.Fragment(message.body_json.replace(b"\n", b" ")),
                "cursor": str(after._replace(position=message.position + 1)),
            }
        return
    event = change.event
    more: dict[str, Any] = {}
    if event is not None:
        more = {"number": event.number, "created_at": event.created_at}
        if event.kind != change.kind:
            more["cause"] = event.kind
    if event is not None and event.payload is not None:
        encoded = codec.encode(event.payload, max_bytes=INT64_MAX, max_depth=DEPTH_CEILING)
        more["payload"] = orjson.Fragment(encoded.text)
    yield {"kind": change.kind, **facts, **more, "cursor": change.cursor}


def _last_lines(path: Path) -> tuple[int, list[bytes]]:
    """Where a file ends, and its last lines, newest first; nothing where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - EVENT_LOG_TAIL_BYTES))
            text = file.read(size)
    except FileNotFoundError:
        return 0, []
    return size, [line for line in reversed(text.split(b"\n")) if line]
