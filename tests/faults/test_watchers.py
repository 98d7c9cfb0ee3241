"""Watchers in processes of their own beside many writers, some of them killed and begun anew from a stored cursor."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import SessionRepository
from tests.faults.watching import change, watch
from tests.support import tampering_feeds
from tests.support.faults_counts import figure, rounds
from tests.support.faults_feeds import END, Acknowledged, Held, Told, misplaced, missed, read_feed, unlike
from tests.support.faults_processes import Worker
from tests.support.invariants import assert_sound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    Workers = type[Worker | "Local"]

pytestmark = pytest.mark.processes

PROCESSES = 4
TASKS = 4
STEPS = 40
SESSIONS = [f"shared-{number}" for number in range(4)]
FORKS = ["fork-0", "fork-1"]
DOOR = "door"
"""The session that shows whether a watcher of a tenant is there."""

WATCHED: list[str | None] = [*SESSIONS, *SESSIONS[:2], None, None]
KILLED = (0, 6)
"""Which watchers are killed: one of a session, and one of the whole tenant."""

PAUSE_SECONDS = 0.05
"""Between two looks at what watchers have written."""

PATIENCE_SECONDS = 60.0
"""After which a watcher that has not come to the end never will."""

MISTAKEN_SECONDS = 3.0
"""The same, of one that is meant to be wrong, and may well never come to the end."""


class Local:
    """A job that runs in this process as a `Worker` does in another one: for mistakes that are put into the package."""

    def __init__(self, job: str, url: str, options: dict[str, Any]) -> None:
        self.events: list[Any] = []
        self._work = watch(url, **options) if job == "watch" else change(url, tell=self.events.append, **options)
        self._task: asyncio.Task[None]

    @classmethod
    async def start(cls, job: str, url: str, **options: Any) -> Local:
        """Prepare it."""
        return cls(job, url, options)

    def go(self) -> None:
        """Let it begin."""
        self._task = asyncio.create_task(self._work)

    @property
    def ended_already(self) -> bool:
        """Whether there is nothing more to come."""
        return self._task.done()

    async def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def ended(self) -> None:
        """Wait until it ends by itself."""
        await asyncio.shield(self._task)


class Watcher:
    """A watcher in a process of its own, or in several, one after the other."""

    def __init__(self, start: Callable[..., Awaitable[Any]], path: Path, session: str | None, ends: list[str]) -> None:
        self._start = start
        self._folder = path.parent
        self._name = path.name
        self.session = session
        self._ends = ends
        self._workers: list[Any] = []
        self._kept = 0
        self._after: str | None = None
        self._options: dict[str, Any] = {}

    async def start(self, **options: Any) -> None:
        """Begin to watch, from the stored cursor if there is one."""
        path = self._path(len(self._workers))
        job = {"session": self.session, "feed": str(path), "ends": self._ends, "after": self._after, **options}
        path.touch()
        worker = await self._start("watch", **job)
        worker.go()
        self._workers.append(worker)
        self._options = options

    async def kill(self) -> None:
        """End it in the middle, and begin anew with the cursor that it had stored."""
        await self._workers[-1].kill()
        cursor = self._path(0).with_name(f"{self._path(0).name}.cursor")
        stored = json.loads(cursor.read_text())
        self._kept, self._after = stored["lines"], stored["cursor"]
        await self.start(**self._options)

    async def ended(self, patience: float = PATIENCE_SECONDS) -> bool:
        """Wait until all that it watches has ended; whether it did."""
        try:
            async with asyncio.timeout(patience):
                await self._workers[-1].ended()
        except TimeoutError:
            await self._workers[-1].kill()
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether it is still at it."""
        return not self._workers[-1].ended_already

    @property
    def lines(self) -> int:
        """How many changes it has written, of the first process."""
        return self._path(0).read_bytes().count(b"\n")

    @property
    def feeds(self) -> list[list[Told]]:
        """What each process wrote."""
        return [read_feed(self._path(number)) for number in range(len(self._workers))]

    def _path(self, number: int) -> Path:
        return self._folder / f"{self._name}.{number}.feed"

    def faults(self, acknowledged: dict[str, dict[str, Acknowledged]], held: dict[str, Held]) -> list[str]:
        """Whatever is wrong with what it wrote."""
        first, *later = self.feeds
        found = misplaced(first, cut=bool(later))
        kept = first[: self._kept] if later else first
        if later and self.session is None:
            # All that there was is told once more: the second feed is one of its own.
            found += misplaced(later[0])
            whole, last, resumed = [*kept, *later[0]], later[0], len(kept)
        else:
            # Whatever is told twice comes after the stored cursor: without what came after it, nothing is.
            whole = last = [*kept, *(later[0] if later else [])]
            found += misplaced(whole)
            resumed = None
        for session_id in held if self.session is None else [self.session]:
            among = _of(whole, session_id)
            again = None if resumed is None else len(_of(whole[:resumed], session_id))
            found += missed(among, acknowledged.get(session_id, {}).values(), resumed=again)
            found += unlike(_of(last, session_id), held[session_id])
        return [f"watcher {self._name} of {self.session}: {fault}" for fault in found]

    def repeated(self) -> int:
        """How many messages and events both processes wrote."""
        first, *later = self.feeds
        return sum((Counter(_names(first)) & Counter(_names(later[0]))).values()) if later else 0


def _of(feed: Iterable[Told], session_id: str) -> list[Told]:
    return [told for told in feed if told.session == session_id]


def _names(feed: Iterable[Told]) -> Iterable[Any]:
    for told in feed:
        yield from ((told.session, told.generation, position) for position, _ in told.messages)
        if told.number is not None:
            yield (told.session, told.generation, "event", told.number)


class Round:
    """Writers and watchers of one run."""

    def __init__(self, url: str, folder: Path, name: str, workers: Any = Worker) -> None:
        self._start: Any = partial(workers.start, url=url)
        self._url = url
        self._prefix = name
        self.sessions = [f"{name}-{session_id}" for session_id in SESSIONS]
        self.ends = list(self.sessions)
        self._folder = folder
        self.watchers: list[Watcher] = []
        self.writers: list[Any] = []
        self.held: dict[str, Held] = {}

    async def watch(self, watched: list[str | None], **options: Any) -> None:
        """Begin to watch, and wait until those of the whole tenant are there."""
        for number, session_id in enumerate(watched):
            name = None if session_id is None else f"{self._prefix}-{session_id}"
            ends, label = self.ends if name is None else [name], f"{self._prefix}-{number}"
            self.watchers.append(Watcher(self._start, self._folder / label, name, ends))
        of_tenant = [watcher for watcher in self.watchers if watcher.session is None]
        async with SessionRepository.connect(self._url) as repository:
            await asyncio.gather(*(watcher.start(**options) for watcher in of_tenant))
            while not all(watcher.lines for watcher in of_tenant):
                await repository.append(DOOR, {"role": "user"}, create=True)
                await asyncio.sleep(PAUSE_SECONDS)
            for session_id in self.sessions:
                await repository.create(session_id)
        await asyncio.gather(*(watcher.start(**options) for watcher in self.watchers if watcher.session is not None))

    async def write(self, processes: int, steps: int, *, rewriting: bool) -> None:
        """Let writers begin."""
        options: dict[str, Any] = {"tasks": TASKS, "steps": steps, "sessions": self.sessions, "rewriting": rewriting}
        starting = [self._start("change", name=f"{self._prefix}-w{number}", **options) for number in range(processes)]
        self.writers = await asyncio.gather(*starting)
        for writer in self.writers:
            writer.go()

    async def kill(self, number: int, after: int) -> None:
        """Kill a watcher once it has written so much."""
        watcher = self.watchers[number]
        while watcher.lines < after and watcher.running:  # noqa: ASYNC110  # what is waited for happens elsewhere
            await asyncio.sleep(PAUSE_SECONDS)
        assert watcher.running, "it is killed in the middle"
        await watcher.kill()

    async def end(self, patience: float = PATIENCE_SECONDS) -> list[str]:
        """Wait for the writers, say that this was all, and compare; gives what is wrong."""
        for writer in self.writers:
            await writer.ended()
        async with SessionRepository.connect(self._url) as repository:
            for session_id in self.ends:
                await repository.open(session_id)
                await repository.record_event(session_id, END)
            self.held = {session_id: await Held.read(repository, session_id) for session_id in self.ends}
        ended = await asyncio.gather(*(watcher.ended(patience) for watcher in self.watchers))
        found = [f"watcher {number} never came to the end" for number, whether in enumerate(ended) if not whether]
        acknowledged = self.acknowledged()
        return found + [fault for watcher in self.watchers for fault in watcher.faults(acknowledged, self.held)]

    def acknowledged(self) -> dict[str, dict[str, Acknowledged]]:
        """What each task was told, by session."""
        by_session: dict[str, dict[str, Acknowledged]] = {}
        for event in (event for writer in self.writers for event in writer.events):
            items = by_session.setdefault(event["session"], {}).setdefault(event["task"], Acknowledged()).items
            items += [(name, at) for name, at in event["messages"]] if "messages" in event else [(event["event"], None)]
        return by_session


@pytest.mark.parametrize("rewriting", [False, True], ids=["growing", "rewriting"])
async def test_watchers(shared_url: str, tmp_path: Path, request: pytest.FixtureRequest, *, rewriting: bool) -> None:
    """Whatever sixteen writers do, eight watchers miss nothing; twice comes only what follows a stored cursor."""
    chance = random.Random(6)
    runs = rounds(1, 10)
    told: Counter[str] = Counter()
    for number in range(runs):
        turn = Round(shared_url, tmp_path, f"r{number}")
        await turn.watch(WATCHED)
        await turn.write(PROCESSES, STEPS, rewriting=rewriting)
        await asyncio.gather(*(turn.kill(victim, chance.randint(10, 40)) for victim in KILLED))
        assert await turn.end() == []
        tasks = [task for tasks in turn.acknowledged().values() for task in tasks.values()]
        told["messages"] += sum(position is not None for task in tasks for _, position in task.items)
        told["own_events"] += sum(position is None for task in tasks for _, position in task.items)
        feeds = [feed for watcher in turn.watchers for feed in watcher.feeds]
        told["changes"] += sum(map(len, feeds))
        told["breaks"] += sum(change.kind in {"rewritten", "deleted"} for feed in feeds for change in feed)
        told["repeated"] += sum(watcher.repeated() for watcher in turn.watchers)
        await assert_sound(shared_url)
    assert bool(told["breaks"]) == rewriting
    figure(request, runs=runs, kills=runs * len(KILLED), missed=0, misplaced=0, unexplained=0, **told)


MISTAKES = {
    tampering_feeds.events_before_messages: ("position",),
    tampering_feeds.events_once: ("is not in the feed",),
    tampering_feeds.new_event_unseen: ("is not in the feed",),
    tampering_feeds.read_again: ("after",),
    tampering_feeds.without_rewritten: ("left out", "without a break"),
}
"""What the package could do wrong, and words of what is then found: one of them."""


@pytest.mark.parametrize(("mistake", "words"), MISTAKES.items(), ids=[mistake.__name__ for mistake in MISTAKES])
async def test_mistakes_are_found(
    shared_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mistake: Callable[..., None],
    words: tuple[str, ...],
) -> None:
    """Whoever watches wrongly, in one of the ways that are easy to get wrong, is found out."""
    mistake(monkeypatch)
    turn = Round(shared_url, tmp_path, "wrong", Local)
    await turn.watch([SESSIONS[0], None])
    await turn.write(1, STEPS, rewriting=True)
    found = await turn.end(MISTAKEN_SECONDS)
    assert [fault for fault in found if any(word in fault for word in words)], found


@pytest.mark.parametrize(("early", "faulty"), [(0, False), (3, True)], ids=["in-time", "early"])
async def test_a_cursor_that_is_stored_too_early(shared_url: str, tmp_path: Path, *, early: int, faulty: bool) -> None:
    """A consumer that stores the cursor of what it has not dealt with yet loses it when it is killed, and no other."""
    turn = Round(shared_url, tmp_path, "early", Local)
    await turn.watch([SESSIONS[0]], early=early)
    await turn.write(1, STEPS, rewriting=False)
    await turn.kill(0, 12)
    found = await turn.end(MISTAKEN_SECONDS)
    assert bool(found) == faulty, found
