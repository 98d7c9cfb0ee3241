"""How often a verb talks to PostgreSQL: counted, as timing decides nothing."""

from __future__ import annotations

from typing import Any

import pytest

from sessionstore import NewMessage, SessionRepository, StoreSettings
from sessionstore.executors.postgresql import _Run

MESSAGE = {"role": "user", "content": "hello"}


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of what was sent, one a round trip."""
    sent: list[str] = []

    async def counted(run: _Run, sending: Any, name: str, *, commits: bool = False) -> Any:
        sent.append(name)
        return await real(run, sending, name, commits=commits)

    real = _Run._send
    monkeypatch.setattr(_Run, "_send", counted)
    return sent


async def test_round_trips(postgres_database: str, trips: list[str]) -> None:
    """P10: one for each of the frequent verbs, and no more with a longer history."""

    async def made(call: Any) -> list[str]:
        trips.clear()
        await call
        return list(trips)

    async with SessionRepository.connect(postgres_database) as sessions:
        assert await made(sessions.create("s")) == ["create"]
        assert await made(sessions.append("s", MESSAGE)) == ["append"]
        assert await made(sessions.append("s", *[MESSAGE] * 1000)) == ["append"]
        assert await made(sessions.append("s", MESSAGE)) == ["append"]
        assert await made(sessions.append("s", MESSAGE, expected_length=1002)) == ["append"]
        assert await made(sessions.append("s", MESSAGE, create=True)) == ["append"]
        assert await made(sessions.messages("s", last=20)) == ["read"]
        assert await made(sessions.messages("s", last=20, align="turn")) == ["read_turn"]
        assert await made(sessions.get("s")) == ["get"]
        assert await made(sessions.length("s")) == ["head"]
        assert await made(sessions.list_sessions()) == ["page"]
        assert await made(sessions.open("s")) == ["access_as", "get"]
        assert await made(sessions.trim("s", 500)) == ["begin", "access", "trim", "delete_range", "commit"]
        assert await made(sessions.trim("s", 500)) == ["begin", "access", "commit"]
        assert await made(sessions.record_event("s", "noted")) == ["happen"]
        assert await made(sessions.events("s")) == ["events_after"]
        ids = NewMessage(MESSAGE, message_id="m")
        assert await made(sessions.append("s", ids)) == ["begin", "advance", "insert_messages", "commit"]
        again = await made(sessions.append("s", ids))
        assert again[-6:] == ["rollback", "begin", "lock", "stored_ids", "access", "commit"]


async def test_a_cap_costs_two_more(postgres_database: str, trips: list[str]) -> None:
    async with SessionRepository.connect(postgres_database, settings=StoreSettings(session_cap=5)) as sessions:
        for number in range(5):
            await sessions.create(f"s{number}")
        trips.clear()
        await sessions.create("one more")
        assert trips == ["create", "remove_least_recent", "purge_tombstones"]
