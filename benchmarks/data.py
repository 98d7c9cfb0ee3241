"""What the databases hold before a workload begins: bodies, sessions, and rows ready for bulk loading."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

BUCKET_MICROS: Final = 15 * 60 * 1_000_000
"""Written out: the floors share no code with the package."""

DAY_MICROS: Final = 24 * 3600 * 1_000_000
BODY_BYTES: Final = 500
BODIES: Final = 256
"""Different bodies in use: enough that no cache of one string flatters anybody."""

PRUNE_TENANT: Final = "prune"
PRUNE_AGE_DAYS: Final = 30
PRUNED_DAYS_AGO: Final = 60

_WORDS: Final = (
    *("the", "agent", "reads", "a", "file", "and", "calls", "tool", "with", "result", "of", "query", "then", "answers"),
    *("Grüße", "naïve", "日本語", "данные", "été", "señal", "✓"),
)


def now_micros() -> int:
    """The clock of this process, in microseconds since 1970."""
    return time.time_ns() // 1000


def bucket_of(micros: int) -> int:
    """The activity bucket of a moment."""
    return micros // BUCKET_MICROS


def named(name: str) -> str:
    """The id of a session that a workload uses: as long as a UUID, and the same in every run."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def body(number: int, *, task: int = 0, size: int = BODY_BYTES) -> dict[str, Any]:
    """A message of about 500 encoded bytes, some of them not ASCII; `task` and `number` say which one it is."""
    source = random.Random(number % BODIES)
    message = {"role": ("user", "assistant")[number % 2], "content": "", "task": str(task), "number": str(number)}
    room = size - len(orjson.dumps(message))
    words: list[str] = []
    while room > 0:
        word = source.choice(_WORDS)[:room]
        encoded = len(word.encode()) + 1
        word, encoded = (word, encoded) if encoded <= room else ("." * (room - 1), room)
        words.append(word)
        room -= encoded
    return {**message, "content": " ".join(words) + "."}


def bodies(count: int, *, task: int = 0, first: int = 0) -> list[dict[str, Any]]:
    """So many messages in a row."""
    return [body(first + at, task=task) for at in range(count)]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything.

    Attributes:
        listed: sessions among which a user's are listed.
        users: whose they are, in equal shares.
        pruned: sessions that a prune deletes, of ten messages each.
        rounds: most rounds of a workload, where it would like more.
        seconds: how long the rounds of a workload may take together.
    """

    listed: int = 100_000
    users: int = 1_000
    pruned: int = 10_000
    rounds: int = 1_000
    seconds: float = 9.0


QUICK: Final = Sizes(listed=5_000, users=50, pruned=500, rounds=3, seconds=1.5)


class Seeded(NamedTuple):
    """A session that is there from the beginning."""

    id: str
    length: int = 0
    tenant: str = ""
    user: str = ""
    at: int = 0
    """When it was created and last changed, in microseconds since 1970."""
    small: bool = False
    """Whether its messages are of a few bytes, because nobody reads them."""
    project: bool = False


SESSION_COLUMNS: Final = (
    *("tenant_id", "id", "user_id", "model", "max_turns", "title", "first_position", "next_position", "generation"),
    *("version", "next_event", "created_at", "updated_at", "last_accessed_at", "activity_bucket"),
)
MESSAGE_COLUMNS: Final = ("tenant_id", "session_id", "position", "role", "body", "plain", "created_at")
METADATA_COLUMNS: Final = ("tenant_id", "session_id", "key", "value", "plain", "value_key")

SESSION_TIMES: Final = (11, 12, 13)
MESSAGE_TIMES: Final = (6,)
"""Places of the columns that are times."""


def session_rows(sessions: Iterable[Seeded]) -> Iterator[tuple[Any, ...]]:
    """Rows of the sessions table."""
    for entry in sessions:
        counters = (0, entry.length, entry.at, min(entry.length, 1), 0)
        times = (entry.at, entry.at, entry.at, bucket_of(entry.at))
        yield (entry.tenant, entry.id, entry.user, "model", 0, "A conversation", *counters, *times)


def message_rows(sessions: Iterable[Seeded]) -> Iterator[tuple[Any, ...]]:
    """Rows of the messages table."""
    full = encoded_bodies()
    small = [(role, orjson.dumps({"role": role, "content": "…"}).decode()) for role in ("user", "assistant")]
    for entry in sessions:
        texts = small if entry.small else full
        for position in range(entry.length):
            role, text = texts[position % len(texts)]
            yield (entry.tenant, entry.id, position, role, text, True, entry.at)


def metadata_rows(sessions: Iterable[Seeded]) -> Iterator[tuple[Any, ...]]:
    """Rows of the metadata table."""
    for at, entry in enumerate(sessions):
        if entry.project:
            value = f'"project-{at % 100}"'
            yield (entry.tenant, entry.id, "project_ids", value, True, value)


def encoded_bodies() -> Sequence[tuple[str, str]]:
    """Role and encoded text of the bodies that histories are filled with."""
    return [(message["role"], orjson.dumps(message).decode()) for message in bodies(BODIES)]


def listed_sessions(sizes: Sizes) -> Iterator[Seeded]:
    """The sessions of many users over thirty days, up to two messages each, a quarter of them with a project."""
    source = random.Random(1)
    newest = now_micros() - DAY_MICROS
    span = 29 * DAY_MICROS
    for number in range(sizes.listed):
        at = newest - span + span * number // sizes.listed
        yield Seeded(
            id=_uuid7(at, source),
            length=number % 3,
            user=user_name(source.randrange(sizes.users)),
            at=at,
            small=True,
            project=number % 4 == 0,
        )


def user_name(number: int) -> str:
    """Whose sessions are listed."""
    return f"user-{number:05}"


def pruned_sessions(sizes: Sizes) -> Iterator[Seeded]:
    """Sessions that are old enough to go, among a tenth as many that stay."""
    source = random.Random(2)
    for number in range(sizes.pruned + sizes.pruned // 10):
        days = 1 if number % 11 == 0 else PRUNED_DAYS_AGO
        at = now_micros() - days * DAY_MICROS + number * 1_000_000
        yield Seeded(_uuid7(at, source), 10, tenant=PRUNE_TENANT, at=at)


def _uuid7(micros: int, source: random.Random) -> str:
    """A UUIDv7 of a moment: what the store mints."""
    value = (micros // 1000) << 80 | 0x7 << 76 | source.getrandbits(12) << 64 | 0b10 << 62 | source.getrandbits(62)
    return str(uuid.UUID(int=value))
