"""Every public verb, called on one id; tests that must leave none out begin here."""

from __future__ import annotations

import contextlib
import inspect
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sessionstore import DocumentRepository, PrunePolicy, PruneThrottle, SessionRepository, Transcript
from tests.contract._own import PAST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGE: Final = {"role": "user", "content": "x"}
KEEP_ALL: Final = PrunePolicy(max_age=timedelta(days=365_000), max_sessions=1000)
ALWAYS: Final = PruneThrottle(0)


async def all_of(sessions: SessionRepository, session_id: Any) -> list[Any]:
    """What `iter_messages` gives."""
    return [message async for message in sessions.iter_messages(session_id)]


async def watched(sessions: SessionRepository, session_id: Any) -> Any:
    """The first change that `watch` gives."""
    changes: Any = sessions.watch(session_id)
    async with contextlib.aclosing(changes):
        return await anext(changes)


SESSION_VERBS: Final[dict[str, Callable[[SessionRepository, Any], Awaitable[Any]]]] = {
    "create": lambda sessions, one: sessions.create(one),
    "open": lambda sessions, one: sessions.open(one),
    "get": lambda sessions, one: sessions.get(one),
    "get as a user": lambda sessions, one: sessions.get(one, user_id="ann"),
    "find": lambda sessions, one: sessions.find(one),
    "find as a user": lambda sessions, one: sessions.find(one, user_id="ann"),
    "exists": lambda sessions, one: sessions.exists(one),
    "length": lambda sessions, one: sessions.length(one),
    "update": lambda sessions, one: sessions.update(one, title="t"),
    "update expecting": lambda sessions, one: sessions.update(one, title="t", expected_version=0),
    "set_metadata": lambda sessions, one: sessions.set_metadata(one, {"k": 1}),
    "set_metadata expecting": lambda sessions, one: sessions.set_metadata(one, {"k": 1}, expected_version=0),
    "reset": lambda sessions, one: sessions.reset(one),
    "delete": lambda sessions, one: sessions.delete(one),
    "append": lambda sessions, one: sessions.append(one, MESSAGE),
    "append nothing": lambda sessions, one: sessions.append(one),
    "append expecting": lambda sessions, one: sessions.append(one, MESSAGE, expected_length=0),
    "append creating": lambda sessions, one: sessions.append(one, MESSAGE, create=True),
    "append_and_prune": lambda sessions, one: sessions.append_and_prune(one, MESSAGE, policy=KEEP_ALL, throttle=ALWAYS),
    "messages": lambda sessions, one: sessions.messages(one),
    "messages of a turn": lambda sessions, one: sessions.messages(one, last=1, align="turn"),
    "messages of a role": lambda sessions, one: sessions.messages(one, last=1, roles=["user"]),
    "messages_json": lambda sessions, one: sessions.messages_json(one),
    "iter_messages": all_of,
    "replace_messages": lambda sessions, one: sessions.replace_messages(one, [MESSAGE]),
    "replace_messages expecting": lambda sessions, one: sessions.replace_messages(one, [], expected_version=0),
    "compact": lambda sessions, one: sessions.compact(one, MESSAGE, keep_last=0),
    "trim": lambda sessions, one: sessions.trim(one, 0),
    "trim by turn": lambda sessions, one: sessions.trim(one, 1, align="turn"),
    "truncate": lambda sessions, one: sessions.truncate(one, 0),
    "pop": lambda sessions, one: sessions.pop(one),
    "fork": lambda sessions, one: sessions.fork(one, new_id="child"),
    "fork_at": lambda sessions, one: sessions.fork_at(one, 1, new_id="child"),
    "lineage": lambda sessions, one: sessions.lineage(one),
    "snapshot": lambda sessions, one: sessions.snapshot(one),
    "save": lambda sessions, one: sessions.save(Transcript.of(one, [MESSAGE], created_at=PAST, updated_at=PAST)),
    "save expecting": lambda sessions, one: sessions.save(Transcript.of(one), expected_version=0),
    "list_sessions": lambda sessions, one: sessions.list_sessions(parent_id=one),
    "record_event": lambda sessions, one: sessions.record_event(one, "noted", payload={"k": 1}),
    "events": lambda sessions, one: sessions.events(one),
    "watch": watched,
}
"""Verbs that take the id of a session."""

STORE_VERBS: Final[dict[str, Callable[[SessionRepository], Awaitable[Any]]]] = {
    "list_sessions": lambda sessions: sessions.list_sessions(),
    "prune": lambda sessions: sessions.prune(KEEP_ALL),
    "delete_user": lambda sessions: sessions.delete_user("nobody"),
    "delete_all": lambda sessions: sessions.delete_all(),
    "claim": lambda sessions: sessions.claim("job", cooldown_seconds=3600),
}
"""Verbs on all sessions of a tenant."""

DOCUMENT_VERBS: Final[dict[str, Callable[[DocumentRepository], Awaitable[Any]]]] = {
    "save_markdown": lambda documents: documents.save_markdown("c", "n", text="x"),
    "find_markdown": lambda documents: documents.find_markdown("c", "n"),
    "save_json": lambda documents: documents.save_json("c", "n", value=1),
    "find_json": lambda documents: documents.find_json("c", "n"),
    "list_category": lambda documents: documents.list_category("c"),
    "delete": lambda documents: documents.delete("c", "n"),
}

ABOUT_THE_PROCESS: Final = {"subscribe", "subscribers", "subscriber_count"}
ABOUT_THE_HANDLE: Final = {"connect", "aclose", "tenant", "settings", "for_tenant", "within"} | ABOUT_THE_PROCESS


def public(kind: type) -> set[str]:
    """The public attributes of a class."""
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}
