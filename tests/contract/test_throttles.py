"""How often something runs: the throttle of a process, the claim of many, and a prune in the background."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from sessionstore import (
    InvalidArgumentError,
    InvalidMessageError,
    PrunePolicy,
    PruneThrottle,
    SessionNotFoundError,
    SessionRepository,
    VersionConflictError,
)
from tests.contract._own import PAST, as_parameter, fill, ids_of
from tests.migrations.processes import ended, start
from tests.support.repositories import bodies, execute, micros, rows, talk

if TYPE_CHECKING:
    from sessionstore.units.unit import Unit

HOUR = timedelta(hours=1)
ONE = PrunePolicy(max_age=None, max_sessions=1)
ALWAYS = PruneThrottle(0)


# --- of one process -------------------------------------------------------------------------------


class Seconds:
    """A clock that is moved by hand, in the place of the module that has one."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    clock = Seconds()
    monkeypatch.setattr("sessionstore.retention.time", clock)
    return clock


def test_first_then_not_until_the_cooldown_is_over(seconds: Seconds) -> None:
    """O19: true, then false, then true again."""
    throttle = PruneThrottle(60)
    assert throttle.ready()
    assert not throttle.ready()
    seconds.now += 59.9
    assert not throttle.ready()
    seconds.now += 0.1
    assert throttle.ready()
    assert not throttle.ready()


def test_a_refusal_does_not_restart_the_wait(seconds: Seconds) -> None:
    """O19: however often it is asked, the wait ends a cooldown after the last true."""
    throttle = PruneThrottle(60)
    answers = []
    for _ in range(130):
        answers.append(throttle.ready())
        seconds.now += 1
    assert [at for at, ready in enumerate(answers) if ready] == [0, 60, 120]


def test_without_a_cooldown_it_is_always_time(seconds: Seconds) -> None:
    """O19: 0 lets everybody through."""
    for cooldown in (0, 0.0):
        throttle = PruneThrottle(cooldown)
        assert [throttle.ready() for _ in range(5)] == [True] * 5


def test_throttles_are_apart(seconds: Seconds) -> None:
    """O19: one does not know of another."""
    first, second = PruneThrottle(60), PruneThrottle(60)
    assert first.ready()
    assert second.ready()


def test_of_many_threads_one_gets_through() -> None:
    """O19: by the real clock, with all of them asking at once."""
    throttle = PruneThrottle(3600)
    together = threading.Barrier(16)
    answers: list[bool] = []

    def ask() -> None:
        together.wait()
        answers.extend(throttle.ready() for _ in range(100))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(answers), sum(answers)) == (1600, 1)


@pytest.mark.parametrize("cooldown", [-1, -0.1, float("nan"), float("inf"), True, "60", None, timedelta(1), 10**400])
def test_cooldowns_that_are_refused(cooldown: Any) -> None:
    """O19: negative ones, and what is no number of seconds."""
    with pytest.raises(InvalidArgumentError, match="cooldown_seconds"):
        PruneThrottle(cooldown)


# --- of many processes ----------------------------------------------------------------------------


async def ran_at(sessions: SessionRepository, job: str, moment: datetime) -> None:
    """Say when a job ran last."""
    parameters = {"job": job, "at": as_parameter(sessions, micros(moment))}
    await execute(sessions, "UPDATE sessionstore_maintenance SET last_run_at = :at WHERE job = :job", **parameters)


async def test_one_claim_a_cooldown(sessions: SessionRepository) -> None:
    """O20: the first wins, the next ones lose until it is over."""
    assert await sessions.claim("job", cooldown_seconds=3600) is True
    assert await sessions.claim("job", cooldown_seconds=3600) is False
    assert await sessions.claim("job", cooldown_seconds=3600) is False
    await ran_at(sessions, "job", datetime.now(UTC) - HOUR + timedelta(minutes=5))
    assert await sessions.claim("job", cooldown_seconds=3600) is False
    assert await sessions.claim("job", cooldown_seconds=1800) is True
    await ran_at(sessions, "job", datetime.now(UTC) - HOUR - timedelta(minutes=5))
    assert await sessions.claim("job", cooldown_seconds=3600) is True
    assert await rows(sessions, "SELECT count(*) FROM sessionstore_maintenance") == [(1,)]


async def test_a_lost_claim_does_not_restart_the_wait(sessions: SessionRepository) -> None:
    """O20: it writes nothing."""
    await sessions.claim("job", cooldown_seconds=0)
    await ran_at(sessions, "job", datetime.now(UTC) - HOUR)
    before = await rows(sessions, "SELECT * FROM sessionstore_maintenance")
    assert await sessions.claim("job", cooldown_seconds=7200) is False
    assert await rows(sessions, "SELECT * FROM sessionstore_maintenance") == before


async def test_jobs_and_tenants_are_apart(sessions: SessionRepository) -> None:
    """O20, X01: each has a cooldown of its own."""
    assert await sessions.claim("a", cooldown_seconds=3600)
    assert await sessions.claim("b", cooldown_seconds=3600)
    assert await sessions.for_tenant("other").claim("a", cooldown_seconds=3600)
    assert not await sessions.claim("a", cooldown_seconds=3600)


async def test_without_a_cooldown_everybody_wins(sessions: SessionRepository) -> None:
    """O20: as with the throttle of one process."""
    assert [await sessions.claim("job", cooldown_seconds=0) for _ in range(5)] == [True] * 5


async def test_the_clock_is_the_databases(sessions: SessionRepository, monkeypatch: pytest.MonkeyPatch) -> None:
    """O20: a process whose clock is a thousand years ahead does not win for that."""
    assert await sessions.claim("job", cooldown_seconds=3600)
    monkeypatch.setattr(time, "time_ns", lambda: 40_000_000_000 * 10**9)
    monkeypatch.setattr(time, "time", lambda: 40_000_000_000.0)
    assert not await sessions.claim("job", cooldown_seconds=3600)
    assert await sessions.claim("other job", cooldown_seconds=3600)
    monkeypatch.undo()
    assert not await sessions.claim("other job", cooldown_seconds=3600)


async def test_long_and_short_cooldowns(sessions: SessionRepository) -> None:
    """O20: a cooldown longer than history is only long, on every database; a fraction counts."""
    for seconds in (10**9, 10**12, 10**15, 1e300):
        job = str(seconds)
        assert await sessions.claim(job, cooldown_seconds=seconds) is True
        assert await sessions.claim(job, cooldown_seconds=seconds) is False
    await sessions.claim("job", cooldown_seconds=0)
    await ran_at(sessions, "job", datetime.now(UTC) + timedelta(hours=1))
    assert await sessions.claim("job", cooldown_seconds=0.5) is False


async def test_what_a_claim_refuses(sessions: SessionRepository) -> None:
    """O20: jobs that are no ids, cooldowns that are no seconds; nothing is noted."""
    for job in ("", " ", None, 7, "a\x00", "x" * 256):
        with pytest.raises(InvalidArgumentError, match="job"):
            await sessions.claim(job, cooldown_seconds=1)  # type: ignore[arg-type]
    for cooldown in (-1, -0.1, float("nan"), float("inf"), True, "1", None):
        with pytest.raises(InvalidArgumentError, match="cooldown_seconds"):
            await sessions.claim("job", cooldown_seconds=cooldown)  # type: ignore[arg-type]
    assert await rows(sessions, "SELECT count(*) FROM sessionstore_maintenance") == [(0,)]


async def test_of_many_tasks_one_wins(sessions: SessionRepository) -> None:
    """O20: all of them asking at once."""
    for job in ("a", "b", "c"):
        answers = await asyncio.gather(*(sessions.claim(job, cooldown_seconds=3600) for _ in range(20)))
        assert sum(answers) == 1


@pytest.mark.processes
async def test_of_many_processes_one_wins(lasting_url: str) -> None:
    """O20: each with a connection of its own."""
    processes = [await start("-m", "tests.contract._worker", "claim", lasting_url) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    answers = await asyncio.gather(*(ended(process, b"go\n") for process in processes))
    assert [answer.errors for answer in answers] == [""] * 4
    assert sorted(answer.output for answer in answers) == ["False\n", "False\n", "False\n", "True\n"]


# --- append_and_prune -----------------------------------------------------------------------------


async def settled(sessions: SessionRepository) -> None:
    """Wait for what runs in the background."""
    await asyncio.gather(*sessions._shared.tasks)


async def test_it_appends_and_prunes(sessions: SessionRepository) -> None:
    """O18: the positions are those of the append, and the session just used survives."""
    await fill(sessions, ["a", "b", "c"])
    assert await sessions.append_and_prune("a", *talk(2), policy=ONE, throttle=ALWAYS) == [0, 1]
    assert bodies(await sessions.messages("a")) == talk(2)
    await settled(sessions)
    assert await ids_of(sessions) == ["a"]


async def test_it_prunes_as_the_throttle_says(sessions: SessionRepository) -> None:
    """O18, O19: once a cooldown."""
    throttle = PruneThrottle(3600)
    await fill(sessions, ["a", "b"])
    await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=throttle)
    await settled(sessions)
    await fill(sessions, ["c", "d"])
    await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=throttle)
    await settled(sessions)
    assert await ids_of(sessions) == ["a", "c", "d"]


async def test_it_returns_after_the_append(sessions: SessionRepository) -> None:
    """O18: without waiting for the prune, which `aclose` waits for."""
    await fill(sessions, ["a", "b"])
    go = asyncio.Event()
    hold_back_prunes(sessions, go)
    assert await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=ALWAYS) == [0]
    assert await ids_of(sessions) == ["a", "b"]
    go.set()
    await settled(sessions)
    assert await ids_of(sessions) == ["a"]


def hold_back_prunes(sessions: SessionRepository, go: asyncio.Event) -> None:
    """Let no batch begin before the event."""
    run = sessions._run

    async def waiting(unit: Unit[Any]) -> Any:
        if unit.name == "remove_batch":
            await go.wait()
        return await run(unit)

    sessions._run = waiting  # type: ignore[method-assign]


async def test_a_failed_append_starts_no_prune(sessions: SessionRepository) -> None:
    """O18: nor does it use up the throttle."""
    await fill(sessions, ["a", "b"])
    throttle = PruneThrottle(3600)
    with pytest.raises(SessionNotFoundError):
        await sessions.append_and_prune("missing", {"role": "user"}, policy=ONE, throttle=throttle)
    with pytest.raises(InvalidMessageError):
        await sessions.append_and_prune("a", {"no": "role"}, policy=ONE, throttle=throttle)
    with pytest.raises(VersionConflictError):
        await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=throttle, expected_length=5)
    await settled(sessions)
    assert await ids_of(sessions) == ["a", "b"]
    assert throttle.ready()


async def test_a_bad_policy_or_throttle_is_refused_before_the_append(sessions: SessionRepository) -> None:
    """O18: a mistake of the caller's is no failing prune: it is raised, and nothing is stored."""
    await fill(sessions, ["a"])
    for policy, throttle in ((None, ALWAYS), ({"max_sessions": 1}, ALWAYS), (ONE, None), (ONE, 60)):
        with pytest.raises(InvalidArgumentError):
            await sessions.append_and_prune("a", {"role": "user"}, policy=policy, throttle=throttle)  # type: ignore[arg-type]
    assert await sessions.length("a") == 0


async def test_a_failing_prune_is_logged(database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """O18: once, without content; it is raised nowhere, and the append is stored."""
    secret = {"role": "user", "content": "a secret of the caller"}
    async with SessionRepository.connect(database_url) as sessions:
        await fill(sessions, ["a", "b"])
        await execute(sessions, "ALTER TABLE sessionstore_metadata RENAME TO hidden")
        with caplog.at_level(logging.DEBUG, logger="sessionstore"):
            assert await sessions.append_and_prune("a", secret, policy=ONE, throttle=ALWAYS) == [0]
            await settled(sessions)
        await execute(sessions, "ALTER TABLE hidden RENAME TO sessionstore_metadata")
        assert await ids_of(sessions) == ["a", "b"]
        assert bodies(await sessions.messages("a")) == [secret]
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name.split(".")[0] for record in errors] == ["sessionstore"]
    assert "prune" in errors[0].getMessage()
    assert "secret" not in caplog.text


async def test_aclose_waits_for_a_prune(lasting_url: str) -> None:
    """O18: what was begun is finished, also where another handle of the repository began it."""
    sessions = SessionRepository.connect(lasting_url)
    other = sessions.for_tenant("other")
    async with sessions:
        for handle in (sessions, other):
            await fill(handle, [f"s{at:03}" for at in range(200)], at=PAST)
            await handle.append_and_prune("s000", {"role": "user"}, policy=ONE, throttle=ALWAYS)
    async with SessionRepository.connect(lasting_url) as again:
        assert await ids_of(again) == ["s000"]
        assert await ids_of(again.for_tenant("other")) == ["s000"]


async def test_aclose_gives_up_on_a_prune_and_says_so(
    lasting_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """O18: a prune that takes longer than 5 s (here: less) is not lost silently at shutdown."""
    monkeypatch.setattr("sessionstore.handle.PRUNE_CLOSE_SECONDS", 0.01)
    async with SessionRepository.connect(lasting_url) as sessions:
        await fill(sessions, ["a", "b"])
        hold_back_prunes(sessions, asyncio.Event())
        await sessions.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=ALWAYS)
    await asyncio.sleep(0)
    gc.collect()  # a task that was forgotten would be reported now, and that fails the test
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sessionstore")]
    assert [line for line in lines if "prune" in line], lines
    async with SessionRepository.connect(lasting_url) as again:
        assert await ids_of(again) == ["a", "b"]


async def test_within_a_transaction_it_is_refused(joined: SessionRepository) -> None:
    """O18: before the append."""
    await joined.create("a")
    with pytest.raises(InvalidArgumentError, match="within"):
        await joined.append_and_prune("a", {"role": "user"}, policy=ONE, throttle=ALWAYS)
    assert await joined.length("a") == 0
