"""Whoever only follows a session ends with what is stored: any order of verbs, any place to resume from."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import SessionNotFoundError, SessionRepository
from tests.contract._watching import END, collecting, following, upto, watching
from tests.support.repositories import callers_engine, say

if TYPE_CHECKING:
    from sessionstore import Change

KINDS = (
    ["append"] * 8 + ["own"] * 3 + ["trim", "truncate", "pop", "replace", "compact", "reset", "delete", "fork", "save"]
)


class Replica:
    """A copy of a session, kept by what a watch tells and by reading again where it says so."""

    def __init__(self, sessions: SessionRepository) -> None:
        self._sessions = sessions
        self.messages: dict[int, Any] = {}
        self.own: list[str] = []
        self.cursor: str | None = None

    async def apply(self, change: Change) -> None:
        self.cursor = change.cursor
        if change.kind == "deleted":
            self.messages = {}
        elif change.kind == "rewritten":
            try:
                read = await self._sessions.messages("s")
            except SessionNotFoundError:
                read = []
            self.messages = {message.position: message.body["content"] for message in read}
        elif change.messages:
            self.messages |= {message.position: message.body["content"] for message in change.messages}
        elif change.event is not None and change.event.kind == "trimmed":
            first = change.event.first_position
            self.messages = {at: body for at, body in self.messages.items() if at >= first}
        elif change.event is not None and change.event.kind == "own":
            self.own.append(str(change.event.payload))


async def _do(sessions: SessionRepository, kind: str, dice: random.Random, at: int) -> None:  # noqa: C901  # a verb a case
    await sessions.open("s")
    match kind:
        case "append":
            await sessions.append("s", *[say("user", f"{at}.{n}") for n in range(dice.randint(1, 4))])
        case "own":
            await sessions.record_event("s", "own", payload=at)
        case "trim":
            await sessions.trim("s", dice.randint(0, 5))
        case "truncate":
            await sessions.truncate("s", dice.randint(0, 5))
        case "pop":
            await sessions.pop("s")
        case "replace":
            await sessions.replace_messages("s", [say("user", f"{at}.r{n}") for n in range(dice.randint(0, 3))])
        case "compact":
            await sessions.compact("s", say("system", f"{at}.sum"), keep_last=dice.randint(0, 3))
        case "reset":
            await sessions.reset("s")
        case "delete":
            await sessions.delete("s")
        case "fork":
            await sessions.append("other", say("user", f"{at}.f"), create=True)
            await sessions.fork("other", new_id="s", replace=True)
        case "save":
            transcript = await sessions.snapshot("s")
            await sessions.append("s", say("user", f"{at}.lost"))
            await sessions.save(transcript)


async def _stored(sessions: SessionRepository) -> dict[int, Any]:
    return {message.position: message.body["content"] for message in await sessions.messages("s")}


@pytest.mark.parametrize("seed", range(12))
async def test_a_replica_that_looks_now_and_then(sessions: SessionRepository, seed: int) -> None:
    """P2: resuming at any moment from the cursor it stored, after any verbs, leads to what is stored."""
    dice = random.Random(seed)  # tests
    await sessions.create("s")
    replica = Replica(sessions)
    for round_ in range(12):
        for at in range(dice.randint(0, 6)):
            await _do(sessions, dice.choice(KINDS), dice, round_ * 100 + at)
        await sessions.open("s")
        await sessions.record_event("s", END)
        async with watching(sessions, "s", after=replica.cursor) as feed:
            stop = dice.randint(1, 6)  # or it leaves before it has heard everything
            async for change in feed:
                await replica.apply(change)
                stop -= 1
                if change.kind == END and change.cursor == (await sessions.get("s")).cursor:
                    assert replica.messages == await _stored(sessions)
                    break
                if stop == 0 and dice.random() < 0.3:
                    break
    async with watching(sessions, "s", after=replica.cursor) as feed:
        await sessions.record_event("s", "last-end")
        for change in await upto(feed, "last-end"):
            await replica.apply(change)
    assert replica.messages == await _stored(sessions)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("whole", [False, True], ids=["session", "tenant"])
async def test_a_replica_that_follows_live(lasting_url: str, seed: int, *, whole: bool) -> None:
    """P2: while another engine changes the session, by a watch of it or of the tenant."""
    dice = random.Random(seed)  # tests
    engine = callers_engine(lasting_url)
    async with SessionRepository.connect(lasting_url) as here, SessionRepository(engine) as there:
        await there.create("s")
        replica, done = Replica(here), 0
        async with collecting(here, None if whole else "s") as taken:
            await following(here, "", None if whole else "s")
            for at in range(60):
                await _do(dice.choice([here, there]), dice.choice(KINDS), dice, at)
            await there.open("s")
            await there.record_event("s", END)
            await taken.has((END,))
            for change in taken.changes[done:]:
                if change.session_id == "s":
                    await replica.apply(change)
        assert replica.messages == await _stored(here)
    await engine.dispose()
