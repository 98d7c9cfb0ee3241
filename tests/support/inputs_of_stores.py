"""The rest of the catalogue: numbers, times, keys, names of documents, URLs and files; see `inputs`."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import uuid
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, make_url

from sessionstore import (
    CorruptStoreError,
    InvalidArgumentError,
    Json,
    NewMessage,
    PrunePolicy,
    ReadOnlyStoreError,
    SchemaOutOfDateError,
    SessionExistsError,
    SessionRepository,
    Transcript,
)
from sessionstore.schema import REVISION
from tests.support.inputs import PASSWORD, ROLE, Accepted, Case, Ground, Refused, argument

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

# --- numbers --------------------------------------------------------------------------------------

NUMBERS: Final[dict[str, Callable[[Ground, Any], Awaitable[Any]]]] = {
    "messages first": lambda ground, n: ground.sessions.messages("s", first=n),
    "messages last": lambda ground, n: ground.sessions.messages("s", last=n),
    "messages after": lambda ground, n: ground.sessions.messages("s", after=n),
    "messages before": lambda ground, n: ground.sessions.messages("s", before=n),
    "messages_json last": lambda ground, n: ground.sessions.messages_json("s", last=n),
    "trim": lambda ground, n: ground.sessions.trim("s", n),
    "truncate": lambda ground, n: ground.sessions.truncate("s", n),
    "compact": lambda ground, n: ground.sessions.compact("s", ROLE, keep_last=n),
    "fork_at": lambda ground, n: ground.sessions.fork_at("s", n, new_id="t"),
    "expected_length": lambda ground, n: ground.sessions.append("s", ROLE, expected_length=n),
    "expected_version": lambda ground, n: ground.sessions.update("s", title="x", expected_version=n),
    "limit": lambda ground, n: ground.sessions.list_sessions(limit=n),
    "max_turns of a new one": lambda ground, n: ground.sessions.create("t", max_turns=n),
    "max_turns": lambda ground, n: ground.sessions.update("s", max_turns=n),
    "max_turns to be saved": lambda ground, n: ground.sessions.save(Transcript.of("s", max_turns=n)),
    "batch_size": lambda ground, n: ground.sessions.prune(PrunePolicy(), batch_size=n),
}


async def after_trim(ground: Ground, keep: int) -> list[int]:
    """What a trim gives, what is left, and where the next message goes."""
    kept = await ground.sessions.trim("s", keep)
    again = await ground.sessions.trim("s", keep)
    return [kept, again, await ground.sessions.length("s"), *await ground.sessions.append("s", ROLE)]


async def of_fork(ground: Ground, keep: int, trimmed: int = 3) -> tuple[int, int]:
    """The positions of a fork of a session that was trimmed before."""
    await ground.sessions.trim("s", trimmed)
    child = await ground.sessions.fork_at("s", keep, new_id="t")
    return child.first_position, child.next_position


async def count(rows: Awaitable[Any]) -> int:
    """How many there are."""
    return len(await rows)


async def listed(ground: Ground, limit: int) -> int:
    """How many sessions a page has."""
    return len((await ground.sessions.list_sessions(limit=limit)).rows)


def numbers() -> Iterable[Case]:
    """Rows 59 to 71."""
    for row, value in {59: -1, 60: 1.5, 61: True, 62: "7", 63: 2**63}.items():
        for what, verb in NUMBERS.items():
            attempt = lambda ground, verb=verb, value=value: verb(ground, value)  # noqa: E731
            yield Case(row, f"{what} of {value!r}", attempt, argument())
    yield Case(64, "last 0", lambda ground: ground.sessions.messages("s", last=0), Accepted([]))
    yield Case(64, "first 0", lambda ground: ground.sessions.messages("s", first=0), Accepted([]))
    yield Case(64, "limit 0", lambda ground: listed(ground, 0), Accepted(0))
    yield Case(65, "limit 10**9", lambda ground: listed(ground, 10**9), Accepted(1))
    yield Case(65, "last 10**9", lambda ground: count(ground.sessions.messages("s", last=10**9)), Accepted(3))
    yield Case(65, "last 2**63-1", lambda ground: count(ground.sessions.messages("s", last=2**63 - 1)), Accepted(3))
    yield Case(66, "after the end", lambda ground: ground.sessions.messages("s", after=10**6), Accepted([]))
    yield Case(66, "before the start", lambda ground: ground.sessions.messages("s", before=0), Accepted([]))
    yield Case(67, "beyond the end", lambda ground: of_fork(ground, 100), Accepted((0, 3)))
    yield Case(67, "far beyond the end", lambda ground: of_fork(ground, 2**63 - 1), Accepted((0, 3)))
    yield Case(68, "negative", lambda ground: ground.sessions.fork_at("s", -1), argument("keep_first"))
    yield Case(68, "of a trimmed one", lambda ground: of_fork(ground, 1, trimmed=2), Accepted((1, 2)))
    yield Case(68, "nothing of a trimmed one", lambda ground: of_fork(ground, 0, trimmed=2), Accepted((1, 1)))
    yield Case(
        68, "beyond the end of a trimmed one", lambda ground: of_fork(ground, 2**63 - 1, trimmed=2), Accepted((1, 3))
    )
    onto = lambda ground: ground.sessions.fork("s", new_id="t")  # noqa: E731
    yield Case(69, "onto another", onto, Refused(SessionExistsError, ("'t'",)), prepare=onto)
    yield Case(69, "onto itself", lambda ground: ground.sessions.fork("s", new_id="s"), argument("itself"))
    replacing = lambda ground: ground.sessions.fork("s", new_id="s", replace=True)  # noqa: E731
    yield Case(69, "onto itself, replacing", replacing, argument("itself"))
    yield Case(70, "trim beyond the end", lambda ground: after_trim(ground, 100), Accepted([3, 3, 3, 3]))
    yield Case(71, "trim twice", lambda ground: after_trim(ground, 1), Accepted([1, 1, 1, 3]))
    yield Case(71, "trim to nothing twice", lambda ground: after_trim(ground, 0), Accepted([0, 0, 0, 3]))


# --- times ----------------------------------------------------------------------------------------

FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)
AHEAD: Final = timezone(timedelta(hours=5, minutes=30))
BEHIND: Final = timezone(-timedelta(hours=1))


async def of_message(ground: Ground, moment: Any) -> datetime:
    """The time of a message, as it is read back."""
    await ground.sessions.append("s", NewMessage(ROLE, created_at=moment))
    [message] = await ground.sessions.messages("s", last=1)
    return message.created_at


async def of_session(ground: Ground, moment: Any) -> datetime:
    """The times of a session, as they are read back."""
    await ground.sessions.save(Transcript.of("t", created_at=moment, updated_at=moment))
    session = await ground.sessions.get("t")
    [row] = [row for row in (await ground.sessions.list_sessions()).rows if row.id == "t"]
    assert session.created_at == session.updated_at == row.created_at == row.updated_at
    await ground.sessions.delete("t")  # plain SQL gives the last moment without its time zone, and stumbles over it
    return session.updated_at


def times() -> Iterable[Case]:
    """Rows 72 to 74."""
    for what, attempt in {"message": of_message, "session": of_session}.items():
        for name, moment in {"naive": datetime(2024, 5, 17), "naive max": datetime.max}.items():  # noqa: DTZ001, DTZ901
            yield at(72, f"{name}, {what}", attempt, moment, argument("time zone"))
        for value in ("2024-05-17T00:00:00Z", 1715904000, datetime(2024, 5, 17, tzinfo=UTC).date()):
            yield at(72, f"{type(value).__name__}, {what}", attempt, value, argument(type(value).__name__))
        local = datetime(2024, 5, 17, 3, 0, 0, 123456, tzinfo=AHEAD)
        yield at(73, f"not UTC, {what}", attempt, local, Accepted(local.astimezone(UTC)))
        for name, moment in {"last": LAST, "first": FIRST, "nearly last": LAST - timedelta(seconds=1)}.items():
            yield at(74, f"{name}, {what}", attempt, moment, Accepted(moment))
        for name, moment in {
            "after the last": LAST.replace(tzinfo=BEHIND),
            "before the first": FIRST.replace(tzinfo=AHEAD),
        }.items():
            yield at(74, f"{name}, {what}", attempt, moment, argument("UTC"))


def at(
    row: int, what: str, attempt: Callable[[Ground, Any], Awaitable[Any]], moment: Any, verdict: Accepted | Refused
) -> Case:
    """A moment somewhere."""
    return Case(row, what, lambda ground: attempt(ground, moment), verdict)


# --- metadata -------------------------------------------------------------------------------------

KEYS: Final = {
    75: ['a"b', "a'b", "a\\b"],
    76: ["a.b", "$.a", "$"],
    77: ["ключ", "é", "\U0001f600"],
    78: ['a"."owner', "[0]", "a\nb", "%", "_"],
}


async def found_by(ground: Ground, key: str) -> tuple[Any, list[str]]:
    """The metadata of a session with a key, and the sessions that the key finds beside those that look like it."""
    await ground.sessions.create("wanted", metadata={key: "v"})
    look_alikes: dict[str, Json] = {"a": {"b": "v", "owner": "v"}, "x": ["v"], "b": "v", "owner": "v", "0": "v"}
    await ground.sessions.create("other", metadata=look_alikes)
    page = await ground.sessions.list_sessions(metadata={key: "v"})
    return (await ground.sessions.get("wanted")).metadata, [row.id for row in page.rows]


def metadata() -> Iterable[Case]:
    """Rows 75 to 78."""
    for row, keys in KEYS.items():
        for key in keys:
            attempt = lambda ground, key=key: found_by(ground, key)  # noqa: E731
            yield Case(row, f"key {key!a}", attempt, Accepted(({key: "v"}, ["wanted"])))


# --- documents ------------------------------------------------------------------------------------


async def of_document(ground: Ground, category: Any, name: Any) -> list[Any]:
    """What is found of a document, and listed."""
    await ground.documents.save_json(category, name, value="v")
    return [await ground.documents.find_json(category, name), *await ground.documents.list_category(category)]


def a_document(row: int, category: Any, name: Any, *words: str) -> Case:
    """A document of that category and name; refused with these words, or accepted."""
    verdict = argument(*words) if words else Accepted(["v", name])
    return Case(
        row, f"document {category!a} {str(name)[:20]!a}", lambda ground: of_document(ground, category, name), verdict
    )


def documents() -> Iterable[Case]:
    """Rows 81 and 82."""
    for name in ("../x", "..", "/etc/passwd", "a/b", "a/", "C:\\", "a\\b", "", "x" * 256, "a\x00b", " a"):
        yield a_document(81, "c", name, "name")
    for category in ("../etc", "a/../b", "..", "/foo", "foo/", "foo//bar", "foo\\bar", "", "x" * 256, "a\nb"):
        yield a_document(81, category, "n", "category")
    for name in ("con", "trailing.", "x" * 255, "...", "a..b", "C:", "%2e%2e", "ключ"):
        yield a_document(82, "c", name)
    for category in ("memory/facts", "con/nul", "a./b.", "..."):
        yield a_document(82, category, "n")


# --- databases ------------------------------------------------------------------------------------


async def opened(url: str | URL, *, writing: bool = True) -> bool:
    """Whether a repository can be opened, and written to."""
    async with SessionRepository.connect(url) as sessions:
        return (await sessions.open("s")).id == "s" if writing else not await sessions.exists("missing")


async def wrong_driver(ground: Ground, driver: str) -> Any:
    """The same database through another driver."""
    url = ground.url.set(drivername=driver, username="ann", password=PASSWORD)
    return await opened(url)


@asynccontextmanager
async def role(ground: Ground, *rights: str) -> AsyncIterator[URL]:
    """The URL of a fresh database for a new role with these rights on our tables."""
    name = f"sessionstore_test_{uuid.uuid4().hex[:8]}"
    url = make_url(await ground.server.create_database(name, ground.template))
    await ground.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    owner = await ground.server.connect(name)
    for right in rights:
        await owner.execute(f"GRANT {right} ON ALL TABLES IN SCHEMA public TO {name}")
    await owner.close()
    try:
        yield url.set(username=name, password=PASSWORD)
    finally:
        await ground.server.drop_database(name)
        await ground.server.execute(f"DROP ROLE {name}")


async def without_rights(ground: Ground, *rights: str) -> Any:
    """A database that may only be read, or not even that."""
    if not ground.is_sqlite:
        async with role(ground, *rights) as url:
            return await opened(url, writing=bool(rights))
    file = await copied(ground)
    return await opened(f"sqlite:///file:{file}?mode=ro&uri=true")


async def with_password(ground: Ground) -> Any:
    """A URL with such a password, or a path with such signs, written out."""
    if not ground.is_sqlite:
        async with role(ground, "ALL") as url:
            return await opened(url.render_as_string(hide_password=False))
    file = ground.folder / f"{PASSWORD.replace('/', '')}.db"
    await asyncio.to_thread(shutil.copyfile, ground.migrated, file)
    return await opened(URL.create("sqlite", database=str(file)))


async def copied(ground: Ground) -> Path:
    """A migrated file of the case's own."""
    file = ground.folder / "copy.db"
    await asyncio.to_thread(shutil.copyfile, ground.migrated, file)
    return file


async def damaged(ground: Ground, damage: Callable[[bytes], bytes]) -> Any:
    """A file that is no database, opened, and not touched by that."""
    file = ground.folder / "damaged.db"
    before = damage(await asyncio.to_thread(ground.migrated.read_bytes))
    await asyncio.to_thread(file.write_bytes, before)
    try:
        return await opened(f"sqlite:///{file}")
    finally:
        assert await asyncio.to_thread(file.read_bytes) == before
        assert await asyncio.to_thread(lambda: list(ground.folder.iterdir())) == [file]


NEWER: Final = "UPDATE sessionstore_schema SET revision = '0009', compatible_from = '0009'"


async def newer(ground: Ground) -> Any:
    """A database for newer code, opened."""
    if ground.is_sqlite:
        file = await copied(ground)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute(NEWER)
            connection.commit()
        return await opened(f"sqlite:///{file}")
    async with role(ground, "ALL") as url:
        owner = await ground.server.connect(url.database)
        await owner.execute(NEWER)
        await owner.close()
        return await opened(url)


def databases() -> Iterable[Case]:
    """Rows 85 to 88."""
    for driver in (
        "postgresql+psycopg2",
        "postgresql+psycopg",
        "mysql+aiomysql",
        "sqlite+pysqlite",
        "mssql",
        "nonsense",
    ):
        attempt = lambda ground, driver=driver: wrong_driver(ground, driver)  # noqa: E731
        yield Case(85, f"driver {driver}", attempt, Refused(InvalidArgumentError, (driver,)))
    yield Case(86, "only reading", lambda ground: without_rights(ground, "SELECT"), Refused(ReadOnlyStoreError))
    yield Case(86, "no rights", without_rights, Refused(ReadOnlyStoreError))
    yield Case(87, "password", with_password, Accepted(value=True))
    notes = lambda _: b"these are my notes\n" * 1000  # noqa: E731
    yield Case(88, "not SQLite", lambda ground: damaged(ground, notes), Refused(CorruptStoreError))
    half = lambda content: content[: len(content) // 2]  # noqa: E731
    yield Case(88, "truncated", lambda ground: damaged(ground, half), Refused(CorruptStoreError))
    yield Case(88, "newer", newer, Refused(SchemaOutOfDateError, ("0009", REVISION, "pip install")))
