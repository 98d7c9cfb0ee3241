"""The small document store: markdown and JSON by category and name."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncSession

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    InvalidMessageError,
    Json,
    SessionRepository,
    SessionStoreError,
    StoreSettings,
)
from tests.support.repositories import callers_engine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine


@pytest_asyncio.fixture
async def documents(database_url: str) -> AsyncIterator[DocumentRepository]:
    async with DocumentRepository.connect(database_url) as opened:
        yield opened


# --- round trip -----------------------------------------------------------------------------------

TEXTS = [
    "",
    "plain",
    "# Títle\r\n\n- a\tb\n",
    "  blanks kept \n",
    '"quoted" \\u0000 \\',
    "日本語 \U0001f600 é é",
    "\uffff",
]


async def test_markdown_comes_back(documents: DocumentRepository) -> None:
    """O22: as it was put in, to the last blank."""
    for text in TEXTS:
        await documents.save_markdown("notes", "n", text=text)
        assert await documents.find_markdown("notes", "n") == text


VALUES: list[Json] = [
    {},
    [],
    "",
    "text",
    0,
    -1,
    True,
    False,
    1.0,
    1e16,
    {"z": 1, "a": {"m": [1, 1.0, True, None, ""]}, "": "empty key"},
    {"nul": "a\x00b", "c\x00d": 1},
    {"surrogate": "a\ud800b", "\udfff": 1},
    [2**63, 10**400, -(2**64)],
]


def spelled(value: Json) -> str:
    """A value with the types, order and signs of all its parts."""
    return repr(value)


async def test_json_comes_back(documents: DocumentRepository) -> None:
    """O22, X07: equal in type, value, key order and sign."""
    for value in [*VALUES, -0.0]:
        await documents.save_json("state", "s", value=value)
        assert spelled(await documents.find_json("state", "s")) == spelled(value)


async def test_what_is_missing_is_none(documents: DocumentRepository) -> None:
    """O22: by category, by name and by format."""
    await documents.save_markdown("c", "text", text="x")
    await documents.save_json("c", "value", value={"x": 1})
    assert await documents.find_json("c", "text") is None
    assert await documents.find_markdown("c", "value") is None
    assert await documents.find_json("c", "nothing") is None
    assert await documents.find_markdown("d", "text") is None
    assert await documents.find_markdown("c", "Text") is None


async def test_both_formats_of_a_name(documents: DocumentRepository) -> None:
    """O22: they coexist, and each is overwritten alone."""
    await documents.save_json("c", "n", value={"v": 1})
    await documents.save_markdown("c", "n", text="one")
    await documents.save_json("c", "n", value="two")
    assert await documents.find_markdown("c", "n") == "one"
    assert await documents.find_json("c", "n") == "two"
    await documents.save_markdown("c", "n", text="three")
    assert await documents.find_markdown("c", "n") == "three"
    assert await documents.find_json("c", "n") == "two"


async def test_null_is_a_value(documents: DocumentRepository) -> None:
    """O22, O23: a document that says null is there, though it reads like a missing one."""
    await documents.save_json("c", "n", value=None)
    assert await documents.find_json("c", "n") is None
    assert await documents.list_category("c") == ["n"]
    assert await documents.delete("c", "n") is True


async def test_after_a_restart(lasting_url: str) -> None:
    """O22, X08: as it was put in."""
    async with DocumentRepository.connect(lasting_url) as documents:
        await documents.save_markdown("c", "n", text="text")
        await documents.save_json("c", "n", value={"z": -0.0, "a": "\x00"})
    async with DocumentRepository.connect(lasting_url) as documents:
        assert await documents.find_markdown("c", "n") == "text"
        assert spelled(await documents.find_json("c", "n")) == spelled({"z": -0.0, "a": "\x00"})
        assert await documents.list_category("c") == ["n", "n"]


# --- listing and deleting -------------------------------------------------------------------------


async def test_list_category(documents: DocumentRepository) -> None:
    """O23: by code point, a name twice where both formats exist, without sub-categories."""
    for name in ("b", "B", "é", "a", "a b", "\U0001f600", "\uffff", "_"):
        await documents.save_json("c", name, value=1)
    await documents.save_markdown("c", "b", text="x")
    await documents.save_markdown("c", "m", text="x")
    await documents.save_json("c/sub", "below", value=1)
    await documents.save_json("cc", "beside", value=1)
    expected = ["B", "_", "a", "a b", "b", "b", "m", "é", "\uffff", "\U0001f600"]
    assert await documents.list_category("c") == expected
    assert await documents.list_category("c/sub") == ["below"]
    assert await documents.list_category("missing") == []


async def test_delete(documents: DocumentRepository) -> None:
    """O25: the JSON first, then the markdown, then False."""
    await documents.save_json("c", "n", value=1)
    await documents.save_markdown("c", "n", text="x")
    await documents.save_markdown("c", "other", text="y")
    assert await documents.delete("c", "n") is True
    assert (await documents.find_json("c", "n"), await documents.find_markdown("c", "n")) == (None, "x")
    assert await documents.delete("c", "n") is True
    assert await documents.find_markdown("c", "n") is None
    assert await documents.delete("c", "n") is False
    assert await documents.delete("missing", "n") is False
    assert await documents.list_category("c") == ["other"]


# --- names ----------------------------------------------------------------------------------------

BAD_CATEGORIES: list[Any] = [
    *("../etc", "a/../b", "a/..", "..", "", "/foo", "foo/", "foo//bar", "/", "foo\\bar", "\\", "C:\\x"),
    *(" ", " a", "a ", "a\x00b", "a\nb", "a\ud800", "\u202ea", "\u200b", "x" * 256, "é" * 257, None, 7, b"a", ["a"]),
]
GOOD_CATEGORIES = [
    "memory/facts",
    "a",
    "a.b/c.d",
    "...",
    "a..b",
    "..a",
    ".hidden",
    "con",
    "a b",
    "ключ/日本",
    "%2e%2e",
    "~",
]
BAD_NAMES: list[Any] = [
    *("../shadow", "..", "a/b", "/a", "a/", "/", "a\\b", "\\", "C:\\x", ""),
    *(" ", " a", "a ", "a\x00b", "a\nb", "a\ud800", "\u202ea", "\u200b", "x" * 256, "é" * 257, None, 7, b"a", ["a"]),
]
GOOD_NAMES = [
    "a",
    "a.md",
    "...",
    "a..b",
    "..a",
    ".hidden",
    "con",
    "nul.txt",
    "a b",
    "trailing.",
    "ключ",
    "%2e%2e",
    "C:",
    "~",
]


async def refuses(documents: DocumentRepository, category: Any, name: Any, match: str) -> None:
    for call in (
        documents.save_markdown(category, name, text="x"),
        documents.save_json(category, name, value=1),
        documents.find_markdown(category, name),
        documents.find_json(category, name),
        documents.delete(category, name),
    ):
        with pytest.raises(InvalidArgumentError, match=match):
            await call


async def test_categories(documents: DocumentRepository) -> None:
    """O24: `memory/facts` is one; what would lead astray as a path is refused by every verb."""
    for category in BAD_CATEGORIES:
        await refuses(documents, category, "n", "category")
        with pytest.raises(InvalidArgumentError, match="category"):
            await documents.list_category(category)
    for category in GOOD_CATEGORIES:
        await documents.save_markdown(category, "n", text=category)
    for category in GOOD_CATEGORIES:
        assert await documents.find_markdown(category, "n") == category
        assert await documents.list_category(category) == ["n"]


async def test_names(documents: DocumentRepository) -> None:
    """O24: no slash in a name; a reserved word of some file system is only text."""
    for name in BAD_NAMES:
        await refuses(documents, "c", name, "name")
    assert await documents.list_category("c") == []
    for name in GOOD_NAMES:
        await documents.save_json("c", name, value=name)
    assert [await documents.find_json("c", name) for name in GOOD_NAMES] == GOOD_NAMES
    assert await documents.list_category("c") == sorted(GOOD_NAMES)


# --- what is refused ------------------------------------------------------------------------------


async def test_texts_that_no_column_holds(documents: DocumentRepository) -> None:
    """O22, X07: markdown refuses U+0000 and lone surrogates on every database; the old text stays."""
    await documents.save_markdown("c", "n", text="old")
    for text in ("a\x00b", "a\ud800b", "\udfff", None, b"x", 7):
        with pytest.raises(InvalidArgumentError):
            await documents.save_markdown("c", "n", text=text)  # type: ignore[arg-type]
    assert await documents.find_markdown("c", "n") == "old"


async def test_values_that_are_not_json(documents: DocumentRepository) -> None:
    """O22, X07: refused with the path of the fault; the old value stays."""
    await documents.save_json("c", "n", value="old")
    for value in (float("nan"), float("inf"), (1,), {1}, b"x", object(), 10**1000, "\ud83d\ude00"):
        for place, path in (([value], "$[0]"), ({"a": [value]}, "$.a[0]"), (value, "$")):
            with pytest.raises(InvalidMessageError) as caught:
                await documents.save_json("c", "n", value=place)  # type: ignore[arg-type]
            assert caught.value.path == path
    with pytest.raises(InvalidMessageError):
        await documents.save_json("c", "n", value={1: 2})  # type: ignore[dict-item]
    assert await documents.find_json("c", "n") == "old"


async def test_limits_of_a_document(database_url: str) -> None:
    """O22: those of the settings, named in the error."""
    settings = StoreSettings(max_body_bytes=100, max_depth=3)
    async with DocumentRepository.connect(database_url, settings=settings) as documents:
        await documents.save_markdown("c", "n", text="x" * 100)
        await documents.save_markdown("c", "n", text='"' * 100)  # longer as JSON, but that is not the text's length
        await documents.save_json("c", "n", value=["x" * 96])
        await documents.save_json("c", "n", value=[[[1]]])
        with pytest.raises(InvalidArgumentError, match="100"):
            await documents.save_markdown("c", "n", text="x" * 101)
        with pytest.raises(InvalidArgumentError, match="100"):
            await documents.save_markdown("c", "n", text="é" * 51)
        with pytest.raises(InvalidMessageError, match="100"):
            await documents.save_json("c", "n", value=["x" * 97])
        with pytest.raises(InvalidMessageError, match="100"):
            await documents.save_json("c", "n", value="x" * 99)
        with pytest.raises(InvalidMessageError, match="3"):
            await documents.save_json("c", "n", value=[[[[1]]]])
        assert await documents.find_json("c", "n") == [[[1]]]
        assert await documents.find_markdown("c", "n") == '"' * 100


# --- at once, in tenants, in transactions ---------------------------------------------------------


async def test_readers_see_a_whole_document(documents: DocumentRepository) -> None:
    """O26: the one before a save or the one after it, never half of each."""
    letters = "abcdef"
    await documents.save_json("c", "n", value=["a"] * 20_000)

    async def write(letter: str) -> None:
        for _ in range(5):
            await documents.save_json("c", "n", value=[letter] * 20_000)

    async def read() -> None:
        for _ in range(20):
            found = await documents.find_json("c", "n")
            assert isinstance(found, list)
            assert (len(found), len(set(map(str, found)))) == (20_000, 1)

    await asyncio.gather(read(), read(), *(write(letter) for letter in letters))
    assert await documents.list_category("c") == ["n"]


async def test_tenants_have_documents_of_their_own(documents: DocumentRepository) -> None:
    """X01, O22: nothing of another tenant's can be read, listed, overwritten or deleted."""
    other = documents.for_tenant("other")
    await other.save_markdown("c", "n", text="theirs")
    await other.save_json("c", "n", value="theirs")
    assert await documents.find_markdown("c", "n") is None
    assert await documents.find_json("c", "n") is None
    assert await documents.list_category("c") == []
    assert await documents.delete("c", "n") is False
    await documents.save_json("c", "n", value="ours")
    assert await documents.delete("c", "n") is True
    assert await other.find_json("c", "n") == "theirs"
    assert await other.find_markdown("c", "n") == "theirs"
    assert (documents.tenant, other.tenant) == ("", "other")


async def test_documents_and_sessions_share_an_engine(engine: AsyncEngine) -> None:
    """O22: one database, one engine; closing a repository leaves the caller's engine, and the others, at work."""
    async with SessionRepository(engine, tenant="t") as sessions:
        documents = DocumentRepository(engine, tenant="t")
        await documents.save_json("c", "s", value=1)
        await sessions.create("s")
        assert await documents.find_json("c", "s") == 1
        assert await sessions.delete_all() == 1
        assert await documents.list_category("c") == ["s"]
    assert await documents.find_json("c", "s") == 1
    await documents.aclose()


@pytest.mark.parametrize("kind", ["connection", "session"])
async def test_within_a_transaction(lasting_url: str, kind: str) -> None:
    """O22, O25: what is saved and deleted there goes with the caller's rollback, and stays with the commit."""
    engine = callers_engine(lasting_url)
    documents = DocumentRepository(engine)
    await documents.save_json("c", "kept", value=1)
    for commits in (False, True):
        async with engine.connect() if kind == "connection" else AsyncSession(engine) as caller:
            inside = documents.within(caller)
            await inside.save_markdown("c", "new", text="x")
            await inside.delete("c", "kept")
            assert await inside.list_category("c") == ["new"]
            await (caller.commit() if commits else caller.rollback())
        assert await documents.list_category("c") == (["new"] if commits else ["kept"])
    await documents.aclose()
    await engine.dispose()


async def test_a_damaged_document_is_an_error(documents: DocumentRepository) -> None:
    """O22, F11: it is not taken for a missing one; the others stay readable."""
    await documents.save_json("c", "n", value={"secret": "value"})
    await documents.save_json("c", "fine", value=1)
    damaged = json.dumps("\ud800")
    async with documents._shared.engine.begin() as connection:
        await connection.exec_driver_sql(
            f"UPDATE sessionstore_documents SET body = '{damaged}', plain = true WHERE name = 'n'"  # noqa: S608
        )
    with pytest.raises(SessionStoreError, match="JSON") as caught:
        await documents.find_json("c", "n")
    assert "ud800" not in str(caught.value)
    assert await documents.find_json("c", "fine") == 1
    assert await documents.list_category("c") == ["fine", "n"]
