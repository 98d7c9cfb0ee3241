"""After a restart, with a fresh engine on the same database, everything is as it was."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from sessionstore import (
    DocumentRepository,
    Lineage,
    NewMessage,
    Session,
    SessionNotFoundError,
    SessionRepository,
    StoreSettings,
    Transcript,
)
from tests.support.repositories import bodies, callers_engine, contents, positions, row_counts, say, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

LONG_AGO = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


class State(NamedTuple):
    """All that can be read of a tenant."""

    transcripts: dict[str, Transcript]
    lineages: dict[str, Lineage]
    listing: list[Any]


async def state(sessions: SessionRepository) -> State:
    listing = (await sessions.list_sessions(limit=1000)).rows
    names = sorted(row.id for row in listing)
    return State(
        {name: await sessions.snapshot(name) for name in names},
        {name: await sessions.lineage(name) for name in names},
        listing,
    )


async def _session(sessions: SessionRepository, length: int = 4) -> Session:
    await sessions.create("s", user_id="ana", title="Ships", metadata={"k": [1], "nul": "a\0b"})
    await sessions.append("s", *talk(length))
    return await sessions.update("s", summary="short")


async def created(sessions: SessionRepository) -> None:
    await sessions.create()
    await sessions.open()
    await sessions.open("a", user_id="ana", metadata={"k": 1})
    await sessions.open("a")
    await sessions.create("b", model="model-1", max_turns=7, system_message="Be brief.", title="x")
    await sessions.append("c", *talk(2), create=True)


async def updated(sessions: SessionRepository) -> None:
    await _session(sessions)
    await sessions.update("s", title=None, active_seed_id="seed", active_persona_id="persona", max_turns=3)
    await sessions.set_metadata("s", {"new": {"a": None}}, remove=["nul"])


async def appended(sessions: SessionRepository) -> None:
    await sessions.create("s")
    await sessions.append("s", *talk(3))
    batch = [NewMessage({"t": 1.0}, role="bot", message_id=f"m{at}", created_at=LONG_AGO) for at in range(3)]
    assert await sessions.append("s", *batch[:2]) == [3, 4]
    assert await sessions.append("s", *batch) == [3, 4, 5]
    await sessions.append("s", say("user", ["\ud800", "a\0b", 2**70, -0.0, 1e16, {"z": 1, "a": 2}], seed_id="x"))
    await sessions.append("s")


async def trimmed(sessions: SessionRepository) -> None:
    await _session(sessions, 6)
    await sessions.trim("s", 3, align="turn")
    await sessions.append("s", *talk(1))


async def truncated(sessions: SessionRepository) -> None:
    await _session(sessions, 6)
    await sessions.truncate("s", 3)
    await sessions.pop("s")
    await sessions.append("s", say("user", "again"))


async def replaced(sessions: SessionRepository) -> None:
    await _session(sessions, 6)
    await sessions.replace_messages("s", [say("user", at) for at in range(6000)])


async def compacted(sessions: SessionRepository) -> None:
    await _session(sessions, 8)
    await sessions.compact("s", NewMessage(say("system", "before"), message_id="c"), keep_last=2)


async def was_reset(sessions: SessionRepository) -> None:
    await _session(sessions)
    await sessions.reset("s")


async def deleted(sessions: SessionRepository) -> None:
    await _session(sessions)
    await sessions.create("t")
    await sessions.delete("s")
    await sessions.create("s")


async def forked(sessions: SessionRepository) -> None:
    await _session(sessions, 6)
    await sessions.trim("s", 5)
    await sessions.fork("s", new_id="a")
    await sessions.fork_at("s", 2, new_id="b")
    await sessions.fork("a", new_id="c")
    await sessions.fork("b", new_id="a", replace=True)
    await sessions.append("b", *talk(2))
    await sessions.delete("s")


async def saved(sessions: SessionRepository) -> None:
    transcript = Transcript.of("s", talk(4), title="x", metadata={"k": 1}, created_at=LONG_AGO, updated_at=LONG_AGO)
    await sessions.save(transcript)
    longer = transcript.replace(messages=[*talk(4), say("user", "new")], updated_at=LONG_AGO + timedelta(1))
    await sessions.save(longer)


async def evicted(sessions: SessionRepository) -> None:
    for at in range(7):
        await sessions.create(f"s{at}", metadata={"k": at})
        await sessions.append(f"s{at}", *talk(2))


SCENARIOS: dict[str, tuple[Callable[[SessionRepository], Awaitable[None]], int]] = {
    "H01 H02 F01 O09": (created, 5),
    "F09 O02": (updated, 1),
    "H28 F03 F08 F13 F15 O06": (appended, 1),
    "H26": (trimmed, 1),
    "H27": (truncated, 1),
    "H32": (replaced, 1),
    "H37": (compacted, 1),
    "H14": (was_reset, 1),
    "H13 O10": (deleted, 2),
    "H16 H18 H19 H22 H23 H24": (forked, 3),
    "H31 F06 F16 O05 O08": (saved, 1),
    "H03 H10": (evicted, 5),
}
"""By the rows they are about: what happens before the restart, and how many sessions it leaves."""

SETTINGS = StoreSettings(session_cap=5)


async def happen(sessions: SessionRepository) -> dict[str, State]:
    """Each scenario in a tenant of its own, and what it left."""
    states = {}
    for name, (scenario, count) in SCENARIOS.items():
        handle = sessions.for_tenant(name)
        await scenario(handle)
        states[name] = await state(handle)
        assert len(states[name].transcripts) == count, name
    return states


@pytest.mark.parametrize("way", ["connect", "engine", "within"])
async def test_everything_is_as_it_was(lasting_url: str, way: str) -> None:
    """X08, H01, H03, H13, H14, H16, H19, H22, H26, H27, H28, H31, H32, H37, F03, F06, F08, F09, F15, F16: restarted."""
    if way == "connect":
        async with SessionRepository.connect(lasting_url, settings=SETTINGS) as sessions:
            before = await happen(sessions)
    else:
        engine = callers_engine(lasting_url)
        async with SessionRepository(engine, settings=SETTINGS) as sessions, engine.connect() as connection:
            before = await happen(sessions if way == "engine" else sessions.within(connection))
            await connection.commit()
        await engine.dispose()

    async with SessionRepository.connect(lasting_url) as fresh:
        for name, was in before.items():
            assert await state(fresh.for_tenant(name)) == was, name
    engine = callers_engine(lasting_url)
    async with SessionRepository(engine) as fresh:
        for name, was in before.items():
            assert await state(fresh.for_tenant(name)) == was, name
    await engine.dispose()


async def test_a_configured_session(lasting_url: str) -> None:
    """F02, X08: model, turns and system message are there after a restart, also a missing system message."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await sessions.create("with", model="model-1", max_turns=12, system_message="Be brief.")
        await sessions.create("without", model="model-2", max_turns=2**63 - 1)
    async with SessionRepository.connect(lasting_url) as sessions:
        configured, plain = await sessions.get("with"), await sessions.get("without")
    assert (configured.model, configured.max_turns, configured.system_message) == ("model-1", 12, "Be brief.")
    assert (plain.model, plain.max_turns, plain.system_message) == ("model-2", 2**63 - 1, None)


async def test_a_conversation_is_resumed(lasting_url: str) -> None:
    """H38, H30, X08: its messages are the prefix of the next call of a model; after a reset there are none."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await sessions.create("s")
        await sessions.append("s", *talk(3))
    async with SessionRepository.connect(lasting_url) as sessions:
        assert json.loads(await sessions.messages_json("s")) == talk(3)
        assert await sessions.append("s", say("assistant", "and on")) == [3]
    async with SessionRepository.connect(lasting_url) as sessions:
        assert bodies(await sessions.messages("s")) == [*talk(3), say("assistant", "and on")]
        await sessions.reset("s")
    async with SessionRepository.connect(lasting_url) as sessions:
        assert await sessions.messages_json("s") == b"[]"
        assert await sessions.append("s", *talk(1)) == [0]


async def test_work_goes_on_after_a_restart(lasting_url: str) -> None:
    """X08, H22, H26: positions, ids, versions and generations continue where they were."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await _session(sessions, 5)
        await sessions.append("s", NewMessage(say("user", "m"), message_id="m"))
        await sessions.trim("s", 3)
        before = await sessions.get("s")
    async with SessionRepository.connect(lasting_url) as sessions:
        assert await sessions.append("s", NewMessage(say("user", "m"), message_id="m")) == [5]
        assert await sessions.append("s", *talk(1), expected_length=3) == [6]
        assert positions(await sessions.messages("s")) == [3, 4, 5, 6]
        changed = await sessions.update("s", title="y", expected_version=before.version + 1)
        assert changed.generation == before.generation
        await sessions.pop("s")
        assert (await sessions.get("s")).generation > before.generation


async def test_what_is_gone_stays_gone(lasting_url: str) -> None:
    """X08, H10, H11, H13, H15: deleted sessions, and those of an emptied tenant."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await _session(sessions)
        await sessions.delete("s")
        other = sessions.for_tenant("other")
        await _session(other)
        await other.delete_all()
    async with SessionRepository.connect(lasting_url) as sessions:
        for handle in (sessions, sessions.for_tenant("other")):
            assert not await handle.exists("s")
            assert await handle.find("s") is None
            with pytest.raises(SessionNotFoundError):
                await handle.length("s")
        assert set((await row_counts(sessions)).values()) == {0}


async def test_tenants_and_documents(lasting_url: str) -> None:
    """X08, X01, O22: other handles on the same database find their own."""
    async with SessionRepository.connect(lasting_url) as sessions, DocumentRepository.connect(lasting_url) as documents:
        for tenant in ("", "a", "b"):
            await sessions.for_tenant(tenant).create("s", title=f"of {tenant}")
            await sessions.for_tenant(tenant).append("s", say("user", tenant))
        await documents.save_json("memory/facts", "ship", value={"z": 1.0, "a": None})
        await documents.save_markdown("memory/facts", "ship", text="# Ship\n")
    async with SessionRepository.connect(lasting_url) as sessions, DocumentRepository.connect(lasting_url) as documents:
        for tenant in ("", "a", "b"):
            handle = sessions.for_tenant(tenant)
            assert (await handle.get("s")).title == f"of {tenant}"
            assert contents(await handle.messages("s")) == [tenant]
        assert repr(await documents.find_json("memory/facts", "ship")) == "{'z': 1.0, 'a': None}"
        assert await documents.find_markdown("memory/facts", "ship") == "# Ship\n"
