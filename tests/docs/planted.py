"""A small store with the worst bodies there are, for the documented queries to answer about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sessionstore import DocumentRepository, NewMessage, SessionRepository, Transcript
from tests.migrations.databases import execute

# ruff: noqa: S608 - what is put into SQL here are texts that stand in this file
FIRST: Final = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
SECOND: Final = FIRST + timedelta(days=1)

_PASSED: Final = {"seed_id": "s-1", "phase_reached": "3", "evaluation_passed": True}
_FAILED: Final = _PASSED | {"evaluation_passed": False}

TALK: Final[list[tuple[dict[str, Any], datetime]]] = [
    ({"role": "user", "content": "a refund, please", "usage": {"total_tokens": 2.5}}, FIRST),
    ({"role": "assistant", "content": "nul \0 here", "usage": {"total_tokens": 1}}, FIRST),
    ({"role": "user", "content": "lone \ud800 here", "\udfff": 1, "usage": {"total_tokens": 1}}, SECOND),
    ({"role": "assistant", "content": [{"type": "text", "text": "x"}], "usage": {"total_tokens": 12}}, SECOND),
    ({"role": "assistant", "content": 10**299, "usage": {"total_tokens": 10**30}, **_FAILED}, SECOND),
    ({"role": "tool", "content": {"a": 1}, "usage": [1]}, SECOND),
    ({"role": "user", "content": "thanks", "usage": {"total_tokens": "n/a"}, **_PASSED}, SECOND),
    ({"role": "assistant", "usage": None, **_PASSED, "seed_id": "s\0"}, SECOND),
    ({"role": "assistant", "content": None, "usage": {"total_tokens": 2**62}, **_PASSED}, SECOND),
    ({"role": "assistant", "content": "", "usage": {"total_tokens": 2**62}, **_PASSED, "seed_id": "s-2"}, SECOND),
]

LONG: Final = (
    "https://shop.example/orders?campaign=a-rather-long-name-for-a-campaign-in-the-spring"
    "&medium=a-rather-long-name-for-a-medium&order="
)
"""A text of which value_key holds no more than this."""

HURT: Final = {
    "a list": '["x"]',
    "a text": '"refund"',
    "cut off": '{"role":"us',
    "empty": "",
    "no JSON number": "NaN",
    "not quoted": "refund",
}
"""What a hand may leave in a body, all of it said to be plain. PostgreSQL takes only what is JSON: the first two."""


async def plant(url: str) -> None:
    """Put something into every table, for every query to find."""
    async with SessionRepository.connect(url) as sessions, DocumentRepository.connect(url) as documents:
        await _talk(sessions)
        await _others(sessions)
        await sessions.claim("prune", cooldown_seconds=1)
        await documents.save_json("memory/facts", "odd", value={"x": ["\0", "\udc00", 10**299]})
        await documents.save_markdown("memory/facts", "odd", text="# Odd")


async def _talk(sessions: SessionRepository) -> None:
    said = [NewMessage(body, message_id=f"m-{at}", created_at=time) for at, (body, time) in enumerate(TALK)]
    odd: dict[str, Any] = {"language": "de", "odd": "\0\ud800", "n": 10**299, "source": LONG + "7"}
    now = datetime.now(UTC)
    await sessions.save(
        Transcript.of("order-7", said, user_id="ada", title="Refund", metadata=odd, created_at=FIRST, updated_at=now)
    )
    await sessions.fork_at("order-7", 3, new_id="fork")
    await sessions.fork("fork", new_id="fork of fork")
    await sessions.set_metadata("fork", {"source": LONG + "8", "language": "fr"})
    await sessions.trim("order-7", 9)
    await sessions.append("order-7", {"role": "user", "content": "a refund!"})
    await sessions.record_event("order-7", "refunded", payload={"amount": 12.5})
    await sessions.record_event("order-7", "noted", payload="\0")


async def _others(sessions: SessionRepository) -> None:
    await sessions.create("lost")
    await sessions.fork("lost", new_id="orphan")
    await sessions.delete("lost")
    old = datetime.now(UTC) - timedelta(days=60)
    said = [NewMessage(body, created_at=time) for body, time in TALK[:2]]
    await sessions.save(Transcript.of("old", said, user_id="bob", created_at=FIRST, updated_at=old))
    acme: Any = sessions.for_tenant("acme")
    await acme.append("chat", *({"role": "user", "content": word} for word in "abc"), create=True)


async def damage(url: str) -> None:
    """Change by hand what should not be: bodies, a hole in the session `old`, rows without their session."""
    async with SessionRepository.connect(url) as sessions:
        for name in HURT:
            await sessions.append(name, {"role": "user", "content": "x"}, create=True)
        await sessions.create("gone", metadata={"k": 1})
        await sessions.append("gone", {"role": "user", "content": "x"})
    bodies = list(HURT.items())
    if url.startswith("postgresql"):
        del bodies[2:]
        for child in ("messages", "metadata"):
            name = f"sessionstore_{child}"
            await execute(url, f"ALTER TABLE {name} DROP CONSTRAINT fk_{name}_sessionstore_sessions")
    else:
        await execute(
            url, "UPDATE sessionstore_messages SET body = X'FF7B00' WHERE session_id = 'fork' AND position = 0"
        )
    await execute(
        url,
        "DELETE FROM sessionstore_sessions WHERE tenant_id = '' AND id = 'gone'",
        "DELETE FROM sessionstore_messages WHERE tenant_id = '' AND session_id = 'old' AND position = 0",
        *(f"UPDATE sessionstore_messages SET body = '{body}' WHERE session_id = '{name}'" for name, body in bodies),
    )
