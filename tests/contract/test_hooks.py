"""A telemetry hook: none, one of one's own, one that is taken off, one that is broken."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest
from sqlalchemy import make_url

from sessionstore import DocumentRepository, SessionNotFoundError, SessionRepository, StoreSettings, telemetry
from sessionstore.telemetry import Call, Counter
from sessionstore.watch import Watching
from tests.contract._verbs import SESSION_VERBS, STORE_VERBS
from tests.contract.test_canaries import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SAY: Final = {"role": "user", "content": "hello"}

USE: Final = """
import asyncio, sys
from sessionstore import SessionRepository, SessionStoreError, telemetry
async def main():
    async with SessionRepository.connect("sqlite://") as sessions:
        await sessions.append("s", {"role": "user"}, create=True)
asyncio.run(main())
print(any(name.partition(".")[0] == "opentelemetry" for name in sys.modules))
sys.modules["opentelemetry"] = None
try:
    telemetry.enable()
except SessionStoreError as error:
    print(error)
"""


def test_nothing_of_opentelemetry_is_loaded() -> None:
    """Unless it is enabled; and where it is not installed the error says what to install."""
    ended = subprocess.run([sys.executable, "-c", USE], capture_output=True, text=True, check=True)
    loaded, error = ended.stdout.splitlines()
    assert loaded == "False"
    assert error == 'OpenTelemetry is not installed; run: pip install "sessionstore[otel]"'


def test_without_a_hook_the_verbs_are_as_they_were_written() -> None:
    """No call pays for what nobody listens to: the functions themselves are those of the class."""
    written = {kind: dict(vars(kind)) for kind in (SessionRepository, Watching, DocumentRepository)}
    verbs = telemetry._verbs[SessionRepository] | telemetry._verbs[Watching]
    assert {function.__code__.co_name for function in verbs.values()} == {
        name.partition(" ")[0] for name in SESSION_VERBS | STORE_VERBS
    }
    telemetry.install(Recording())
    try:
        assert SessionRepository.append is not written[SessionRepository]["append"]
        assert SessionRepository.append.__wrapped__ is written[SessionRepository]["append"]  # type: ignore[attr-defined]
    finally:
        telemetry.install(None)
    for kind, functions in written.items():
        assert {name: vars(kind)[name] for name in functions} == functions


class Recording:
    """A hook of one's own."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.calls: list[Call] = []

    def begin(self, call: Call) -> str:
        self.calls.append(call)
        self.lines.append(f"begin {call.verb}")
        return call.verb

    def end(self, begun: str, error: str | None) -> None:
        self.lines.append(f"end {begun} {error}")

    def count(self, counter: Counter, number: int, facts: Mapping[str, str]) -> None:
        self.lines.append(f"{counter} {number} {dict(facts)}")


@pytest.fixture
def recording() -> Iterator[Recording]:
    hook = Recording()
    telemetry.install(hook)
    yield hook
    telemetry.install(None)


async def test_a_hook_of_ones_own(database_url: str, recording: Recording) -> None:
    """It is told the same, in plain values."""
    settings = StoreSettings(schema="public" if database_url.startswith("postgresql") else None)
    async with SessionRepository.connect(database_url, tenant="acme", settings=settings) as sessions:
        await sessions.create("s")
        with pytest.raises(SessionNotFoundError):
            await sessions.get("x")
        await sessions.delete_all()
    assert recording.lines == [
        *("begin create", "end create None"),
        *("begin get", "end get SessionNotFoundError"),
        *("begin delete_all", "sessionstore.prune_batches 1 {'verb': 'delete_all'}", "end delete_all None"),
    ]
    url, server = make_url(database_url), settings.schema is not None
    name = url.database if server else None
    told = Call("create", url.get_backend_name(), telemetry.hashed("acme"), name, settings.schema, url.host, url.port)
    assert recording.calls[0] == told


async def test_a_hook_that_is_taken_off(sqlite_file: Any, recording: Recording) -> None:
    """A call under way ends with the hook that it began with; the next one is nobody's business."""
    async with SessionRepository.connect(f"sqlite:///{sqlite_file}") as sessions:
        await sessions.append("s", SAY, SAY, create=True)
        async for _ in sessions.iter_messages("s", batch_size=1):
            telemetry.install(None)
            await sessions.exists("s")
    assert recording.lines[2:] == ["begin iter_messages", "end iter_messages None"]


class Broken:
    """A hook of which everything fails."""

    def begin(self, call: Call) -> None:
        raise ValueError(f"{CANARY} {call}")

    def end(self, begun: Any, error: str | None) -> None:
        raise ValueError(CANARY)

    def count(self, counter: Counter, number: int, facts: Mapping[str, str]) -> None:
        raise ValueError(CANARY)


class Ending(Broken):
    """One that fails at the end."""

    def begin(self, call: Call) -> None:
        return None


@pytest.mark.parametrize("kind", [Broken, Ending])
async def test_a_broken_hook(database_url: str, kind: type[Broken], caplog: pytest.LogCaptureFixture) -> None:
    """P11: it breaks no call, hides no error, and is logged once, without its text."""
    telemetry.install(kind())
    try:
        async with SessionRepository.connect(database_url) as sessions:
            assert await sessions.append("s", SAY, create=True) == [0]
            assert [message.body async for message in sessions.iter_messages("s")] == [SAY]
            with pytest.raises(SessionNotFoundError):
                await sessions.get("x")
            assert await sessions.delete_all() == 1
    finally:
        telemetry.install(None)
    (record,) = (each for each in caplog.records if each.name == "sessionstore")
    assert (record.levelno, record.event) == (logging.WARNING, "sessionstore.hook_failed")  # type: ignore[attr-defined]
    assert CANARY not in record.getMessage()
