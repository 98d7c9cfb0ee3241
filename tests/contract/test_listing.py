"""Pages of sessions: their order, what they show, what filters them, and cursors."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError, Json, Page, Session, SessionRepository, SessionSummary, Transcript
from sessionstore.dialects.base import Dialect
from tests.contract._own import PAST, fill, ids_of
from tests.support.repositories import execute, set_columns, talk

if TYPE_CHECKING:
    from sessionstore.dialects.base import Bound, Call

MINUTE = timedelta(minutes=1)


def ids(page: Page[SessionSummary]) -> list[str]:
    return [row.id for row in page.rows]


async def pages(sessions: SessionRepository, **wanted: Any) -> list[list[str]]:
    """The ids of every page, to the end of the listing."""
    found, cursor = [], None
    while True:
        page = await sessions.list_sessions(cursor=cursor, **wanted)
        found.append(ids(page))
        cursor = page.cursor
        if cursor is None:
            return found


# --- what a row shows -----------------------------------------------------------------------------


async def test_a_summary_shows_what_its_session_has(sessions: SessionRepository) -> None:
    """O11: every field, message_count being the length."""
    await sessions.create("parent")
    await sessions.append("parent", *talk(5))
    await sessions.fork("parent", new_id="child")
    await sessions.trim("child", 3)
    await sessions.set_metadata("child", {"project_ids": "p-7", "other": 1})
    session = await sessions.update("child", user_id="ann", title="Títle", active_seed_id="seed")
    child = next(row for row in (await sessions.list_sessions()).rows if row.id == "child")
    assert child == SessionSummary(
        id="child",
        user_id="ann",
        title="Títle",
        parent_id="parent",
        message_count=3,
        active_seed_id="seed",
        project_id="p-7",
        created_at=session.created_at,
        updated_at=session.updated_at,
    )


async def test_a_summary_of_a_bare_session(sessions: SessionRepository) -> None:
    """O11: what is not set is None, and nothing is counted."""
    session = await sessions.create("bare")
    [row] = (await sessions.list_sessions()).rows
    assert row == SessionSummary("bare", "", None, None, 0, None, None, session.created_at, session.updated_at)


async def test_a_project_is_a_string_or_none(sessions: SessionRepository) -> None:
    """O11: any string, also one that only the exact decoder can read; of another type it is no project id."""
    others: list[Json] = [["p-1"], {"id": "p-1"}, 7, 1.5, True, None]
    texts: list[Json] = ["", "p\x00q", "p\ud800q", 'a"b']
    await sessions.create("s")
    for value in others + texts:
        await sessions.set_metadata("s", {"project_ids": value})
        [row] = (await sessions.list_sessions()).rows
        assert row.project_id == (value if isinstance(value, str) else None)


async def test_a_listing_reads_no_message(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """O11: nor any body; one statement a page, whatever is asked for."""
    await sessions.create("s", metadata={"project_ids": "p", "k": 1})
    await sessions.append("s", *talk(3))
    sent: list[str] = []
    bind = Dialect.bind

    def recorded(dialect: Dialect, call: Call) -> Bound:
        bound = bind(dialect, call)
        sent.append(bound.sql)
        return bound

    monkeypatch.setattr(Dialect, "bind", recorded)
    [row] = (await sessions.list_sessions()).rows
    assert (row.message_count, len(sent)) == (3, 1)
    await sessions.list_sessions(user_id="u", parent_id="p", metadata={"k": 1}, limit=1)
    assert len(sent) == 2
    assert not [sql for sql in sent if "sessionstore_messages" in sql]


async def test_a_damaged_row_fails_only_its_own_read(sessions: SessionRepository) -> None:
    """O13: a listing shows the session all the same, and the one beside it in full."""
    for name in ("broken", "fine"):
        await sessions.create(name, metadata={"project_ids": f"p-{name}"})
        await sessions.append(name, *talk(2))
    # Both databases take this text; marked as plain it is not what the decoder expects.
    where = "WHERE session_id = 'broken'"
    damaged = r'"\ud800"'
    await execute(sessions, f"UPDATE sessionstore_metadata SET value = '{damaged}', plain = true {where}")  # noqa: S608
    await execute(sessions, f"UPDATE sessionstore_messages SET body = '{damaged}', plain = true {where}")  # noqa: S608
    rows = {row.id: row for row in (await sessions.list_sessions()).rows}
    assert {name: row.message_count for name, row in rows.items()} == {"broken": 2, "fine": 2}
    assert rows["fine"].project_id == "p-fine"
    assert (await sessions.get("fine")).metadata == {"project_ids": "p-fine"}
    assert [message.body for message in await sessions.messages("fine")] == talk(2)


# --- order and pages ------------------------------------------------------------------------------


async def test_newest_first_and_ties_by_id(sessions: SessionRepository) -> None:
    """O12, F12: by updated_at descending, equal ones by id ascending and bytewise."""
    await fill(sessions, ["middle"], at=PAST + MINUTE)
    await fill(sessions, ["é", "b", "B", "a", "\U0001f600", "\uffff", "_", "a b"], at=PAST)
    await fill(sessions, ["oldest"], at=PAST - timedelta(microseconds=1))
    await sessions.create("newest")
    expected = ["newest", "middle", "B", "_", "a", "a b", "b", "é", "\uffff", "\U0001f600", "oldest"]
    assert ids(await sessions.list_sessions()) == expected
    assert await pages(sessions, limit=2) == [expected[at : at + 2] for at in range(0, 11, 2)]


async def test_a_save_can_move_a_session_down(sessions: SessionRepository) -> None:
    """O12: the order is by the update time that a save states."""
    for name in ("a", "b"):
        await sessions.create(name)
    await sessions.save(Transcript.of("b", updated_at=PAST))
    assert ids(await sessions.list_sessions()) == ["a", "b"]
    await sessions.append("b", {"role": "user"})
    assert ids(await sessions.list_sessions()) == ["b", "a"]


async def test_every_session_once(sessions: SessionRepository) -> None:
    """F12, O12: whatever the size of a page, across buckets and ties within them."""
    names = [f"s{at:02}" for at in range(30)]
    await fill(sessions, names[:20], step=timedelta(minutes=7))
    await fill(sessions, names[20:])
    for limit in (1, 2, 3, 7, 30, 1000):
        found = await pages(sessions, limit=limit)
        assert [name for page in found for name in page] == [*reversed(names[1:20]), names[0], *names[20:]]
        assert all(len(page) == limit for page in found[:-1])


async def test_the_last_page_has_no_cursor(sessions: SessionRepository) -> None:
    """F12: also where it is exactly full; an empty store has one empty page."""
    assert await sessions.list_sessions() == Page([], None)
    await fill(sessions, ["a", "b"])
    assert (await sessions.list_sessions(limit=2)).cursor is None
    first = await sessions.list_sessions(limit=1)
    assert first.cursor is not None
    assert (await sessions.list_sessions(limit=1, cursor=first.cursor)).cursor is None


async def test_a_page_has_fifty_by_default_and_a_thousand_at_most(sessions: SessionRepository) -> None:
    """F12: a limit of 0 is an empty page, a huge one is capped."""
    names = [f"s{at:04}" for at in range(1001)]
    await fill(sessions, names)
    assert ids(await sessions.list_sessions()) == names[:50]
    for limit in (1000, 1001, 10**9, 2**63 - 1):
        page = await sessions.list_sessions(limit=limit)
        assert ids(page) == names[:1000]
        assert ids(await sessions.list_sessions(limit=limit, cursor=page.cursor)) == names[1000:]
    assert (await sessions.list_sessions(limit=0)).rows == []


async def test_extreme_times_are_paged(sessions: SessionRepository) -> None:
    """F12: sessions of the first and the last year that a datetime knows."""
    first = PAST.min.replace(tzinfo=PAST.tzinfo) + timedelta(microseconds=1)
    last = PAST.max.replace(tzinfo=PAST.tzinfo) - timedelta(microseconds=1)
    for name, moment in {"z": first, "y": first, "a": last, "m": PAST}.items():
        await sessions.save(Transcript.of(name, created_at=first, updated_at=moment))
    assert await pages(sessions, limit=1) == [["a"], ["m"], ["y"], ["z"]]


async def test_a_listing_changes_nothing(sessions: SessionRepository) -> None:
    """H08: not even recency."""
    before = await sessions.create("s", metadata={"k": 1})
    await sessions.list_sessions(metadata={"k": 1})
    assert await sessions.get("s") == before


# --- filters --------------------------------------------------------------------------------------


async def test_by_user(sessions: SessionRepository) -> None:
    """O12: the sessions of a user, and with the empty user those of nobody."""
    await fill(sessions, ["a1", "a2", "a3"], user_id="ann", step=MINUTE)
    await fill(sessions, ["b1"], user_id="bob")
    await fill(sessions, ["n1"])
    assert await pages(sessions, user_id="ann", limit=2) == [["a3", "a2"], ["a1"]]
    assert await pages(sessions, user_id="bob") == [["b1"]]
    assert await pages(sessions, user_id="") == [["n1"]]
    assert await pages(sessions, user_id="An") == [[]]


async def test_by_parent(sessions: SessionRepository) -> None:
    """O12: the forks of a session, also once it is gone; not theirs."""
    await sessions.create("root")
    for child in ("c1", "c2"):
        await sessions.fork("root", new_id=child)
        await set_columns(sessions, child, updated_at=PAST)
    await sessions.fork("c1", new_id="grandchild")
    assert await pages(sessions, parent_id="root", limit=1) == [["c1"], ["c2"]]
    await sessions.delete("root")
    assert await pages(sessions, parent_id="root") == [["c1", "c2"]]
    assert await pages(sessions, parent_id="c1", user_id="ann") == [[]]


FILTERS: dict[str, Any] = {
    "integer": 1,
    "float": 1.0,
    "true": True,
    "text": "1",
    "empty": "",
    "null": None,
    "zero": 0.0,
    "minus zero": -0.0,
    "huge": 10**400,
    "big float": 1e16,
    "big integer": 10**16,
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "long": "x" * 500,
    "long, too": "x" * 499 + "y",
    "long number": 10**200 + 1,
    "long number, too": 10**200 + 2,
}


async def test_by_metadata_of_every_scalar(sessions: SessionRepository) -> None:
    """O12, X07: equal in type, value and sign: 1, 1.0, True and "1" are four values, and text is compared whole."""
    for name, value in FILTERS.items():
        await sessions.create(name, metadata={"k": value})
    await sessions.create("list", metadata={"k": [1]})
    await sessions.create("none")
    for name, value in FILTERS.items():
        assert await pages(sessions, metadata={"k": value}) == [[name]], name


async def test_conditions_do_not_change_what_is_shown(sessions: SessionRepository) -> None:
    """O11, O12: the project id is that of the session, however many conditions found it."""
    values = {f"k{at}": f"value {at}" for at in range(8)}
    await sessions.create("s", metadata={**values, "project_ids": "p"})
    for count in range(9):
        [row] = (await sessions.list_sessions(metadata=dict(list(values.items())[:count]))).rows
        assert (row.id, row.project_id) == ("s", "p"), count


async def test_by_several_conditions(sessions: SessionRepository) -> None:
    """O12: all of them hold at once, and pages go on."""
    for at in range(6):
        await sessions.create(f"s{at}", user_id="ann", metadata={"even": at % 2 == 0, "third": at % 3, "all": "x"})
        await set_columns(sessions, f"s{at}", updated_at=PAST)
    assert await pages(sessions, metadata={"even": True, "third": 0}) == [["s0"]]
    assert await pages(sessions, metadata={"even": True, "all": "x"}, limit=2) == [["s0", "s2"], ["s4"]]
    assert await pages(sessions, metadata={"even": True}, user_id="bob") == [[]]
    assert await pages(sessions, metadata={"even": True, "missing": None}) == [[]]
    assert len(ids(await sessions.list_sessions(metadata={}))) == 6


KEYS = ['a"b', "a.b", "ключ", 'a"."owner', "[0]", "a\nb", "$", "$.a", "a'b", "a\\b", "%", "_", "a b", "A", "a", "ﬁ"]


async def test_metadata_keys_are_literal(sessions: SessionRepository) -> None:
    """O12, F09: no path is built from a key; each finds its own session and no other (rows 75-78 of the catalogue)."""
    for at, key in enumerate(KEYS):
        await sessions.create(f"s{at:02}", metadata={key: "v"})
        assert (await sessions.get(f"s{at:02}")).metadata == {key: "v"}
    await sessions.create("nested", metadata={"a": {"b": "v", "owner": "v"}, "x": ["v"]})
    for at, key in enumerate(KEYS):
        assert await pages(sessions, metadata={key: "v"}) == [[f"s{at:02}"]], key


async def test_what_metadata_cannot_be_searched_for(sessions: SessionRepository) -> None:
    """O12: anything but scalars, and more conditions than are documented."""
    for value in ([], {}, [1], {"a": 1}, float("nan"), b"x", object()):
        with pytest.raises(InvalidArgumentError):
            await sessions.list_sessions(metadata={"k": value})  # type: ignore[dict-item]
    with pytest.raises(InvalidArgumentError, match="8"):
        await sessions.list_sessions(metadata={f"k{at}": 1 for at in range(9)})
    await sessions.list_sessions(metadata={f"k{at}": 1 for at in range(8)})


# --- cursors --------------------------------------------------------------------------------------


BAD_CURSORS: list[Any] = [
    *("", " ", "x", "%%%", "e30=", "WzFd", "[1, 2]", "\ud800", "é", "a" * 100_000),
    *(5, 1.5, b"x", [], object()),
]


async def test_a_bad_cursor_is_refused(sessions: SessionRepository) -> None:
    """F12: whatever is wrong with it, by the same clear error."""
    await fill(sessions, ["a"])
    for cursor in BAD_CURSORS:
        with pytest.raises(InvalidArgumentError, match="cursor"):
            await sessions.list_sessions(cursor=cursor)


async def test_a_forged_cursor_is_refused(sessions: SessionRepository) -> None:
    """F12: a moment that no session can have reaches no database."""
    await fill(sessions, ["a", "b"])
    cursor = (await sessions.list_sessions(limit=1)).cursor
    assert cursor is not None
    _, *parts = json.loads(base64.urlsafe_b64decode(cursor))
    for number in (1.5, True, None, "1", [1], 10**30, 2**63 - 1, 2**62, -(2**62), -(2**63)):
        forged = base64.urlsafe_b64encode(json.dumps([number, *parts]).encode()).decode()
        with pytest.raises(InvalidArgumentError, match="cursor"):
            await sessions.list_sessions(cursor=forged)


# Every example asks the same unchanged database.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.one_of(st.text(), st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode())))
async def test_any_text_as_a_cursor(sessions: SessionRepository, cursor: str) -> None:
    """F12: it is refused, or it is a cursor; nothing else happens."""
    try:
        page = await sessions.list_sessions(cursor=cursor)
    except InvalidArgumentError:
        return
    assert page.rows == []


async def test_a_cursor_is_plain_text_for_a_url(sessions: SessionRepository) -> None:
    """F12: an id of any script may be where a page ends."""
    await fill(sessions, ["ключ/é?&=+#", "日本 語", "\U0001f600"])
    page = await sessions.list_sessions(limit=1)
    assert page.cursor is not None
    assert page.cursor.isascii()
    assert not set(page.cursor) & set("+/?&# ")
    assert await pages(sessions, limit=1) == [["ключ/é?&=+#"], ["日本 語"], ["\U0001f600"]]


async def test_changes_between_pages(sessions: SessionRepository) -> None:
    """F12: what stays as it was is listed once; what is new, changed or gone does not disturb the rest."""
    names = [f"s{at}" for at in range(8)]
    await fill(sessions, names, step=MINUTE)
    first = await sessions.list_sessions(limit=3)
    assert ids(first) == ["s7", "s6", "s5"]
    await sessions.delete("s5")  # where the page ended
    await sessions.delete("s3")
    await sessions.append("s6", {"role": "user"})  # listed already: not again
    await sessions.append("s2", {"role": "user"})  # moves to the front: a page from the start would show it
    await sessions.create("new")
    rest = [name for page in await _following(sessions, first) for name in page]
    assert rest == ["s4", "s1", "s0"]
    assert ids(await sessions.list_sessions())[:3] == ["new", "s2", "s6"]


async def _following(sessions: SessionRepository, page: Page[SessionSummary]) -> list[list[str]]:
    found = []
    while page.cursor is not None:
        page = await sessions.list_sessions(limit=3, cursor=page.cursor)
        found.append(ids(page))
    return found


async def test_pages_while_others_write(sessions: SessionRepository) -> None:
    """F12: sessions that nobody touches are listed exactly once, whatever goes on around them."""
    still = [f"still{at:02}" for at in range(20)]
    await fill(sessions, still, step=MINUTE)
    await fill(sessions, [f"busy{at}" for at in range(5)], step=MINUTE)

    async def write(at: int) -> None:
        for turn in range(10):
            await sessions.append(f"busy{at}", {"role": "user"})
            await sessions.create(f"new{at}-{turn}")
            await sessions.delete(f"new{at}-{turn}")

    async def read() -> None:
        for _ in range(5):
            found = [name for page in await pages(sessions, limit=3) for name in page]
            assert [name for name in found if name.startswith("still")] == still[::-1]

    await asyncio.gather(read(), *(write(at) for at in range(5)))


async def test_a_cursor_outlives_its_repository(lasting_url: str) -> None:
    """F12, X08: it is text, and as good after a restart."""
    async with SessionRepository.connect(lasting_url) as sessions:
        await fill(sessions, ["a", "b", "c"])
        page = await sessions.list_sessions(limit=2)
    async with SessionRepository.connect(lasting_url) as sessions:
        assert ids(await sessions.list_sessions(cursor=page.cursor)) == ["c"]
        assert await ids_of(sessions) == ["a", "b", "c"]
        assert isinstance(await sessions.get("a"), Session)
