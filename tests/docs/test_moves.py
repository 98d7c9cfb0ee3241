"""The table "what moves what" of docs/api.md, verb by verb."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sessionstore import Session, SessionRepository, Transcript
from tests.contract._verbs import watched
from tests.docs.markdown import read, rows, sections
from tests.support.repositories import backdate

Verb = Callable[[SessionRepository], Awaitable[Any]]

TABLE: Final = rows(sections(read("docs/api.md"))["What moves what"])
LATER: Final = datetime(2040, 1, 1, tzinfo=UTC)
SAY: Final = {"role": "user", "content": "hello"}

READS: Final[dict[str, Verb]] = {
    "get": lambda sessions: sessions.get("s"),
    "find": lambda sessions: sessions.find("s"),
    "exists": lambda sessions: sessions.exists("s"),
    "length": lambda sessions: sessions.length("s"),
    "messages": lambda sessions: sessions.messages("s"),
    "messages_json": lambda sessions: sessions.messages_json("s"),
    "iter_messages": lambda sessions: _consumed(sessions.iter_messages("s")),
    "snapshot": lambda sessions: sessions.snapshot("s"),
    "lineage": lambda sessions: sessions.lineage("s"),
    "list_sessions": lambda sessions: sessions.list_sessions(),
    "events": lambda sessions: sessions.events("s"),
    "watch": lambda sessions: watched(sessions, "s"),
}

CHANGES: Final[dict[str, Verb]] = {
    "open": lambda sessions: sessions.open("s"),
    "subscribe": lambda sessions: _subscribed(sessions),  # noqa: PLW0108  # it stands below
    "record_event": lambda sessions: sessions.record_event("s", "noted"),
    "append": lambda sessions: sessions.append("s", SAY),
    "update": lambda sessions: sessions.update("s", title="T"),
    "set_metadata": lambda sessions: sessions.set_metadata("s", {"k": 1}),
    "trim": lambda sessions: sessions.trim("s", 1),
    "truncate": lambda sessions: sessions.truncate("s", 1),
    "pop": lambda sessions: sessions.pop("s"),
    "replace_messages": lambda sessions: sessions.replace_messages("s", [SAY]),
    "compact": lambda sessions: sessions.compact("s", SAY, keep_last=1),
    "reset": lambda sessions: sessions.reset("s"),
    "fork: the source": lambda sessions: sessions.fork("s"),
    "fork_at: the source": lambda sessions: sessions.fork_at("s", 1),
    "fork with replace: the child that was there": lambda sessions: sessions.fork("o", new_id="s", replace=True),
    "fork_at with replace: the child that was there": lambda sessions: sessions.fork_at(
        "o", 1, new_id="s", replace=True
    ),
    "save": lambda sessions: _saved(sessions, [SAY, {"role": "user", "content": "another"}]),
    "save, new messages only": lambda sessions: _saved(sessions, [SAY, SAY, SAY, SAY]),
}

NOTHING_TO_DO: Final[dict[str, Verb]] = {
    "append": lambda sessions: sessions.append("s"),
    "trim": lambda sessions: sessions.trim("s", 3),
    "truncate": lambda sessions: sessions.truncate("s", 99),
    "compact": lambda sessions: sessions.compact("s", SAY, keep_last=3),
    "pop": lambda sessions: sessions.pop("s"),
}


async def _consumed(messages: AsyncIterator[Any]) -> int:
    return len([message async for message in messages])


async def _subscribed(sessions: SessionRepository) -> None:
    (await sessions.subscribe("s", print)).cancel()


async def _saved(sessions: SessionRepository, messages: list[Any]) -> Session:
    stored = (await sessions.snapshot("s")).session
    return await sessions.save(
        Transcript(replace(stored, updated_at=LATER, next_position=len(messages)), tuple(messages))
    )


def _expected(verb: str) -> list[str]:
    """The row of a verb."""
    name = re.split(r"[ ,:]", verb)[0]
    found = [row for row in TABLE[1:] if f"`{name}`" in row[0] and ("with replace" in verb) == ("`replace`" in row[0])]
    assert len(found) == 1, verb
    return found[0][1:]


async def _moved(sessions: SessionRepository, verb: Verb, length: int = 3) -> tuple[Session, Session]:
    """A session before and after a verb; before is an hour ago."""
    await sessions.delete_all()
    for name in ("o", "s"):
        await sessions.create(name)
        await sessions.append(name, *[SAY] * length)
    before = await backdate(sessions, "s", timedelta(hours=1))
    await verb(sessions)
    return before, await sessions.get("s")


def test_every_verb_of_the_table_is_tried() -> None:
    verbs = {name for row in TABLE[1:] for name in re.findall(r"`(\w+)`", row[0])} - {"replace"}
    assert verbs == set(READS) | {re.split(r"[ ,:]", name)[0] for name in CHANGES}


async def test_reading_moves_nothing(database_url: str) -> None:
    """H08: reads, exists, length and snapshot change neither recency nor anything else."""
    async with SessionRepository.connect(database_url) as sessions:
        for name, verb in READS.items():
            assert _expected(name) == ["-", "-", "-", "-"], name
            before, after = await _moved(sessions, verb)
            assert after == before, name


async def test_a_change_moves_what_the_table_says(database_url: str) -> None:
    """H09, O02: what each verb does to version, generation, update time and recency."""
    async with SessionRepository.connect(database_url) as sessions:
        for name, verb in CHANGES.items():
            before, after = await _moved(sessions, verb)
            assert _seen(before, after) == _wanted(name), name
            assert after.created_at == before.created_at, name


def _seen(before: Session, after: Session) -> list[str]:
    """What happened, in the words of the table."""
    versions = {0: "-", 1: "+1"}
    updated = "as stated" if after.updated_at == LATER else _later(before.updated_at, after.updated_at, "now")
    return [
        versions[after.version - before.version],
        _later(before.generation, after.generation, "new"),
        updated,
        _later(before.last_accessed_at, after.last_accessed_at, "now"),
    ]


def _later(before: Any, after: Any, word: str) -> str:
    return "-" if after == before else word if after > before else "back"


def _wanted(name: str) -> list[str]:
    """What the table says, the conditions of `save` resolved."""
    version, generation, updated, accessed = _expected(name)
    if generation == "new if a stored message changed":
        generation = "new" if name == "save" else "-"
    return [version, generation, updated.replace("as the transcript has it", "as stated"), accessed]


async def test_nothing_to_do_moves_only_the_recency(database_url: str) -> None:
    """H26, H37: a verb that finds nothing to do changes nothing but the recency."""
    async with SessionRepository.connect(database_url) as sessions:
        for name, verb in NOTHING_TO_DO.items():
            before, after = await _moved(sessions, verb, length=0 if name == "pop" else 3)
            assert after.last_accessed_at > before.last_accessed_at, name
            assert replace(after, last_accessed_at=before.last_accessed_at) == before, name
