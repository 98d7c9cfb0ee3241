"""A session of another tenant answers like one that is missing, in every way to use a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import Lineage, NewMessage, SessionNotFoundError, SessionRepository, SessionStoreError
from sessionstore.schema import TENANT_TABLES
from tests.contract._own import STORED
from tests.contract._verbs import MESSAGE, SESSION_VERBS
from tests.support.repositories import rows, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable

THEIRS = "their-session"
NOWHERE = "nobodys-one"
"""Ids of one length, so that texts differ in nothing else."""

OUTSIDE = {"append_and_prune", "iter_messages"}
"""Verbs that do not work inside a transaction of the caller."""


async def _furnish(sessions: SessionRepository) -> None:
    await sessions.create(THEIRS, user_id="ann", title="theirs", metadata={"k": 1})
    await sessions.append(THEIRS, *talk(3), NewMessage(MESSAGE, message_id="m"))
    await sessions.fork(THEIRS, new_id="their-fork")


async def _rows_of(sessions: SessionRepository, tenant: str) -> list[tuple[Any, ...]]:
    """All that a tenant has, of every table."""
    found: list[tuple[Any, ...]] = []
    for table, columns in STORED.items():
        if table not in TENANT_TABLES:
            continue
        own = await rows(sessions, f"SELECT {columns} FROM {table} WHERE tenant_id = :tenant", tenant=tenant)  # noqa: S608
        found += sorted(own, key=repr)
    return found


async def _error(call: Awaitable[Any], session_id: str) -> Any:
    """The error of a call: its type and all its texts, with the id taken out; None if there is none."""
    try:
        await call
    except SessionStoreError as error:
        facts = {name: str(value) for name, value in vars(error).items()}
        return [type(error), *(text.replace(session_id, "?") for text in (str(error), repr(error), str(facts)))]
    return None


async def test_every_verb_in_every_way(every_way: SessionRepository) -> None:
    """P7, X01: the same error in type, text and facts, or none; and nothing of the other tenant's has changed."""
    theirs = every_way.for_tenant("theirs")
    await _furnish(theirs)
    before = await _rows_of(every_way, "theirs")
    refused = 0
    for at, (name, verb) in enumerate(SESSION_VERBS.items()):
        if every_way._joined is not None and name in OUTSIDE:
            continue
        foreign = await _error(verb(every_way.for_tenant(f"ours-{at}"), THEIRS), THEIRS)
        missing = await _error(verb(every_way.for_tenant(f"alone-{at}"), NOWHERE), NOWHERE)
        assert foreign == missing, name
        refused += foreign is not None
    assert refused > 20
    assert await _rows_of(every_way, "theirs") == before


async def test_their_ids_are_free(every_way: SessionRepository) -> None:
    """P7, X01: an id that another tenant uses can be created, forked onto, saved and given to messages."""
    theirs, ours = every_way.for_tenant("theirs"), every_way.for_tenant("ours")
    await _furnish(theirs)
    before = await _rows_of(every_way, "theirs")
    assert (await ours.create("own")).id == "own"
    assert (await ours.fork("own", new_id=THEIRS)).parent_id == "own"
    assert (await ours.fork("own", new_id="their-fork", replace=True)).length == 0
    assert await ours.append(THEIRS, NewMessage({"role": "user", "of": "ours"}, message_id="m")) == [0]
    assert await ours.lineage(THEIRS) == Lineage("own", (), "own")
    assert await ours.delete("own")
    assert await ours.delete(THEIRS)
    assert await _rows_of(every_way, "theirs") == before


async def test_a_parent_of_that_name_elsewhere(every_way: SessionRepository) -> None:
    """P7: a fork whose parent is gone finds none of that id at another tenant's, up or down."""
    theirs, ours = every_way.for_tenant("theirs"), every_way.for_tenant("ours")
    await ours.create(THEIRS)
    await ours.fork(THEIRS, new_id="own-fork")
    await ours.delete(THEIRS)
    alone = await ours.lineage("own-fork")
    await _furnish(theirs)
    assert await ours.lineage("own-fork") == alone
    assert (await theirs.lineage(THEIRS)).child_ids == ("their-fork",)
    with pytest.raises(SessionNotFoundError):
        await ours.lineage(THEIRS)


async def test_cursors_carry_no_tenant(every_way: SessionRepository) -> None:
    """P7: the cursor of another tenant's page shows a place in time and no session of theirs."""
    theirs, ours = every_way.for_tenant("theirs"), every_way.for_tenant("ours")
    await ours.create("own")
    await _furnish(theirs)
    cursor = (await theirs.list_sessions(limit=1)).cursor
    assert cursor is not None
    assert {row.id for row in (await ours.list_sessions(cursor=cursor)).rows} <= {"own"}
    assert (await ours.list_sessions(parent_id=THEIRS)).rows == []
    assert (await ours.list_sessions(metadata={"k": 1})).rows == []
    assert (await ours.list_sessions(user_id="ann")).rows == []


async def test_tenants_that_look_alike(every_way: SessionRepository) -> None:
    """P7: tenants are compared bytewise: not folded, trimmed, or taken as patterns."""
    names = ["", "t", "T", "t%", "t_", "é", "e\u0301", "t'--", "ß", "ss"]
    for name in names:
        await every_way.for_tenant(name).create(THEIRS, title=name)
    for name in names:
        own = every_way.for_tenant(name)
        assert (await own.get(THEIRS)).title == name
        assert len((await own.list_sessions()).rows) == 1
    for name in names[1:]:
        assert await every_way.for_tenant(name).delete(THEIRS)
    assert await every_way.for_tenant("").exists(THEIRS)
