"""Jobs of `tests.faults.worker` about events: many who change sessions, and one who watches them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sessionstore import SessionNotFoundError, SessionRepository
from tests.support.faults_feeds import END, NOTE, as_line
from tests.support.faults_history import messages_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sessionstore import Change

PAUSE_SECONDS = 0.005
"""Between two things that a task does, so that watchers see more than the end of it. It decides nothing."""

REWRITING = 0.08
"""How many of the steps rewrite, trim or delete, where any do."""

STORED_EVERY = 5
"""A watcher stores its cursor after so many changes, as one that does not write for each."""


class Changer:
    """A caller that changes some sessions, and tells of each message and event that was acknowledged."""

    def __init__(
        self, repository: SessionRepository, name: str, sessions: list[str], tell: Callable[[dict[str, Any]], object]
    ) -> None:
        self._repository = repository
        self._tell = tell
        self._name = name
        self._sessions = sessions
        self._chance = random.Random(name)
        self._number = 0

    async def step(self, *, rewriting: bool) -> None:
        """Do one more thing, to one of the sessions."""
        session_id = self._chance.choice(self._sessions)
        verbs = [self._append, self._append, self._append, self._note, self._label]
        rare = [self._trim, self._truncate, self._pop, self._compact, self._replace, self._fork, self._delete]
        verb = self._chance.choice(rare if rewriting and self._chance.random() < REWRITING else verbs)
        self._number += 1
        with contextlib.suppress(SessionNotFoundError):  # somebody else has deleted it
            await verb(session_id)

    @property
    def _mark(self) -> str:
        return f"{self._name}-{self._number}"

    async def _append(self, session_id: str) -> None:
        messages = messages_of(self._mark, self._chance.choice((1, 1, 3)), with_ids=True)
        positions = await self._repository.append(session_id, *messages, create=True)
        ids = [message.message_id for message in messages]
        told = {"task": self._name, "session": session_id, "messages": list(zip(ids, positions, strict=True))}
        self._tell(told)

    async def _note(self, session_id: str) -> None:
        await self._repository.record_event(session_id, NOTE, payload={"mark": self._mark})
        self._tell({"task": self._name, "session": session_id, "event": self._mark})

    async def _label(self, session_id: str) -> None:
        await self._repository.set_metadata(session_id, {self._name: self._number})

    async def _trim(self, session_id: str) -> None:
        await self._repository.trim(session_id, 10)

    async def _truncate(self, session_id: str) -> None:
        await self._repository.truncate(session_id, 15)

    async def _pop(self, session_id: str) -> None:
        await self._repository.pop(session_id)

    async def _compact(self, session_id: str) -> None:
        await self._repository.compact(session_id, {"role": "system", "content": self._mark}, keep_last=8)

    async def _replace(self, session_id: str) -> None:
        await self._repository.replace_messages(session_id, messages_of(self._mark, 4, with_ids=True))

    async def _fork(self, session_id: str) -> None:
        await self._repository.fork_at(session_id, 5, new_id=f"fork-{self._chance.randrange(2)}", replace=True)

    async def _delete(self, session_id: str) -> None:
        await self._repository.delete(session_id)


def _say(told: dict[str, Any]) -> None:
    os.write(1, json.dumps(told).encode() + b"\n")


async def change(
    url: str,
    *,
    name: str,
    tasks: int,
    steps: int,
    sessions: list[str],
    rewriting: bool,
    tell: Callable[[dict[str, Any]], object] = _say,
) -> None:
    """Change sessions in many tasks, each so many steps."""
    async with SessionRepository.connect(url) as repository:

        async def one(task: int) -> None:
            changer = Changer(repository, f"{name}-{task}", sessions, tell)
            for _ in range(steps):
                await changer.step(rewriting=rewriting)
                await asyncio.sleep(PAUSE_SECONDS)

        await asyncio.gather(*(one(task) for task in range(tasks)))


async def watch(
    url: str,
    *,
    session: str | None,
    feed: str,
    ends: list[str],
    after: str | None = None,
    early: int = 0,
) -> None:
    """Write every change to a file before going on, and the cursor to another after some; until all sessions end.

    Args:
        early: how many changes are not written yet when their cursor is stored: a mistake.
    """
    left, lines = set(ends), 0
    waiting: deque[Change] = deque()
    with Path(feed).open("ab", buffering=0) as file:  # noqa: ASYNC230  # it is there before anything goes on
        async with (
            SessionRepository.connect(url) as repository,
            contextlib.aclosing(repository.watch(session, after=after)) as changes,  # type: ignore[type-var]
        ):
            async for told in changes:
                waiting.append(told)
                lines += 1
                while len(waiting) > early:
                    file.write(as_line(waiting.popleft()))
                if lines % STORED_EVERY == 0:
                    _store(f"{feed}.cursor", told.cursor, lines)
                if told.kind == END:
                    left.discard(told.session_id)
                if not left:
                    return


def _store(path: str, cursor: str, lines: int) -> None:
    """Store a cursor, whole or not at all, with the number of changes up to it for the sake of the test."""
    Path(f"{path}.new").write_text(json.dumps({"cursor": cursor, "lines": lines}))
    Path(f"{path}.new").replace(path)
