"""The catalogue of bad and unusual inputs: what is tried, and what every database must make of it.

A case has the number of its row. After `prepare`, `attempt` does one thing to a `Ground`; the verdict says what comes
back, or which error with which words, and then nothing is stored. The session `s` is there and has three messages.

Ids, bodies and batches are here; `inputs_of_stores` has numbers, times, keys, documents and databases.
"""

from __future__ import annotations

import enum
import re
import uuid
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sessionstore import (
    DocumentRepository,
    InvalidArgumentError,
    InvalidMessageError,
    MessageIdConflictError,
    NewMessage,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from sqlalchemy import URL

    from tests.support.postgres import Postgres

MIB: Final = 2**20
PASSWORD: Final = "p@:/%w"  # noqa: S105
UUID_TEXT: Final = "0190b7e6-3f2a-7cc0-8a4e-5d1f2b3c4d5e"
MINTED: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
ROLE: Final = {"role": "user"}


@dataclass(frozen=True)
class Ground:
    """Where a case is tried.

    Attributes:
        sessions: of a tenant of its own.
        url: of the database.
        folder: an empty folder.
        migrated: a migrated SQLite file, to be copied.
        server: a PostgreSQL server, and `template` the name of a migrated database on it.
    """

    sessions: SessionRepository
    documents: DocumentRepository
    url: URL
    folder: Path
    migrated: Path
    server: Postgres
    template: str

    @property
    def is_sqlite(self) -> bool:
        """Which database this is."""
        return self.url.get_backend_name() == "sqlite"


class Accepted(NamedTuple):
    """What comes back, compared by type, value, order and sign; without a value, anything may."""

    value: Any = ...
    guarded: bool = False
    """Whether the DBA's view must hide the text of the newest message."""


class Refused(NamedTuple):
    """The error, words of its text, and for messages the path of the fault or the place of the message."""

    error: type[SessionStoreError]
    words: tuple[str, ...] = ()
    path: str | None = None
    place: int | None = None


class Case(NamedTuple):
    """A row of the catalogue, or one of several inputs of a row."""

    row: int
    what: str
    attempt: Callable[[Ground], Awaitable[Any]]
    verdict: Accepted | Refused
    prepare: Callable[[Ground], Awaitable[Any]] | None = None

    def __str__(self) -> str:
        return f"{self.row:02}-{self.what}"


# --- ids ------------------------------------------------------------------------------------------


def argument(*words: str) -> Refused:
    """Refused as an argument."""
    return Refused(InvalidArgumentError, words)


async def created(ground: Ground, session_id: Any) -> str:
    """The id of a session that was made with it, and is found by it."""
    session = await ground.sessions.create(session_id)
    assert (await ground.sessions.get(session_id)).id == session.id
    return session.id


async def all_created(ground: Ground, ids: Iterable[str]) -> list[str]:
    """The ids of sessions, after making one of each."""
    for session_id in ids:
        await created(ground, session_id)
    return sorted(row.id for row in (await ground.sessions.list_sessions()).rows if row.id != "s")


def an_id(row: int, what: str, value: Any, verdict: Accepted | Refused) -> Case:
    """A session of that id."""
    return Case(row, what, lambda ground: created(ground, value), verdict)


def distinct(row: int, what: str, *ids: str) -> Case:
    """Ids that are all different."""
    return Case(row, what, lambda ground: all_created(ground, ids), Accepted(sorted(ids)))


async def minted(session: Awaitable[Any]) -> bool:
    """Whether an id was minted."""
    return bool(MINTED.fullmatch((await session).id))


def ids() -> Iterable[Case]:
    """Rows 1 to 19."""
    yield an_id(1, "empty", "", argument("empty"))
    yield an_id(2, "blank", "   ", argument("blank"))
    for what, value in {"leading": " a", "trailing": "a ", "no-break": "a\u00a0", "ideographic": "\u3000a"}.items():
        yield an_id(3, f"{what} blank", value, argument("blank"))
    yield an_id(4, "255 characters", "x" * 255, Accepted("x" * 255))
    yield an_id(4, "256 characters", "x" * 256, argument("too long", "255"))
    yield an_id(4, "512 bytes", "\U0001f600" * 128, Accepted("\U0001f600" * 128))
    yield an_id(4, "513 bytes", "\U0001f600" * 128 + "x", argument("too long", "512"))
    yield an_id(5, "nul", "a\x00b", argument("U+0000"))
    for character in "\x01\x1f\x7f\x85\n\r\t\u2028\u2029":
        yield an_id(6, f"U+{ord(character):04X}", f"a{character}b", argument(f"U+{ord(character):04X}"))
    for character in "\ud800\udbff\udc00\udfff":
        yield an_id(7, f"U+{ord(character):04X}", f"a{character}b", argument(f"U+{ord(character):04X}"))
    yield distinct(8, "NFC and NFD", "\u00e9", "e\u0301")
    yield distinct(9, "case", "A", "a", "AA", "aA")
    yield distinct(10, "folding", "\u0130", "\u0131", "i", "I", "ß", "ss", "SS", "ﬁ", "fi")
    yield distinct(11, "paths", "../x", "a/b", "%2e%2e", "..", ".", "/etc/passwd")
    yield distinct(12, "SQL", "'; drop table sessionstore_sessions; --", '"', "''", "$1", ":p_tenant", "?")
    yield distinct(13, "wildcards", "%", "_", "\\", "a%", "a_", "ab", "\\%")
    yield Case(14, "none for a new one", lambda ground: minted(ground.sessions.create(None)), Accepted(value=True))
    yield Case(14, "none for any", lambda ground: minted(ground.sessions.open(None)), Accepted(value=True))
    yield Case(
        14, "none for a fork", lambda ground: minted(ground.sessions.fork("s", new_id=None)), Accepted(value=True)
    )
    yield Case(14, "none to be read", lambda ground: ground.sessions.get(None), argument("required"))  # type: ignore[arg-type]
    yield Case(14, "none to append to", lambda ground: ground.sessions.append(None, ROLE), argument("required"))  # type: ignore[arg-type]
    yield an_id(15, "int", 7, argument("int"))
    yield an_id(15, "bool", True, argument("bool"))
    yield an_id(15, "bytes", b"abc", argument("bytes"))
    yield an_id(15, "list", ["a"], argument("list"))
    yield an_id(15, "enum", Color.RED, argument("Color"))
    yield an_id(16, "UUID", uuid.UUID(UUID_TEXT), Accepted(UUID_TEXT))
    missing = Refused(SessionNotFoundError, (f"'{UUID_TEXT}'",))
    for name in ("get", "length", "messages", "reset"):
        verb = lambda ground, name=name: getattr(ground.sessions, name)(uuid.UUID(UUID_TEXT))  # noqa: E731
        yield Case(16, f"UUID of no session, {name}", verb, missing)
    yield an_id(17, "emoji", "\U0001f44d", Accepted("\U0001f44d"))
    yield an_id(17, "emoji with a selector", "\u2764\ufe0f", Accepted("\u2764\ufe0f"))
    yield an_id(17, "emoji with a joiner", "\U0001f468\u200d\U0001f469", argument("U+200D"))
    for character in "\u202a\u202e\u2066\u2069\u200e\u200f\u061c\u200b\u200c\u2060\ufeff":
        yield an_id(18, f"U+{ord(character):04X}", f"a{character}b", argument(f"U+{ord(character):04X}"))
        yield an_id(18, f"first U+{ord(character):04X}", f"{character}b", argument(f"U+{ord(character):04X}"))
    yield an_id(19, "100,000 characters", "x" * 100_000, argument("too long"))


# --- bodies ---------------------------------------------------------------------------------------


class Color(enum.StrEnum):
    """An enum that is text as well."""

    RED = "red"


class Number(enum.IntEnum):
    """An enum that is a number as well."""

    ONE = 1


class Text(str):
    """A subclass that says something else of itself."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Model:
    """What a caller's model looks like to us: an object."""

    def __iter__(self) -> Any:
        return iter({"a": 1}.items())


async def stored(ground: Ground, body: Any) -> Any:
    """A body as it is read back, as a message and as bytes."""
    [position] = await ground.sessions.append("s", body)
    [message] = await ground.sessions.messages("s", last=1)
    assert message.position == position
    assert await ground.sessions.messages_json("s", last=1) == b"[" + message.body_json + b"]"
    return message.body


def a_body(row: int, what: str, body: Any, verdict: Accepted | Refused | None = None) -> Case:
    """A body, accepted as it is unless said otherwise."""
    return Case(row, what, lambda ground: stored(ground, body), verdict or Accepted(body))


def content(row: int, what: str, value: Any, verdict: Accepted | Refused | None = None) -> Case:
    """A value somewhere in a body."""
    return a_body(row, what, {**ROLE, "content": [value]}, verdict)


def fault(*words: str, path: str = "$.content[0]") -> Refused:
    """Refused as a message, with the path of the fault."""
    return Refused(InvalidMessageError, words, path)


def nested(depth: int) -> dict[str, Any]:
    """A body of that depth."""
    value: Any = 1
    for _ in range(depth - 1):
        value = [value]
    return {**ROLE, "content": value}


def sized(size: int) -> dict[str, Any]:
    """A body of so many encoded bytes."""
    return {**ROLE, "content": "x" * (size - len('{"role":"user","content":""}'))}


def cycle() -> list[Any]:
    """A list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


async def unopened(ground: Ground, body: Any) -> Any:
    """An append with a repository that could not even open its database."""
    nowhere = "sqlite:////nowhere/x.db" if ground.is_sqlite else "postgresql://127.0.0.1:1/x"
    sessions = SessionRepository.connect(nowhere)
    try:
        return await sessions.append("s", body)
    finally:
        await sessions.aclose()


def bodies() -> Iterable[Case]:
    """Rows 20 to 51."""
    guarded = {"value": {**ROLE, "content": "a\x00b"}, "surrogate": {**ROLE, "content": "a\ud800b"}}
    yield a_body(20, "nul in a value", guarded["value"], Accepted(guarded["value"], guarded=True))
    yield a_body(21, "nul in a key", {**ROLE, "content": "x", "a\x00b": 1}, Accepted(..., guarded=True))
    yield content(21, "nul in an inner key", {"\x00": {"": "\x00"}})
    yield a_body(22, "lone surrogate in a value", guarded["surrogate"], Accepted(guarded["surrogate"], guarded=True))
    yield content(22, "low before high", "\udc00\ud800")
    yield content(22, "a pair as two code units", "\ud83d\ude00", fault("surrogate"))
    yield a_body(23, "lone surrogate in a key", {**ROLE, "content": "x", "a\udfffb": 1}, Accepted(..., guarded=True))
    for row, name in {24: "nan", 25: "inf", 26: "-inf"}.items():
        body = {**ROLE, "content": ["x", {"x": float(name)}]}
        yield a_body(row, name, body, fault(path="$.content[1].x"))
    rows: dict[int, list[float]] = {
        27: [-0.0, 0.0],
        28: [1.0, 1, -1.0, 0.1, 5e-324, 1.7976931348623157e308],
        29: [1e16, 1e22, 10**16, 123456789012345680.0],
        30: [2**53 + 1],
        31: [2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1],
    }
    for row, values in rows.items():
        for number in values:
            yield content(row, repr(number), number)
    yield content(32, "10**400", 10**400)
    yield content(33, "1,000 digits", 10**999)
    yield content(33, "1,001 digits", 10**1000, fault("1000"))
    yield content(33, "5,000 digits", -(10**4999), fault("1000"))
    yield a_body(34, "depth 100", nested(100))
    yield a_body(34, "depth 200", nested(200))
    yield a_body(35, "depth 201", nested(201), Refused(InvalidMessageError, ("200",)))
    yield a_body(36, "depth 5,000", nested(5000), Refused(InvalidMessageError, ("200",)))
    yield from not_json()
    yield a_body(44, "key order", {"z": 1, "role": "user", "a": {"y": 1, "b": 2}, "m": 3})
    yield content(45, "bool and int", [True, 1, False, 0])
    yield content(46, "empty", [{}, [], "", None])
    yield a_body(47, "16 MiB", sized(16 * MIB))
    yield a_body(48, "16 MiB and a byte", sized(16 * MIB + 1), fault(str(16 * MIB), str(16 * MIB + 1), path="$"))
    huge = {**ROLE, "content": ["x" * MIB] * 1024}
    yield Case(49, "1 GiB", lambda ground: unopened(ground, huge), fault(str(16 * MIB), "bytes", path="$"))
    yield content(50, "unusual text", "\uffff\U0010ffff \r\n \u0301\u0301e \u202e \ufeff \x1f\x7f")
    yield content(51, "str subclass", Text("x"), Accepted({**ROLE, "content": ["x"]}))
    yield content(51, "dict subclass", OrderedDict(z=1, a=2), Accepted({**ROLE, "content": [{"z": 1, "a": 2}]}))
    yield a_body(51, "dict subclass on top", OrderedDict(role="user", a=2), Accepted({"role": "user", "a": 2}))
    yield content(51, "str enum", Color.RED, fault("Color"))
    yield content(51, "int enum", Number.ONE, fault("Number"))
    yield content(51, "cycle", cycle(), Refused(InvalidMessageError))


def not_json() -> Iterable[Case]:
    """Rows 37 to 43."""
    yield content(37, "tuple", (1, 2), fault("tuple"))
    yield content(38, "set", {1}, fault("set"))
    yield content(38, "frozenset", frozenset(), fault("frozenset"))
    yield content(39, "bytes", b"x", fault("bytes"))
    yield content(39, "bytearray", bytearray(b"x"), fault("bytearray"))
    objects = [
        datetime.now(UTC),
        date(2024, 1, 1),
        Decimal(1),
        uuid.UUID(UUID_TEXT),
        Model(),
        UserDict(a=1),
        range(3),
        1j,
    ]
    for value in [*objects, object(), dict.keys({}), len, Path()]:
        yield content(40, type(value).__name__, value, fault(type(value).__name__))
    keys: list[tuple[int, Any]] = [(41, 1), (42, 1.5), (43, None), (43, True), (43, b"x"), (43, (1,)), (43, Color.RED)]
    for row, key in keys:
        yield content(row, f"{key!r} as a key", {"1": "x", key: "y"}, fault(type(key).__name__))
        yield a_body(row, f"{key!r} as a key on top", {**ROLE, key: 1}, fault(type(key).__name__, path="$"))
    for value in (None, "text", 7, [ROLE], b"{}", (("role", "user"),), UserDict(ROLE), Model()):
        yield a_body(40, f"{type(value).__name__} as a body", value, fault(path="$"))


# --- batches --------------------------------------------------------------------------------------


def batch(row: int, what: str, messages: list[Any], verdict: Accepted | Refused) -> Case:
    """An append of several messages."""
    return Case(row, what, lambda ground: ground.sessions.append("s", *messages), verdict)


def named(message_id: Any, text: str = "x") -> NewMessage:
    """A message with an id."""
    return NewMessage({**ROLE, "content": text}, message_id=message_id)


async def append_named(ground: Ground) -> None:
    """Store a message with an id."""
    await ground.sessions.append("s", named("m"))


def batches() -> Iterable[Case]:
    """Rows 52 to 58."""
    yield batch(52, "no message", [], Accepted([]))
    yield batch(53, "one message", [ROLE], Accepted([3]))
    yield batch(54, "10,000 messages", [ROLE] * 10_000, Accepted(list(range(3, 10_003))))
    yield batch(54, "10,001 messages", [ROLE] * 10_001, argument("10000"))
    for what, bad in {
        "NaN": {**ROLE, "x": float("nan")},
        "no role": {},
        "no object": 7,
        "empty role": {"role": ""},
    }.items():
        messages = [*[ROLE] * 7, bad, ROLE, ROLE]
        yield batch(55, f"item 7 of 10: {what}", messages, Refused(InvalidMessageError, ("7",), place=7))
    for value in ("", " ", " a", "a\x00", "\ud800"):
        yield batch(56, f"message id {value!a}", [ROLE, named(value)], argument("1"))
    for other in (7, b"x", True):
        yield batch(56, f"message id {other!a}", [named(other)], argument(type(other).__name__))
    yield batch(57, "message id of 255", [named("x" * 255)], Accepted([3]))
    yield batch(57, "message id of 256", [named("x" * 256)], argument("255"))
    conflict = Refused(MessageIdConflictError, ("'m'",))
    yield batch(58, "message id with another body", [named("m", "other")], conflict)._replace(prepare=append_named)
    yield batch(58, "message id with an equal body", [named("m")], Accepted([3]))._replace(prepare=append_named)
    yield batch(58, "message id twice in one call", [named("m"), named("m")], argument("1"))
