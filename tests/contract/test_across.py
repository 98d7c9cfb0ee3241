"""What holds across all verbs: no update is lost, and nothing is left of what was deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    NewMessage,
    PrunePolicy,
    SessionRepository,
    StoreSettings,
    Transcript,
    VersionConflictError,
)
from tests.contract._own import PAST, dump
from tests.support.repositories import bodies, row_counts, say, set_columns, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXPECTING: dict[str, Callable[[SessionRepository, Any], Awaitable[Any]]] = {
    "update": lambda sessions, version: sessions.update("s", title="new", expected_version=version),
    "set_metadata": lambda sessions, version: sessions.set_metadata("s", {"k": 2}, expected_version=version),
    "remove metadata": lambda sessions, version: sessions.set_metadata("s", {}, remove=["k"], expected_version=version),
    "replace_messages": lambda sessions, version: sessions.replace_messages("s", talk(1), expected_version=version),
    "compact": lambda sessions, version: sessions.compact(
        "s", say("system", "x"), keep_last=1, expected_version=version
    ),
    "save": lambda sessions, version: sessions.save(Transcript.of("s", talk(1)), expected_version=version),
}


@pytest.mark.parametrize("name", EXPECTING)
async def test_a_stale_version_is_refused(sessions: SessionRepository, name: str) -> None:
    """X03: with both numbers in the error, and nothing changed; the right one goes through."""
    await sessions.create("s", metadata={"k": 1})
    await sessions.append("s", *talk(4))
    version = (await sessions.update("s", title="old")).version
    before = await sessions.snapshot("s")
    for stale in (version - 1, version + 1, 0, 2**62):
        with pytest.raises(VersionConflictError) as caught:
            await EXPECTING[name](sessions, stale)
        assert (caught.value.expected, caught.value.actual) == (stale, version)
        assert str(stale) in str(caught.value)
        assert str(version) in str(caught.value)
    assert (await sessions.snapshot("s")).messages == before.messages
    assert (await sessions.get("s")).version == version
    assert (await sessions.get("s")).metadata == {"k": 1}
    await EXPECTING[name](sessions, version)
    assert (await sessions.get("s")).version == version + 1


@pytest.mark.parametrize("name", EXPECTING)
async def test_a_version_is_a_number(sessions: SessionRepository, name: str) -> None:
    """X03: anything else is refused before anything is sent."""
    await sessions.create("s", metadata={"k": 1})
    for version in (-1, 1.0, "0", True, 2**63):
        with pytest.raises(InvalidArgumentError, match="expected_version"):
            await EXPECTING[name](sessions, version)
    assert (await sessions.get("s")).version == 0


async def test_compare_and_set_loses_no_update(sessions: SessionRepository) -> None:
    """X03: ten writers count in one session; every count is there."""
    await sessions.create("s", metadata={"count": 0})

    async def count(conflicts: list[tuple[int, VersionConflictError]]) -> None:
        for _ in range(5):
            while True:
                seen = await sessions.get("s")
                number = seen.metadata["count"]
                assert isinstance(number, int)
                try:
                    await sessions.set_metadata("s", {"count": number + 1}, expected_version=seen.version)
                    break
                except VersionConflictError as conflict:
                    conflicts.append((seen.version, conflict))

    refused: list[tuple[int, VersionConflictError]] = []
    await asyncio.gather(*(count(refused) for _ in range(10)))
    assert all(conflict.expected == seen < conflict.actual for seen, conflict in refused)
    session = await sessions.get("s")
    assert (session.metadata["count"], session.version) == (50, 50)


async def test_expected_length_loses_no_turn(sessions: SessionRepository) -> None:
    """X03: of writers that have read the same history, one appends."""
    await sessions.create("s")
    for length in range(5):
        calls = [sessions.append("s", say("user", f"{at}"), expected_length=length) for at in range(8)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        conflicts = [answer for answer in answers if isinstance(answer, VersionConflictError)]
        assert [answer for answer in answers if isinstance(answer, list)] == [[length]]
        assert {(conflict.expected, conflict.actual) for conflict in conflicts} == {(length, length + 1)}
        assert len(conflicts) == 7
    assert await sessions.length("s") == 5


DELETES: dict[str, Callable[[SessionRepository], Awaitable[Any]]] = {
    "delete": lambda sessions: sessions.delete("s"),
    "delete_user": lambda sessions: sessions.delete_user("ann"),
    "delete_all": lambda sessions: sessions.delete_all(),
    "prune": lambda sessions: sessions.prune(PrunePolicy()),
    "eviction": lambda sessions: SessionRepository(
        sessions._shared.engine, settings=StoreSettings(session_cap=1)
    ).create("another"),
}


@pytest.mark.parametrize("name", DELETES)
async def test_nothing_is_left_of_a_deleted_session(sessions: SessionRepository, name: str) -> None:
    """X05, P5: no row in any table names it, and what takes its id starts empty."""
    old = await sessions.create("s", user_id="ann", title="t", metadata={"k": 1, "l": {"m": 2}})
    await sessions.append("s", *talk(3), NewMessage(say("user", "x"), message_id="m"))
    await sessions.trim("s", 2)
    await sessions.update("s", summary="y", active_seed_id="z")
    await set_columns(sessions, "s", updated_at=PAST, last_accessed_at=PAST)
    await DELETES[name](sessions)
    # But, for a day, that it was there.
    left = [row for table, found in (await dump(sessions)).items() for row in found if "tombstones" not in table]
    assert not [row for row in left if "s" in row or "m" in row], left
    new = await sessions.create("s")
    assert (new.user_id, new.title, new.summary, new.active_seed_id, new.metadata) == ("", None, None, None, {})
    assert (new.first_position, new.next_position, new.version, new.parent_id) == (0, 0, 0, None)
    assert new.generation > old.generation
    assert await sessions.append("s", NewMessage(say("user", "y"), message_id="m")) == [0]
    assert bodies(await sessions.messages("s")) == [say("user", "y")]


async def test_a_deleted_session_stays_the_parent_of_its_forks(sessions: SessionRepository) -> None:
    """X05, P5: but only by name: the fork has all that is its own."""
    await sessions.create("s", metadata={"k": 1})
    await sessions.append("s", *talk(2))
    await sessions.fork("s", new_id="fork")
    await sessions.delete("s")
    assert (await sessions.get("fork")).parent_id == "s"
    assert (await sessions.lineage("fork")).parent_id is None
    assert bodies(await sessions.messages("fork")) == talk(2)
    assert await row_counts(sessions) == {
        "sessionstore_sessions": 1,
        "sessionstore_messages": 2,
        "sessionstore_metadata": 1,
        "sessionstore_events": 1,
    }


async def test_deleting_beside_writers_leaves_nothing_or_everything(sessions: SessionRepository) -> None:
    """X05: whoever comes first, no message is without a session (the fixture looks for those)."""

    async def write() -> None:
        for turn in range(10):
            await sessions.append("s", say("user", f"{turn}"), create=True)

    async def delete() -> None:
        for _ in range(10):
            await sessions.delete("s")

    await asyncio.gather(write(), write(), delete(), delete())
    found = await sessions.find("s")
    assert (found.length if found else 0) == len(await sessions.messages("s") if found else [])
