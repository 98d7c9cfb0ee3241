"""How many bytes a message takes on the disk: `python -m benchmarks.sizes docs/schema.md`, between the page's markers.

For bodies of 100, 500, 2,000 and 20,000 bytes, a migrated database is filled through the store, two messages a call,
fifty a session, and the server is asked what its relations occupy. Half of the messages carry an id. The text is of
made-up words, frequent ones and rare ones as in a language, because what TOAST compresses depends on that. The last
column is the time the server takes to read all bodies with lz4, as a ratio to pglz: the median of rounds in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from benchmarks.data import named
from benchmarks.databases import Database, Postgresql, Sqlite, server, workplace
from sessionstore import NewMessage, SessionRepository
from sessionstore.migrate import upgrade

BODIES: Final = {100: 10_000, 500: 10_000, 2_000: 5_000, 20_000: 1_000}
"""Bytes of a body, and how many messages have one."""

SESSION: Final = 50
TURN: Final = 2
VOCABULARY: Final = 4_000
ROUNDS: Final = 21

_PLACE: Final = re.compile(r"(?<=<!-- sizes -->\n).*?(?=<!-- end -->)", re.DOTALL)

_POSTGRESQL: Final = """
SELECT pg_relation_size('sessionstore_messages'),
  pg_total_relation_size(reltoastrelid),
  pg_relation_size('pk_sessionstore_messages') + pg_relation_size('uq_sessionstore_messages_message_id')
FROM pg_class WHERE relname = 'sessionstore_messages'
"""
_READ: Final = "SELECT sum(octet_length(json_send(body))) FROM sessionstore_messages"
_SQLITE: Final = "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size"


class Taken(NamedTuple):
    """Bytes a message on PostgreSQL."""

    table: float
    toast: float
    indexes: float

    def __str__(self) -> str:
        return f"{sum(self):,.0f} | {self.table:,.0f} | {self.toast:,.0f} | {self.indexes:,.0f}"


def texts(size: int, source: random.Random) -> Iterator[str]:
    """Texts without end, so long that a body with them is of this size."""
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = range(len(letters), 0, -1)
    vocabulary = ["".join(source.choices(letters, weights, k=source.randint(2, 10))) for _ in range(VOCABULARY)]
    frequencies = [1 / rank for rank in range(1, VOCABULARY + 1)]
    room = size - len(orjson.dumps({"role": "user", "content": ""}))
    while True:
        yield " ".join(source.choices(vocabulary, frequencies, k=room // 3))[:room].ljust(room, ".")


async def fill(url: str, size: int, count: int) -> None:
    """Append so many messages with bodies of a size."""
    content = texts(size, random.Random(size))
    async with SessionRepository.connect(url) as sessions:
        for first in range(0, count, TURN):
            turn = [{"role": "user", "content": text} for text in itertools.islice(content, TURN)]
            with_id = NewMessage(turn[0], message_id=named(f"sizes/{first}"))
            await sessions.append(named(f"sizes/{first // SESSION}"), with_id, turn[1], create=True)


async def filled(database: Postgresql, size: int, count: int, compression: str) -> str:
    """Make a database, with one of the ways to compress what TOAST takes; its URL."""
    url = await database.create(f"sizes_{size}_{compression}")
    await upgrade(url)
    await database.query(url, f"ALTER TABLE sessionstore_messages ALTER body SET COMPRESSION {compression}")
    await fill(url, size, count)
    return url


async def taken(database: Postgresql, url: str, count: int) -> Taken:
    """Ask the server what it occupies."""
    ((table, toast, indexes),) = await database.query(url, _POSTGRESQL)
    return Taken(table / count, toast / count, indexes / count)


async def reading(database: Postgresql, pglz: str, lz4: str) -> float:
    """How long reading every body takes with lz4, as a ratio."""
    ratios = []
    async with database.connected(pglz) as usual, database.connected(lz4) as other:
        for number in range(ROUNDS):
            times = {}
            for connection in (usual, other) if number % 2 else (other, usual):
                start = time.perf_counter()
                await connection.fetchval(_READ)
                times[connection] = time.perf_counter() - start
            ratios.append(times[other] / times[usual])
    return statistics.median(ratios)


async def sqlite(database: Database, size: int, count: int) -> float:
    """Measure on SQLite: what the file has grown by."""
    url = await database.create(f"sizes_{size}")
    await upgrade(url)
    await database.settle(url)
    ((before,),) = await database.query(url, _SQLITE)
    await fill(url, size, count)
    await database.settle(url)
    ((after,),) = await database.query(url, _SQLITE)
    return float(after - before) / count


async def lines(on_server: Postgresql, in_files: Sqlite) -> list[str]:
    """The table of the page."""
    heads = "PostgreSQL | of it table | TOAST | indexes | PostgreSQL with lz4 | SQLite | reading with lz4"
    written = [f"| bytes of a body | {heads} |", "|---" * 8 + "|"]
    for size, count in BODIES.items():
        pglz, lz4 = [await filled(on_server, size, count, name) for name in ("pglz", "lz4")]
        usual, other = await taken(on_server, pglz, count), await taken(on_server, lz4, count)
        ratio = await reading(on_server, pglz, lz4)
        in_file = await sqlite(in_files, size, count)
        written.append(f"| {size:,} | {usual} | {sum(other):,.0f} | {in_file:,.0f} | {ratio:.2f} |")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print or renew a page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizes", description=__doc__)
    parser.add_argument("page", type=Path, nargs="?", help="a page with <!-- sizes --> and <!-- end -->")
    options = parser.parse_args(arguments)
    with workplace(None) as folder, server() as started:
        table = "\n".join(["", *asyncio.run(lines(Postgresql(started), Sqlite(folder))), "", ""])
    print(table)
    if options.page is not None:
        options.page.write_text(_PLACE.sub(lambda _: table, options.page.read_text(), count=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
