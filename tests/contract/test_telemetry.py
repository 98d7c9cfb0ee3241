"""What a hook is told: one span a call of a verb, counters that count what they say, and nothing that callers wrote."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter as Tally
from typing import TYPE_CHECKING, Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import make_url

from sessionstore import (
    DocumentRepository,
    PrunePolicy,
    PruneThrottle,
    SessionNotFoundError,
    SessionRepository,
    SessionStoreError,
    StoreTimeoutError,
    telemetry,
)
from sessionstore.telemetry import Counter
from tests.concurrency.foreign import foreign
from tests.contract._own import fill
from tests.contract._verbs import ABOUT_THE_HANDLE, DOCUMENT_VERBS, SESSION_VERBS, STORE_VERBS, public
from tests.contract.test_canaries import CANARY, REFUSED, WRITES, _everything, _with_password, heard  # noqa: F401
from tests.support import points as faults
from tests.support.points import Fault, Points, raised
from tests.support.repositories import callers_engine, opened
from tests.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contract.test_canaries import Heard

SAY: Final = {"role": "user", "content": "hello"}
ONE: Final = PrunePolicy(max_age=None, max_sessions=1)


class Told:
    """Everything that OpenTelemetry was told."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meters = MeterProvider(metric_readers=[self._reader], shutdown_on_exit=False)
        self.mine = self.tracers.get_tracer("the caller's")

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans of the store that have ended, oldest first."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith("sessionstore.")]

    @property
    def names(self) -> list[str]:
        """Their verbs."""
        return [span.name.removeprefix("sessionstore.") for span in self.spans]

    def forget(self) -> None:
        """Begin anew, with the spans."""
        self._exporter.clear()

    @property
    def counts(self) -> dict[tuple[str, frozenset[tuple[str, Any]]], int]:
        """What each counter says, by its name and attributes."""
        found = self._reader.get_metrics_data()
        if found is None:
            return {}
        return {
            (metric.name, frozenset((point.attributes or {}).items())): point.value  # type: ignore[union-attr,misc]
            for resource in found.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }

    def count(self, counter: Counter) -> int:
        """What a counter says in all."""
        return sum(value for (name, _), value in self.counts.items() if name == counter)

    @property
    def text(self) -> str:
        """All of it, as it would leave the process."""
        return repr([span.to_json() for span in self._exporter.get_finished_spans()]) + repr(self.counts)


@pytest.fixture
def told() -> Iterator[Told]:
    """OpenTelemetry, listening."""
    everything = Told()
    telemetry.enable(tracer_provider=everything.tracers, meter_provider=everything.meters)
    yield everything
    telemetry.install(None)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


# --- spans ------------------------------------------------------------------------------------------------------------


def test_no_verb_is_left_out() -> None:
    """The tests below begin with the verbs that the classes have."""
    named = {name.partition(" ")[0] for name in SESSION_VERBS | STORE_VERBS}
    assert named == public(SessionRepository) - ABOUT_THE_HANDLE
    assert set(DOCUMENT_VERBS) == public(DocumentRepository) - ABOUT_THE_HANDLE


async def test_one_span_a_verb(database_url: str, told: Told) -> None:
    """Each call of each verb: one span of its name, whether it succeeds or fails; and one of what it left behind."""
    async with SessionRepository.connect(database_url) as sessions:
        for name, verb in SESSION_VERBS.items():
            for one in ("s", "missing"):
                await sessions.append("s", SAY, create=True)
                told.forget()
                expected = [name.partition(" ")[0]]
                with contextlib.suppress(SessionStoreError):
                    await verb(sessions, one)
                    if name == "append_and_prune":
                        await _in_the_background(sessions)
                        expected.append("prune")
                assert told.names == expected
        for name, store_verb in STORE_VERBS.items():
            told.forget()
            await store_verb(sessions)
            assert told.names == [name]
        documents = DocumentRepository(sessions._shared.engine)
        for name, document_verb in DOCUMENT_VERBS.items():
            told.forget()
            await document_verb(documents)
            assert told.names == [name]


async def _in_the_background(sessions: SessionRepository) -> None:
    if sessions._shared.tasks:
        await asyncio.wait(sessions._shared.tasks)


async def test_what_a_span_says(database_url: str, told: Told) -> None:
    """By the conventions for databases; the tenant as a hash that is the same everywhere."""
    async with SessionRepository.connect(database_url, tenant="acme") as sessions:
        await sessions.exists("s")
        await sessions.for_tenant("other").exists("s")
    ours, other = told.spans
    url, found = make_url(database_url), attributes(ours)
    assert found.pop("sessionstore.tenant_hash") == "accb46996fcf" == telemetry.hashed("acme")
    assert attributes(other)["sessionstore.tenant_hash"] == telemetry.hashed("other") != telemetry.hashed("acme")
    expected: dict[str, Any] = {"db.system.name": url.get_backend_name(), "db.operation.name": "exists"}
    if url.get_backend_name() == "postgresql":
        expected |= {"db.namespace": url.database, "server.address": url.host, "server.port": url.port}
    assert found == expected
    assert (ours.kind, ours.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)


async def test_what_a_failed_one_says(database_url: str, told: Told) -> None:
    """P11: the class of the error, and not a word of it; bad arguments are failures too."""
    async with SessionRepository.connect(database_url) as sessions:
        with pytest.raises(SessionNotFoundError):
            await sessions.append("no such session", SAY)
        with pytest.raises(SessionStoreError):
            await sessions.append("", SAY)
    for span, error in zip(told.spans, ("SessionNotFoundError", "InvalidArgumentError"), strict=True):
        assert attributes(span)["error.type"] == error
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
        assert span.events == ()


async def test_a_span_belongs_to_who_called(database_url: str, told: Told) -> None:
    """Under concurrency too: each is a child of its caller's, and nobody else's."""

    async def request(sessions: SessionRepository, number: int) -> None:
        with told.mine.start_as_current_span(f"request {number}") as mine:
            await sessions.append(f"s{number}", SAY, create=True)
            await asyncio.gather(sessions.length(f"s{number}"), sessions.get(f"s{number}"))
            assert trace.get_current_span() is mine

    async with SessionRepository.connect(database_url) as sessions:
        await asyncio.gather(*(request(sessions, number) for number in range(20)))
    assert Tally(told.names) == {"append": 20, "length": 20, "get": 20}
    by_parent = Tally(span.parent.span_id for span in told.spans if span.parent is not None)
    assert set(by_parent.values()) == {3}
    assert len(by_parent) == 20


async def test_within_a_transaction(shared_url: str, told: Told) -> None:
    """A transaction of the caller's makes no difference."""
    engine = callers_engine(shared_url)
    async with engine.begin() as connection:
        await SessionRepository(engine).within(connection).create("s")
    await engine.dispose()
    assert told.names == ["create"]


async def test_a_cancelled_call(shared_url: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: its span ends when it does, and the caller's is current again."""
    async with SessionRepository.connect(shared_url) as sessions, foreign(shared_url, monkeypatch) as somebody:
        await sessions.create("s")
        await somebody.append("s", SAY)
        told.forget()

        async def request() -> None:
            with told.mine.start_as_current_span("request") as mine:
                try:
                    await sessions.append("s", SAY)
                finally:
                    assert trace.get_current_span() is mine

        task = asyncio.ensure_future(request())
        await somebody.waited_for(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await somebody.rollback()
    (span,) = told.spans
    assert attributes(span)["error.type"] == "CancelledError"
    assert span.status.status_code is StatusCode.ERROR


async def test_a_history_is_read_in_one_span(database_url: str, told: Told) -> None:
    """However many transactions; what the reader does between them is not part of it."""
    async with SessionRepository.connect(database_url) as sessions:
        await sessions.append("s", *[SAY] * 7, create=True)
        told.forget()
        with told.mine.start_as_current_span("request") as mine:
            async for _ in sessions.iter_messages("s", batch_size=2):
                assert trace.get_current_span() is mine
                await sessions.exists("s")
        assert told.names == ["exists"] * 7 + ["iter_messages"]
        assert {span.parent and span.parent.span_id for span in told.spans} == {mine.get_span_context().span_id}
        told.forget()
        messages: Any = sessions.iter_messages("s", batch_size=2)
        await anext(messages)
        assert told.names == []
        await messages.aclose()
    (left,) = told.spans
    assert left.status.status_code is StatusCode.UNSET


async def test_a_prune_is_one_span(database_url: str, told: Told) -> None:
    """However many transactions, which are counted."""
    async with SessionRepository.connect(database_url) as sessions:
        await fill(sessions, [f"s{number}" for number in range(7)])
        told.forget()
        assert (await sessions.prune(ONE, batch_size=2)).total == 6
        assert told.names == ["prune"]
        prunes = (str(Counter.PRUNE_BATCHES), frozenset({("db.operation.name", "prune")}))
        assert told.counts[prunes] == 3
        assert await sessions.delete_all() == 1
        assert told.names == ["prune", "delete_all"]
        assert told.counts[str(Counter.PRUNE_BATCHES), frozenset({("db.operation.name", "delete_all")})] == 1
        assert told.counts[prunes] == 3


async def test_a_prune_in_the_background(database_url: str, told: Told) -> None:
    """It has a span of its own, a child of the append that began it."""
    async with SessionRepository.connect(database_url) as sessions:
        await fill(sessions, ["a", "b"])
        told.forget()
        await sessions.append_and_prune("a", SAY, policy=ONE, throttle=PruneThrottle(0))
        await _in_the_background(sessions)
    append, prune = told.spans
    assert told.names == ["append_and_prune", "prune"]
    assert prune.parent == append.get_span_context()


# --- counters ---------------------------------------------------------------------------------------------------------


async def test_retries_by_cause(shared_url: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A try that failed and is made again counts once, by the class of its error."""
    points, on_postgres = Points(), shared_url.startswith("postgresql")
    (faults.on_postgres if on_postgres else faults.on_sqlite)(points, monkeypatch)
    act = faults._answered("40001") if on_postgres else raised(sqlite3.SQLITE_BUSY)
    async with SessionRepository.connect(shared_url) as sessions:
        await sessions.create("s")
        assert told.count(Counter.RETRIES) == 0
        for expected in (1, 2):
            points.arm(1, Fault("busy", act), 0.0)
            assert not await sessions.exists("nobody's")
            assert points.happened == expected
            assert told.count(Counter.RETRIES) == expected
    (facts,) = (facts for name, facts in told.counts if name == Counter.RETRIES)
    assert dict(facts) == {"error.type": "StoreBusyError", "db.system.name": make_url(shared_url).get_backend_name()}
    assert "exists" in told.names


async def test_timeouts(shared_url: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that did not end within its deadline counts once; other failures do not."""
    async with SessionRepository.connect(shared_url) as sessions:
        with pytest.raises(SessionNotFoundError):
            await sessions.get("s")
        assert told.count(Counter.TIMEOUTS) == 0

        async def late(*_: Any) -> Any:
            raise StoreTimeoutError

        monkeypatch.setattr(sessions._executor, "_attempt", late)
        with pytest.raises(StoreTimeoutError):
            await sessions.get("s")
    found = {name: dict(facts) for name, facts in told.counts}
    expected = {"db.operation.name": "get", "db.system.name": make_url(shared_url).get_backend_name()}
    assert found == {str(Counter.TIMEOUTS): expected}
    assert told.count(Counter.TIMEOUTS) == 1


async def test_appends_that_leave_together(postgres_database: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that waited behind one are counted, and the statement they left in; the one that ran alone is not."""
    url = postgres_database
    async with SessionRepository.connect(url) as sessions, foreign(url, monkeypatch) as somebody:
        await sessions.create("s")
        await somebody.append("s", SAY)
        first = asyncio.ensure_future(sessions.append("s", SAY))
        await somebody.waited_for(first)
        others = [asyncio.ensure_future(sessions.append("s", SAY)) for _ in range(5)]
        lanes = sessions._executor._coalescer._lanes  # type: ignore[attr-defined]
        await until(lambda: sum(map(len, lanes.values())) == 5)
        await somebody.rollback()
        assert sorted(await asyncio.gather(first, *others)) == [[position] for position in range(6)]
    assert (told.count(Counter.COALESCED_GROUPS), told.count(Counter.COALESCED_APPENDS)) == (1, 5)
    assert told.names.count("append") == 6


# --- what is never told -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["connect", "engine"])
async def test_nothing_that_callers_wrote(database_url: str, way: str, told: Told, heard: Heard) -> None:  # noqa: F811
    """P11: no body, metadata, id, tenant or password is in a span or a metric, of no verb."""
    url = _with_password(database_url)
    async with opened(way, url) as sessions:
        await _everything(sessions, heard)
        ours = sessions.for_tenant(CANARY)
        for verb in SESSION_VERBS.values():
            with contextlib.suppress(SessionStoreError):
                await verb(ours, CANARY)
        await ours.delete_user(CANARY)
        await ours.claim(CANARY, cooldown_seconds=1)
    assert len(told.spans) > 2 * len(SESSION_VERBS) + len(WRITES) + len(REFUSED)
    assert CANARY not in told.text


def test_that_test_can_fail(told: Told) -> None:
    """P11: a canary in a name, an attribute, an error or a counter would be found."""
    with contextlib.suppress(ValueError), told.mine.start_as_current_span("a", attributes={"b": 1}):
        raise ValueError(CANARY)
    assert CANARY in told.text
    told.forget()
    assert CANARY not in told.text
    telemetry.count(Counter.RETRIES, error=CANARY)
    assert CANARY in told.text
