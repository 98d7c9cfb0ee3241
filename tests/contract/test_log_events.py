"""What the store logs: every line has an event and its facts as fields, and the page lists them all."""

from __future__ import annotations

import ast
import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

import sessionstore
from sessionstore import PrunePolicy, PruneThrottle, SessionRepository, StorageFullError, StoreSettings, telemetry
from sessionstore.executors import guarantees
from sessionstore.executors.guarantees import check_database
from tests.contract._own import fill
from tests.contract.test_hooks import Broken
from tests.contract.test_throttles import hold_back_prunes, settled
from tests.docs.markdown import read, rows, sections
from tests.support.repositories import execute

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE: Final = Path(sessionstore.__file__).parent
USUAL: Final = {*vars(logging.makeLogRecord({})), "message", "asctime"}
ONE: Final = PrunePolicy(max_age=None, max_sessions=1)
LISTED: Final = {
    row[0].strip("`"): (row[1], set(row[2].replace("`", "").split(", ")))
    for row in rows(sections(read("docs/operations.md"))["Log events"])[1:]
}


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    """What the store logs."""
    found: list[logging.LogRecord] = []

    class Noting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record)

    handler = Noting()
    logging.getLogger("sessionstore").addHandler(handler)
    yield found
    logging.getLogger("sessionstore").removeHandler(handler)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a formatter finds in a record besides the usual."""
    return {name: value for name, value in vars(record).items() if name not in USUAL}


def check(found: list[logging.LogRecord], event: str, **facts: str) -> None:
    """One record of that event, with those facts and its level, as the page says."""
    (record,) = (each for each in found if getattr(each, "event", None) == event)
    assert fields(record) == {"event": event, **facts}
    assert LISTED[event] == (record.levelname, set(facts))


def test_the_page_lists_what_the_code_logs() -> None:
    """Every call of a logger names its event; none is left out, and none is made up."""
    events: set[str] = set()
    calls = 0
    for file in PACKAGE.rglob("*.py"):
        if "_alembic" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("_log."):
                if node.func.attr in {"addHandler", "setLevel"}:  # type: ignore[attr-defined]
                    continue
                calls += 1
                assert "extra" in {keyword.arg for keyword in node.keywords}, f"{file}:{node.lineno}"
            if isinstance(node, ast.Dict):
                pairs = zip(node.keys, node.values, strict=True)
                named = [value for key, value in pairs if key and ast.unparse(key) == "'event'"]
                events |= {str(value.value) for value in named if isinstance(value, ast.Constant)}
    assert events == set(LISTED)
    assert calls == len(events)


async def test_a_prune_that_fails(shared_url: str, records: list[logging.LogRecord]) -> None:
    async with SessionRepository.connect(shared_url) as sessions:
        await fill(sessions, ["a", "b"])
        await execute(sessions, "ALTER TABLE sessionstore_metadata RENAME TO hidden")
        await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=PruneThrottle(0))
        await settled(sessions)
    check(records, "sessionstore.background_failed", work="a prune", error="SessionStoreError")


async def test_a_prune_that_is_ended(
    shared_url: str, records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sessionstore.handle.PRUNE_CLOSE_SECONDS", 0.01)
    async with SessionRepository.connect(shared_url) as sessions:
        await fill(sessions, ["a", "b"])
        hold_back_prunes(sessions, asyncio.Event())
        await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=PruneThrottle(0))
    check(records, "sessionstore.background_ended", work="a prune")


async def test_an_eviction_that_fails(
    postgres_database: str, records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = StoreSettings(session_cap=1)
    async with SessionRepository.connect(postgres_database, settings=settings) as sessions:
        await sessions.create("a")
        real = sessions._executor._attempt

        async def attempt(unit: Any, deadline: Any) -> Any:
            if unit.name == "evict":
                raise StorageFullError
            return await real(unit, deadline)

        monkeypatch.setattr(sessions._executor, "_attempt", attempt)
        await sessions.create("b")
    check(records, "sessionstore.follow_up_failed", unit="create", error="StorageFullError")


def test_a_setting_that_is_weaker(records: list[logging.LogRecord], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarantees, "_told", set())
    check_database({"fsync": "off"})
    check(records, "sessionstore.weaker_setting", setting="fsync", value="off")


async def test_a_hook_that_fails(records: list[logging.LogRecord]) -> None:
    telemetry.install(Broken())
    try:
        async with SessionRepository.connect("sqlite://") as sessions:
            await sessions.exists("s")
    finally:
        telemetry.install(None)
    check(records, "sessionstore.hook_failed", method="begin", error="ValueError")
