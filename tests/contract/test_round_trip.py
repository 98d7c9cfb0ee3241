"""What is accepted comes back equal, and both databases accept the same: random inputs."""

from __future__ import annotations

import itertools
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    Json,
    NewMessage,
    SessionRepository,
    SessionStoreError,
    Transcript,
)
from tests.support import templates
from tests.support.repositories import rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

TENANTS = itertools.count()
ONE_DATABASE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""Every example has a tenant of its own."""

PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
TEXT = ANY_TEXT.filter(lambda text: not PAIR.search(text))
COLUMN_TEXT = TEXT.filter(lambda text: not UNSTORABLE.search(text))
INTEGERS = st.integers() | st.integers(1, 999).map(lambda digits: 10**digits - 1) | st.integers(-(2**65), 2**65)
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([-0.0, 1.0, 1e16, 1e22, 5e-324])
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12
)
ROLES = COLUMN_TEXT.filter(bool)
BODIES = st.builds(
    lambda before, role, after: {**before, "role": role, **{key: after[key] for key in after if key != "role"}},
    st.dictionaries(TEXT, JSON, max_size=3),
    ROLES,
    st.dictionaries(TEXT, JSON, max_size=3),
)
VIEW = (
    "SELECT role, text, plain FROM sessionstore_message_texts WHERE tenant_id = :tenant ORDER BY session_id, position"
)


def spelled(value: object) -> str:
    """A value with the types, the order and the signs of all its parts."""
    return repr(value)


def own(sessions: SessionRepository) -> SessionRepository:
    """A tenant that nobody has used before."""
    return sessions.for_tenant(f"t{next(TENANTS)}")


async def everywhere(sessions: SessionRepository, session_id: str, roles: set[str]) -> list[list[Any]]:
    """The messages of a session, read in every way."""
    return [
        await sessions.messages(session_id),
        await sessions.messages(session_id, last=100),
        await sessions.messages(session_id, first=100, roles=roles),
        await sessions.messages(session_id, last=100, align="turn"),
        [message async for message in sessions.iter_messages(session_id, batch_size=2)],
        list((await sessions.snapshot(session_id)).messages),
    ]


@ONE_DATABASE
@given(bodies=st.lists(BODIES, min_size=1, max_size=4))
@example(bodies=[{"role": "user", "content": "a\x00b\ud800"}, {"role": "user", "n": [1, 1.0, True, -0.0, 10**400]}])
async def test_bodies(sessions: SessionRepository, bodies: list[dict[str, Any]]) -> None:
    """P8, X07: in type, value, key order and sign, however they are stored and read; the DBA's view stands it."""
    mine = own(sessions)
    await mine.append("s", *bodies, create=True)
    await mine.fork("s", new_id="fork")
    await mine.save((await mine.snapshot("s")).replace(title="x"))
    await mine.save(Transcript.of("saved", bodies))
    await mine.create("replaced")
    await mine.replace_messages("replaced", bodies)
    for name in ("s", "fork", "saved", "replaced"):
        for found in await everywhere(mine, name, {body["role"] for body in bodies}):
            assert [spelled(message.body) for message in found] == [spelled(body) for body in bodies]
            assert [message.role for message in found] == [body["role"] for body in bodies]
        assert spelled(json.loads(await mine.messages_json(name))) == spelled(bodies)
    popped = await mine.pop("s")
    assert popped is not None
    assert spelled(popped.body) == spelled(bodies[-1])
    for _, text, plain in await rows(mine, VIEW, tenant=mine.tenant):
        assert plain or text is None


@ONE_DATABASE
@given(values=st.dictionaries(COLUMN_TEXT.filter(str.strip), JSON, max_size=4))
async def test_metadata(sessions: SessionRepository, values: dict[str, Json]) -> None:
    """P8, F09: keys and values, through every verb that carries them, and found by their scalars."""
    mine = own(sessions)
    created = await mine.create("s", metadata=values)
    await mine.fork("s", new_id="fork")
    await mine.create("set")
    given_back = [created, await mine.get("fork"), await mine.set_metadata("set", values)]
    given_back += [await mine.open("s", metadata={"other": 1}), (await mine.snapshot("set")).session]
    given_back.append(await mine.save(Transcript.of("saved", metadata=values)))
    in_order = {key: values[key] for key in sorted(values)}
    assert [spelled(session.metadata) for session in given_back] == [spelled(in_order)] * len(given_back)
    for key, value in values.items():
        if not isinstance(value, (dict, list)):
            page = await mine.list_sessions(metadata={key: value})
            assert {row.id for row in page.rows} == {"s", "fork", "set", "saved"}
    assert (await mine.set_metadata("set", {}, remove=list(values))).metadata == {}


@ONE_DATABASE
@given(first=SCALARS, second=SCALARS)
@example(first=1, second=1.0)
@example(first=1, second=True)
@example(first=0.0, second=-0.0)
@example(first="x" * 200 + "a", second="x" * 200 + "b")
async def test_metadata_is_found_by_equal_values_only(sessions: SessionRepository, first: Any, second: Any) -> None:
    """P8, O12: two values are told apart wherever they are two."""
    mine = own(sessions)
    await mine.create("first", metadata={"k": first})
    await mine.create("second", metadata={"k": second})
    found = {row.id for row in (await mine.list_sessions(metadata={"k": first})).rows}
    assert found == ({"first", "second"} if spelled(first) == spelled(second) else {"first"})


@ONE_DATABASE
@given(value=JSON, text=COLUMN_TEXT)
async def test_documents(sessions: SessionRepository, value: Json, text: str) -> None:
    """P8, O22: JSON and markdown."""
    documents = DocumentRepository(sessions._shared.engine, tenant=f"t{next(TENANTS)}")
    await documents.save_json("c", "n", value=value)
    await documents.save_markdown("c", "n", text=text)
    assert spelled(await documents.find_json("c", "n")) == spelled(value)
    assert await documents.find_markdown("c", "n") == text


COLUMNS = ("model", "system_message", "title", "summary", "active_seed_id", "active_persona_id")


@ONE_DATABASE
@given(text=TEXT)
@example(text="")
@example(text="a\x00b")
@example(text="a\ud800b")
async def test_text_columns(sessions: SessionRepository, text: str) -> None:
    """P8, F08: any text comes back, or U+0000 and lone surrogates are refused in every column of text."""
    mine = own(sessions)
    await mine.create("s")
    for name in COLUMNS:
        changes: dict[str, Any] = {name: text}
        if UNSTORABLE.search(text):
            with pytest.raises(InvalidArgumentError, match=name):
                await mine.update("s", **changes)
            with pytest.raises(InvalidArgumentError, match=name):
                await mine.save(Transcript.of("t", **changes))
        else:
            assert getattr(await mine.update("s", **changes), name) == text
            assert getattr(await mine.save(Transcript.of("t", **changes)), name) == text
    assert (await mine.get("s")).version == (0 if UNSTORABLE.search(text) else len(COLUMNS))


@ONE_DATABASE
@given(moment=st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(fold=0)))
@example(moment=datetime.min.replace(tzinfo=UTC))
@example(moment=datetime.max.replace(tzinfo=UTC))
async def test_times(sessions: SessionRepository, moment: datetime) -> None:
    """P8, O05: to the microsecond, aware and in UTC."""
    mine = own(sessions)
    message = NewMessage({"role": "user"}, created_at=moment)
    await mine.save(Transcript.of("s", [message], created_at=moment, updated_at=moment))
    transcript = await mine.snapshot("s")
    [row] = (await mine.list_sessions()).rows
    found = [transcript.session.created_at, transcript.session.updated_at, row.created_at, row.updated_at]
    found += [stored.created_at for stored in await mine.messages("s")]
    assert [spelled(each) for each in found] == [spelled(moment)] * 5
    await mine.delete("s")  # plain SQL gives the very last moment without its time zone, and stumbles over it


# --- the same verdict on both ---------------------------------------------------------------------


@pytest_asyncio.fixture
async def both(sqlite_file: Path, shared_postgres: str) -> AsyncIterator[tuple[SessionRepository, ...]]:
    """One repository on each database."""
    async with (
        SessionRepository.connect(templates.sqlite_url(sqlite_file)) as first,
        SessionRepository.connect(shared_postgres) as second,
    ):
        yield first, second


async def verdicts(
    both: Iterable[SessionRepository], call: Callable[[SessionRepository], Awaitable[Any]]
) -> tuple[Any, bool]:
    """What both answer, which must be the same, and whether it is no error."""
    tenant = f"t{next(TENANTS)}"
    found: list[tuple[bool, Any]] = []
    for sessions in both:
        try:
            found.append((True, spelled(await call(sessions.for_tenant(tenant)))))
        except SessionStoreError as error:
            found.append((False, (type(error), str(error))))
    assert found[0] == found[1]
    return found[0][1], found[0][0]


@ONE_DATABASE
@given(names=st.lists(ANY_TEXT | st.text("aB1 \u00e9_%", max_size=3), min_size=1, max_size=4))
async def test_ids(both: tuple[SessionRepository, ...], names: list[str]) -> None:
    """P8, O07, X07: any text is an id on both or on neither, and the order of ids is that of their bytes."""

    async def make(sessions: SessionRepository) -> tuple[list[str], list[str]]:
        await sessions.create("root")
        made = []
        for name in names:
            try:
                made.append((await sessions.fork("root", new_id=name)).id)
            except InvalidArgumentError as error:
                made.append(str(error))
            except SessionStoreError as error:
                made.append(type(error).__name__)
        children = list((await sessions.lineage("root")).child_ids)
        assert children == sorted(children, key=str.encode)
        return made, children

    assert (await verdicts(both, make))[1]


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS
    | ANY_TEXT
    | st.floats()
    | st.binary(max_size=3)
    | st.datetimes()
    | st.decimals()
    | st.uuids()
    | st.just(10**1000)
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.sets(SCALARS, max_size=2)
        | st.dictionaries(ANY_TEXT | st.integers() | st.none(), inner, max_size=3)
    ),
    max_leaves=6,
)


@ONE_DATABASE
@given(value=ANYTHING)
async def test_anything(both: tuple[SessionRepository, ...], value: Any) -> None:
    """P8, X07: in a body, in metadata and as every argument: the same answer or the same refusal, nothing else."""
    calls: list[Callable[[SessionRepository], Awaitable[Any]]] = [
        lambda sessions: bodies_after(sessions, {"role": "user", "content": value}),
        lambda sessions: bodies_after(sessions, value),
        lambda sessions: bodies_after(sessions, NewMessage({"x": 1}, role=value)),
        lambda sessions: bodies_after(sessions, NewMessage({"role": "user"}, message_id=value)),
        lambda sessions: metadata_after(sessions, {"k": value}),
        lambda sessions: metadata_after(sessions, value),
        lambda sessions: sessions.exists(value),
        lambda sessions: ids_after(sessions, value),
        lambda sessions: sessions.messages(value),
        lambda sessions: sessions.list_sessions(metadata={"k": value}),
        lambda sessions: sessions.list_sessions(cursor=value),
        lambda sessions: sessions.list_sessions(limit=value),
        lambda sessions: sessions.trim("s", value),
    ]
    for call in calls:
        await verdicts(both, call)


async def bodies_after(sessions: SessionRepository, message: Any) -> list[Any]:
    await sessions.append("s", message, create=True)
    return [(found.role, found.body, found.message_id) for found in await sessions.messages("s")]


async def metadata_after(sessions: SessionRepository, values: Any) -> Any:
    return (await sessions.create("s", metadata=values)).metadata


async def ids_after(sessions: SessionRepository, user_id: Any) -> list[str]:
    await sessions.create("s", user_id=user_id)
    return [row.user_id for row in (await sessions.list_sessions(user_id=user_id)).rows]
