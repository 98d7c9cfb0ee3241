"""What one tenant can learn of another: nothing."""

from __future__ import annotations

import asyncio
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    DocumentRepository,
    Lineage,
    Message,
    NewMessage,
    PrunePolicy,
    SessionNotFoundError,
    SessionOwnerError,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
)
from tests.contract._own import dump, ids_of
from tests.contract._verbs import (
    ABOUT_THE_HANDLE,
    DOCUMENT_VERBS,
    MESSAGE,
    SESSION_VERBS,
    STORE_VERBS,
    public,
)
from tests.support.repositories import bodies, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable

THEIRS = "s"
"""The id of a session that the other tenant has; everything else about it is as likely to be met."""


def test_no_verb_is_missing() -> None:
    """P7: whoever adds a public verb adds it to the tables that these tests go through."""
    named = {name.partition(" ")[0] for name in (*SESSION_VERBS, *STORE_VERBS)}
    assert named == public(SessionRepository) - ABOUT_THE_HANDLE
    assert set(DOCUMENT_VERBS) == public(DocumentRepository) - ABOUT_THE_HANDLE


async def answer(call: Awaitable[Any]) -> Any:
    """What somebody who calls gets to see: a value without its times, or an error with its text and facts."""
    try:
        return plain(await call)
    except SessionStoreError as error:
        return type(error), str(error), repr(error), vars(error)


def plain(value: Any) -> Any:
    """A value as plain data, moments and what is made from them left out."""
    if isinstance(value, datetime):
        return "a moment"
    if isinstance(value, Message):
        return (value.position, value.role, value.body_json, value.message_id)
    if is_dataclass(value):
        return {
            entry.name: "a moment" if entry.name == "generation" else plain(getattr(value, entry.name))
            for entry in fields(value)
        }
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


async def furnish(sessions: SessionRepository) -> None:
    """Let a tenant have a session with everything, and forks of it."""
    await sessions.create(THEIRS, user_id="ann", title="theirs", metadata={"k": 1, "project_ids": "p"})
    await sessions.append(THEIRS, *talk(3), NewMessage(MESSAGE, message_id="m"))
    await sessions.trim(THEIRS, 3)
    await sessions.fork(THEIRS, new_id="fork")
    await sessions.claim("job", cooldown_seconds=3600)


@pytest.mark.parametrize("name", SESSION_VERBS)
async def test_a_foreign_id_answers_like_a_missing_one(sessions: SessionRepository, name: str) -> None:
    """P7, X01: by value, or by type, text and facts of the error; and nothing of the other tenant's changes."""
    verb = SESSION_VERBS[name]
    missing = await answer(verb(sessions.for_tenant("alone"), THEIRS))
    await furnish(sessions.for_tenant("theirs"))
    before = await dump(sessions)
    foreign = await answer(verb(sessions.for_tenant("ours"), THEIRS))
    assert foreign == missing
    after = await dump(sessions)
    for table, rows in before.items():
        assert [row for row in after[table] if row[0] == "theirs"] == [row for row in rows if row[0] == "theirs"]


@pytest.mark.parametrize("name", STORE_VERBS)
async def test_a_foreign_tenant_is_like_an_empty_store(sessions: SessionRepository, name: str) -> None:
    """P7, X01: nothing is listed, counted, claimed or deleted there."""
    verb = STORE_VERBS[name]
    alone = await answer(verb(sessions.for_tenant("alone")))
    await furnish(sessions.for_tenant("theirs"))
    before = await dump(sessions)
    assert await answer(verb(sessions.for_tenant("ours"))) == alone
    after = await dump(sessions)
    for table, rows in before.items():
        assert [row for row in after[table] if row[0] == "theirs"] == [row for row in rows if row[0] == "theirs"]


async def test_deleting_by_what_tenants_share(sessions: SessionRepository) -> None:
    """P7: user ids, ages and numbers select among the tenant's own sessions."""
    theirs, ours = sessions.for_tenant("theirs"), sessions.for_tenant("ours")
    await furnish(theirs)
    before = await dump(sessions)
    assert await ours.delete_user("ann") == 0
    assert (await ours.prune(PrunePolicy(max_sessions=1))).total == 0
    assert (await ours.prune(PrunePolicy(max_sessions=1), dry_run=True)).session_ids == ()
    assert await ours.delete_all() == 0
    assert (await ours.list_sessions(user_id="ann", metadata={"k": 1})).rows == []
    assert await dump(sessions) == before


async def test_a_cap_counts_one_tenant(sessions: SessionRepository) -> None:
    """P7, H03: creating over the cap evicts nobody else's."""
    settings = StoreSettings(session_cap=1)
    capped = SessionRepository(sessions._shared.engine, tenant="ours", settings=settings)
    await furnish(sessions.for_tenant("theirs"))
    await capped.create("a")
    await capped.create("b")
    assert await ids_of(capped) == ["b"]
    assert await ids_of(sessions.for_tenant("theirs")) == ["fork", THEIRS]


async def test_the_same_ids_everywhere(sessions: SessionRepository) -> None:
    """X01: each tenant has its own session, messages, message ids, metadata and forks of one name."""
    tenants = ["", "a", "b", "A", "é", "'; drop table x", "%"]
    for tenant in tenants:
        own = sessions.for_tenant(tenant)
        await own.create(THEIRS, metadata={"tenant": tenant})
        assert await own.append(THEIRS, NewMessage({"role": "user", "of": tenant}, message_id="m")) == [0]
        await own.fork(THEIRS, new_id="child")
    await sessions.for_tenant("a").delete(THEIRS)
    await sessions.for_tenant("b").truncate(THEIRS, 0)
    for tenant in tenants:
        own = sessions.for_tenant(tenant)
        assert bodies(await own.messages("child")) == [{"role": "user", "of": tenant}]
        assert (await own.get("child")).metadata == {"tenant": tenant}
        assert (await own.lineage("child")).parent_id == (None if tenant == "a" else THEIRS)
        found = await own.find(THEIRS)
        if found is not None:
            assert await own.lineage(THEIRS) == Lineage(None, ("child",), THEIRS)
        assert (found.length if found else None) == {"a": None, "b": 0}.get(tenant, 1)


async def test_all_tenants_at_once(sessions: SessionRepository) -> None:
    """X01: calls of several tenants that run together do not mix."""

    async def talks(tenant: str) -> None:
        own = sessions.for_tenant(tenant)
        for turn in range(5):
            await own.append(THEIRS, {"role": "user", "of": tenant, "turn": turn}, create=True)

    await asyncio.gather(*(talks(f"t{at}") for at in range(10)))
    for at in range(10):
        expected = [{"role": "user", "of": f"t{at}", "turn": turn} for turn in range(5)]
        assert bodies(await sessions.for_tenant(f"t{at}").messages(THEIRS)) == expected


async def test_another_users_session_is_like_a_missing_one(sessions: SessionRepository) -> None:
    """O09, P7: for whoever states a user when reading; `open` refuses it instead of handing it over."""
    await sessions.create(THEIRS, user_id="ann")
    asking = await answer(sessions.get(THEIRS, user_id="bob"))
    assert await sessions.find(THEIRS, user_id="bob") is None
    with pytest.raises(SessionOwnerError):
        await sessions.open(THEIRS, user_id="bob")
    await sessions.delete(THEIRS)
    assert asking == await answer(sessions.get(THEIRS, user_id="bob"))
    assert asking[0] is SessionNotFoundError


@pytest.mark.parametrize("name", DOCUMENT_VERBS)
async def test_documents_of_others(database_url: str, name: str) -> None:
    """P7, X01: a document of another tenant answers like a missing one."""
    async with DocumentRepository.connect(database_url) as documents:
        theirs = documents.for_tenant("theirs")
        missing = await answer(DOCUMENT_VERBS[name](documents.for_tenant("alone")))
        await theirs.save_json("c", "n", value="theirs")
        await theirs.save_markdown("c", "n", text="theirs")
        assert await answer(DOCUMENT_VERBS[name](documents.for_tenant("ours"))) == missing
        assert await theirs.find_json("c", "n") == await theirs.find_markdown("c", "n") == "theirs"
        assert await theirs.list_category("c") == ["n", "n"]
