"""Every verb, with something for it to do."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from sessionstore import DocumentRepository, Message, SessionRepository, SessionStoreError, StoreSettings, Transcript
from tests.concurrency import verbs as rewriting
from tests.concurrency.verbs import ID, OTHER, body
from tests.contract import _verbs as public
from tests.support.faults_counts import FULL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Run = Callable[[SessionRepository], Awaitable[Any]]

_TWICE: Final = {
    *("reset", "delete", "trim", "truncate", "pop", "fork", "append", "update", "append creating", "append expecting"),
    *("compact", "replace_messages", "open", "set_metadata", "update expecting", "save", "append_and_prune"),
}
"""Verbs of the contract's list that the list of rewriting verbs has as well, with more for them to do."""


_BATCHES: Final = {"prune by age", "prune by number", "delete user", "delete all", "open"}

READS: Final = {
    *("get", "get as a user", "find", "find as a user", "exists", "length", "lineage", "snapshot", "list_sessions"),
    *("messages", "messages of a turn", "messages of a role", "messages_json", "iter_messages", "all: list_sessions"),
    *("documents: find_markdown", "documents: find_json", "documents: list_category"),
}
"""The cases that only read."""


@dataclass(frozen=True)
class Case:
    """A verb and how it is called.

    Attributes:
        in_two: the cap is kept in a transaction of its own, after the one of the call.
        in_batches: it is several transactions; what it says of its outcome it says of the last one. `open` of a
            session that exists is a touch and a read.
    """

    name: str
    run: Run
    settings: StoreSettings = field(default_factory=StoreSettings)
    in_two: bool = False
    in_batches: bool = False

    def __str__(self) -> str:
        return self.name

    async def answer(self, repository: SessionRepository) -> Any:
        """What the caller gets, as plain data; errors are raised."""
        settings = replace(self.settings, row_level_security=repository.settings.row_level_security)
        handle = SessionRepository(repository._shared.engine, tenant=repository.tenant, settings=settings)
        try:
            return plain(await self.run(handle))
        finally:
            while handle._shared.tasks:
                await asyncio.wait(handle._shared.tasks)


def _on(session_id: str, verb: Any) -> Run:
    return lambda repository: verb(repository, session_id)


def _documents(verb: Any) -> Run:
    return lambda repository: verb(_beside(repository))


def _beside(repository: SessionRepository) -> DocumentRepository:
    """The documents of the same tenant."""
    return DocumentRepository(repository._shared.engine, tenant=repository.tenant, settings=repository.settings)


async def prepare(repository: SessionRepository) -> None:
    """Make two sessions and two documents."""
    await rewriting.prepare(repository)
    documents = _beside(repository)
    await documents.save_markdown("c", "n", text="before")
    await documents.save_json("c", "n", value="before")


async def _again(sessions: SessionRepository) -> list[int]:
    """Two appends of the same ids: the second takes the other way."""
    first = await rewriting._with_ids(500, 501)(sessions)
    second = await rewriting._with_ids(500, 501)(sessions)
    assert first == second
    return list(second)


_CAP: Final = StoreSettings(session_cap=2)

_RARE: Final = {
    *("compact expecting", "replace expecting", "save expecting", "update expecting", "set_metadata expecting"),
    *("trim to nothing", "trim by turn", "get as a user", "find as a user", "messages of a role", "prune by number"),
    *("replace_messages expecting",),
}
"""Cases that take the way of another one; left to the long run."""

ALL: Final = (
    *(
        Case(verb.name, verb.run, verb.settings, in_two=verb.name == "evict", in_batches=verb.name in _BATCHES)
        for verb in rewriting.VERBS
    ),
    *(Case(name, _on(ID, verb)) for name, verb in public.SESSION_VERBS.items() if name not in _TWICE),
    Case("create another", lambda sessions: sessions.create("new", title="t")),
    Case("create with metadata", lambda sessions: sessions.create("new", metadata={"k": 1, "l": [2]})),
    Case("open another", lambda sessions: sessions.open("new", user_id="ann")),
    Case("append to another", lambda sessions: sessions.append("new", body(1), body(2), create=True)),
    Case("append over the cap", lambda s: s.append("new", body(1), create=True), _CAP, in_two=True),
    Case("append with ids again", _again, in_batches=True),
    Case("fork over the cap", lambda sessions: sessions.fork(OTHER, new_id="new"), _CAP, in_two=True),
    Case("save another", lambda sessions: sessions.save(Transcript.of("new", [body(1)], metadata={"k": 1}))),
    Case("append_and_prune", lambda s: public.SESSION_VERBS["append_and_prune"](s, OTHER), in_batches=True),
    *(Case(f"all: {name}", verb, in_batches=True) for name, verb in public.STORE_VERBS.items() if name != "delete_all"),
    *(Case(f"documents: {name}", _documents(verb)) for name, verb in public.DOCUMENT_VERBS.items()),
)
"""Each verb at least once."""

CASES: Final = tuple(case for case in ALL if FULL or case.name not in _RARE)
"""The cases of this run."""


def plain(value: Any) -> Any:
    """A value as plain data, moments and what is made from them left out."""
    if isinstance(value, datetime):
        return "a moment"
    if isinstance(value, Message):
        return (value.position, value.role, value.body_json, value.message_id)
    if isinstance(value, SessionStoreError):
        return (type(value), str(value))
    if is_dataclass(value):
        named = {entry.name: getattr(value, entry.name) for entry in fields(value)}
        return {name: "a moment" if name in {"generation", "cursor"} else plain(each) for name, each in named.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value
