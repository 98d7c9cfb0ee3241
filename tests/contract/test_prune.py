"""Deleting whole sessions: by age, idleness and number, of a user, of a tenant."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sessionstore import InvalidArgumentError, PrunePolicy, PruneReport, SessionRepository, Transcript
from tests.contract._own import PAST, dump, fill, ids_of, meddle
from tests.support.repositories import micros, row_counts, rows, set_columns, talk

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


NOW = PAST + timedelta(days=100)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)
NOBODY = PrunePolicy(max_age=None, max_sessions=None)


class Clock:
    """The clock of this process, standing still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        return micros(self.now) * 1000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    stopped = Clock()
    monkeypatch.setattr(time, "time_ns", stopped)
    return stopped


# --- by age ---------------------------------------------------------------------------------------


async def test_strictly_older_goes(sessions: SessionRepository, clock: Clock) -> None:
    """O14: a microsecond older than the limit goes, exactly at it stays."""
    for name, age in {"exact": 7 * DAY, "older": 7 * DAY + TICK, "newer": 7 * DAY - TICK, "ancient": 90 * DAY}.items():
        await fill(sessions, [name], at=NOW - age)
    report = await sessions.prune(PrunePolicy(max_sessions=None))
    assert report == PruneReport(by_age=2)
    assert report.total == 2
    assert await ids_of(sessions) == ["exact", "newer"]
    clock.now += TICK
    assert (await sessions.prune(PrunePolicy(max_sessions=None))).by_age == 1
    assert await ids_of(sessions) == ["newer"]


async def test_none_deletes_nothing(sessions: SessionRepository) -> None:
    """O14, O15: each limit can be off, and all of them."""
    await fill(sessions, ["a", "b"], at=datetime.min.replace(tzinfo=PAST.tzinfo) + DAY)
    assert await sessions.prune(NOBODY) == PruneReport()
    assert await ids_of(sessions) == ["a", "b"]


@pytest.mark.parametrize("dry_run", [False, True])
async def test_huge_ages(sessions: SessionRepository, dry_run: bool) -> None:
    """O14: an age before the first year deletes nothing and does not overflow."""
    await fill(sessions, ["oldest"], at=datetime.min.replace(tzinfo=PAST.tzinfo) + TICK)
    await sessions.create("new")
    for age in (timedelta.max, timedelta(days=2024 * 366), timedelta(days=3_000_000)):
        policy = PrunePolicy(max_age=age, max_idle=age, max_sessions=None)
        assert await sessions.prune(policy, dry_run=dry_run) == PruneReport()
    assert await ids_of(sessions) == ["new", "oldest"]


async def test_tiny_ages(sessions: SessionRepository, clock: Clock) -> None:
    """O14: down to a microsecond."""
    await fill(sessions, ["a", "b", "c"], at=NOW - 2 * TICK, step=TICK)
    assert await sessions.prune(PrunePolicy(max_age=TICK, max_sessions=None)) == PruneReport(by_age=1)
    assert await ids_of(sessions) == ["b", "c"]


async def test_a_session_from_the_future_stays(sessions: SessionRepository) -> None:
    """O14: whoever wrote its time had another clock, or imported it."""
    await sessions.save(Transcript.of("s", updated_at=datetime(2999, 1, 1, tzinfo=PAST.tzinfo)))
    assert (await sessions.prune(PrunePolicy(max_age=TICK))).total == 0


# --- by idleness and by number --------------------------------------------------------------------


async def test_idleness_is_about_recency(sessions: SessionRepository, clock: Clock) -> None:
    """O17: max_idle looks at the last access, and only it does; strictly longer goes."""
    await fill(sessions, ["read lately", "exact", "idle"], at=NOW - 50 * DAY)
    for name, idle in {"read lately": TICK, "exact": DAY, "idle": DAY + TICK}.items():
        await set_columns(sessions, name, last_accessed_at=NOW - idle)
    policy = PrunePolicy(max_age=None, max_sessions=None, max_idle=DAY)
    assert await sessions.prune(policy) == PruneReport(by_idle=1)
    assert await ids_of(sessions) == ["exact", "read lately"]


async def test_the_newest_stay(sessions: SessionRepository) -> None:
    """O15: 5 sessions, max 3: 2 go, the newest three stay."""
    await fill(sessions, ["e", "d", "c", "b", "a"], step=timedelta(minutes=20))
    assert await sessions.prune(PrunePolicy(max_age=None, max_sessions=3)) == PruneReport(by_number=2)
    assert await ids_of(sessions) == ["a", "b", "c"]
    assert (await sessions.prune(PrunePolicy(max_age=None, max_sessions=3))).total == 0


async def test_recency_does_not_save_the_older_ones(sessions: SessionRepository, clock: Clock) -> None:
    """O17: by age and number, what was only opened before the prune goes all the same."""
    await fill(sessions, ["old", "older"], at=NOW - 20 * DAY)
    await fill(sessions, ["a", "b"], at=NOW - DAY, step=TICK)
    for name in ("old", "a"):
        await sessions.open(name)
    assert await sessions.prune(PrunePolicy(max_sessions=1)) == PruneReport(by_age=2, by_number=1)
    assert await ids_of(sessions) == ["b"]


async def test_the_greatest_id_goes_first(sessions: SessionRepository) -> None:
    """O16: where the update times are equal, compared bytewise."""
    await fill(sessions, ["a", "Z", "é", "b", "\U0001f600", "\uffff"])
    for kept in (["Z", "a", "b", "é", "\uffff"], ["Z", "a", "b"], ["Z"]):
        await sessions.prune(PrunePolicy(max_age=None, max_sessions=len(kept)))
        assert await ids_of(sessions) == kept


async def test_by_number_of_each_user(sessions: SessionRepository) -> None:
    """O15: per_user counts for every user apart, nobody being one of them."""
    for user in ("ann", "bob", ""):
        await fill(sessions, [f"{user}{at}" for at in range(3)], user_id=user, step=DAY)
    await fill(sessions, ["one"], user_id="carl")
    policy = PrunePolicy(max_age=None, max_sessions=2, per_user=True)
    assert (await sessions.prune(policy, dry_run=True)).session_ids == ("0", "ann0", "bob0")
    assert await sessions.prune(policy) == PruneReport(by_number=3)
    assert await ids_of(sessions) == ["1", "2", "ann1", "ann2", "bob1", "bob2", "one"]


async def test_age_then_idleness_then_number(sessions: SessionRepository, clock: Clock) -> None:
    """O16: each session counts once, where it goes first, and does not count towards what comes later."""
    await fill(sessions, ["old and idle"], at=NOW - 30 * DAY)
    await fill(sessions, [f"recent{at}" for at in range(4)], at=NOW - 3 * DAY, step=TICK)
    for name in ("recent1", "recent2", "recent3"):
        await set_columns(sessions, name, last_accessed_at=NOW)
    policy = PrunePolicy(max_age=7 * DAY, max_idle=DAY, max_sessions=2)
    dry = await sessions.prune(policy, dry_run=True)
    assert (dry.by_age, dry.by_idle, dry.by_number, dry.total) == (1, 1, 1, 3)
    assert sorted(dry.session_ids) == ["old and idle", "recent0", "recent1"]
    report = await sessions.prune(policy)
    assert report == PruneReport(by_age=1, by_idle=1, by_number=1)
    assert report.total == 3
    assert await ids_of(sessions) == ["recent2", "recent3"]


TENANTS = iter(range(10**9))


class Old(NamedTuple):
    """A session, by how many ticks ago it was changed and accessed."""

    id: str
    updated: int
    accessed: int
    user: str


POPULATIONS = st.lists(
    st.builds(
        Old, st.integers(0, 30).map("s{}".format), st.integers(0, 8), st.integers(0, 8), st.sampled_from(["", "u", "v"])
    ),
    unique_by=attrgetter("id"),
    max_size=12,
)
AGES = st.none() | st.integers(1, 8).map(TICK.__mul__)
POLICIES = st.builds(
    PrunePolicy, max_age=AGES, max_idle=AGES, max_sessions=st.none() | st.integers(1, 5), per_user=st.booleans()
)


def model(population: list[Old], policy: PrunePolicy) -> tuple[set[str], set[str], set[str]]:
    """What goes by age, by idleness and by number, in plain Python."""
    left = sorted(population, key=lambda old: (old.updated, old.id))
    by_age = {old.id for old in left if policy.max_age and old.updated * TICK > policy.max_age}
    left = [old for old in left if old.id not in by_age]
    by_idle = {old.id for old in left if policy.max_idle and old.accessed * TICK > policy.max_idle}
    left = [old for old in left if old.id not in by_idle]
    groups: dict[str, list[str]] = {}
    for old in left:
        groups.setdefault(old.user if policy.per_user else "", []).append(old.id)
    by_number = {name for group in groups.values() for name in group[policy.max_sessions :]}
    return by_age, by_idle, by_number if policy.max_sessions else set()


# Every example has a tenant of its own.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(population=POPULATIONS, policy=POLICIES, batch_size=st.integers(1, 4))
async def test_against_a_model(
    sessions: SessionRepository, clock: Clock, population: list[Old], policy: PrunePolicy, batch_size: int
) -> None:
    """O14, O15, O16, O17: any sessions, any policy, any batches; a dry run says exactly what will go."""
    mine = sessions.for_tenant(f"t{next(TENANTS)}")
    for old in population:
        await fill(mine, [old.id], at=NOW - old.updated * TICK, user_id=old.user)
        await set_columns(mine, old.id, last_accessed_at=NOW - old.accessed * TICK)
    gone = model(population, policy)
    by_age, by_idle, by_number = map(len, gone)
    report = PruneReport(by_age=by_age, by_idle=by_idle, by_number=by_number)
    dry = await mine.prune(policy, dry_run=True)
    assert replace(dry, session_ids=()) == report
    assert sorted(dry.session_ids) == sorted(frozenset[str]().union(*gone))
    assert len(await ids_of(mine)) == len(population)
    assert await mine.prune(policy, batch_size=batch_size) == report
    assert await ids_of(mine) == sorted({old.id for old in population}.difference(*gone))


# --- what goes and what stays ---------------------------------------------------------------------


async def test_nothing_is_left_of_what_was_pruned(sessions: SessionRepository) -> None:
    """X05, O14: no message, no metadata; a session that stays keeps all of its own."""
    for name in ("goes", "stays"):
        await sessions.create(name, metadata={"k": name})
        await sessions.append(name, *talk(3))
    kept = await sessions.snapshot("stays")
    await set_columns(sessions, "goes", updated_at=PAST, last_accessed_at=PAST)
    assert (await sessions.prune(PrunePolicy())).total == 1
    assert await row_counts(sessions) == {
        "sessionstore_sessions": 1,
        "sessionstore_messages": 3,
        "sessionstore_metadata": 1,
        "sessionstore_events": 1,
    }
    assert await sessions.snapshot("stays") == kept


async def test_a_dry_run_changes_nothing(sessions: SessionRepository) -> None:
    """O14: not a row, not a recency."""
    await fill(sessions, {"a": 2, "b": 0, "c": 1}, step=DAY)
    before = await dump(sessions)
    report = await sessions.prune(PrunePolicy(max_sessions=1), dry_run=True)
    assert set(report.session_ids) == {"a", "b", "c"}
    assert report.total == report.by_age == 3
    assert await dump(sessions) == before


async def test_only_this_tenant(sessions: SessionRepository) -> None:
    """X01: a prune, a delete_user and a delete_all count and delete in their own tenant only."""
    other = sessions.for_tenant("other")
    for handle in (sessions, other):
        await fill(handle, {"a": 2, "b": 1, "c": 0}, user_id="ann", step=DAY)
    theirs = [row for table in (await dump(other)).values() for row in table if row[0] == "other"]
    assert (await sessions.prune(PrunePolicy(max_age=None, max_sessions=2))).total == 1
    assert await sessions.delete_user("ann") == 2
    assert await sessions.delete_all() == 0
    assert [row for table in (await dump(other)).values() for row in table] == theirs
    assert await other.delete_all() == 3


@pytest.mark.parametrize("use", ["open", "append", "update", "trim", "fork"])
async def test_what_is_used_meanwhile_survives(sessions: SessionRepository, clock: Clock, use: str) -> None:
    """O17, P6: a session that is opened or changed after the prune began is spared, and not counted."""
    names = ["s1", "s2", "s3"]
    await fill(sessions, dict.fromkeys(names, 2), at=NOW - 20 * DAY, step=TICK)

    async def act(batch: int) -> None:
        if batch == 0:
            clock.now += TICK
            verbs: dict[str, Callable[[], Awaitable[Any]]] = {
                "open": lambda: sessions.open("s2"),
                "append": lambda: sessions.append("s2", {"role": "user"}),
                "update": lambda: sessions.update("s2", title="x"),
                "trim": lambda: sessions.trim("s2", 1),
                "fork": lambda: sessions.fork("s2", new_id="child"),
            }
            await verbs[use]()

    meddle(sessions, act)
    report = await sessions.prune(PrunePolicy(max_age=7 * DAY, max_idle=7 * DAY, max_sessions=1))
    assert report == PruneReport(by_age=2)
    assert set(await ids_of(sessions)) == {"s2"} | ({"child"} if use == "fork" else set())


async def test_what_is_created_meanwhile_survives(sessions: SessionRepository, clock: Clock) -> None:
    """P6: also where there are more new sessions than may stay."""
    await fill(sessions, ["a", "b", "c"], at=NOW - DAY, step=TICK)

    async def act(batch: int) -> None:
        if batch < 2:
            clock.now += TICK
            await sessions.create(f"new{batch}")

    meddle(sessions, act)
    await sessions.prune(PrunePolicy(max_age=None, max_sessions=1), batch_size=1)
    left = await ids_of(sessions)
    assert {"new0", "new1"} <= set(left)
    assert not {"a", "b"} & set(left)


async def test_prunes_at_once_count_what_they_deleted(sessions: SessionRepository) -> None:
    """O17: of several prunes each counts its own; together they counted every session once."""
    await fill(sessions, {f"s{at:03}": 1 for at in range(60)}, step=TICK)
    policy = PrunePolicy(max_age=None, max_sessions=7)
    reports = await asyncio.gather(*(sessions.prune(policy, batch_size=size) for size in (1, 2, 3, 500)))
    assert sum(report.by_number for report in reports) == 53
    assert sum(report.total for report in reports) == 53
    assert await ids_of(sessions) == [f"s{at:03}" for at in range(53, 60)]


# --- a user, a tenant -----------------------------------------------------------------------------


async def test_delete_user(sessions: SessionRepository) -> None:
    """X05, H15: every session of the user, also forks, with all that belongs to them; nobody else's."""
    for name, user in {"a1": "ann", "a2": "ann", "b1": "bob", "n1": "", "A1": "Ann"}.items():
        await sessions.create(name, user_id=user, metadata={"k": 1})
        await sessions.append(name, *talk(2))
    await sessions.fork("a1", new_id="a3")
    assert await sessions.delete_user("ann") == 3
    assert await ids_of(sessions) == ["A1", "b1", "n1"]
    assert await rows(sessions, "SELECT count(*) FROM sessionstore_metadata") == [(3,)]
    assert await sessions.delete_user("ann") == 0
    assert await sessions.delete_user("nobody there") == 0


async def test_delete_user_needs_a_user(sessions: SessionRepository) -> None:
    """H15: the empty user would be nobody, and so everybody's sessions without one; it is refused."""
    await sessions.create("s")
    for user in ("", None, 5, b"ann", " ", "a\x00"):
        with pytest.raises(InvalidArgumentError, match="user"):
            await sessions.delete_user(user)  # type: ignore[arg-type]
    assert await sessions.exists("s")


async def test_delete_all(sessions: SessionRepository) -> None:
    """H15, X05: not a row is left of them, and the store goes on."""
    await fill(sessions, {"a": 3, "b": 0})
    await sessions.create("c", user_id="ann", metadata={"k": 1})
    await sessions.fork("a", new_id="d")
    assert await sessions.delete_all() == 4
    assert set((await row_counts(sessions)).values()) == {0}
    assert await sessions.delete_all() == 0
    assert (await sessions.create("a")).length == 0


async def test_within_a_transaction_they_are_refused(joined: SessionRepository) -> None:
    """O14: they work in transactions of their own; nothing is deleted."""
    await joined.create("s", user_id="ann")
    calls = [joined.prune(PrunePolicy()), joined.prune(PrunePolicy(), dry_run=True)]
    for call in (*calls, joined.delete_all(), joined.delete_user("ann")):
        with pytest.raises(InvalidArgumentError, match="within"):
            await call
    assert await joined.exists("s")


# --- values ---------------------------------------------------------------------------------------


def test_the_default_policy() -> None:
    """O21: 7 days and 100 sessions."""
    policy = PrunePolicy()
    assert (policy.max_age, policy.max_sessions, policy.max_idle, policy.per_user) == (7 * DAY, 100, None, False)
    assert policy.max_age == timedelta(hours=168)


@pytest.mark.parametrize("name", ["max_age", "max_idle"])
@pytest.mark.parametrize("value", [timedelta(0), -TICK, timedelta.min, 7, 7.0, "7", True, 0])
def test_a_policy_refuses_ages(name: str, value: Any) -> None:
    """O14: 0, negative ones and what is no timedelta."""
    with pytest.raises(InvalidArgumentError, match=name):
        PrunePolicy(**{name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, "7", True, 2**63])
def test_a_policy_refuses_numbers(value: Any) -> None:
    """O15: 0 would delete everything."""
    with pytest.raises(InvalidArgumentError, match="max_sessions"):
        PrunePolicy(max_sessions=value)


async def test_a_prune_needs_a_policy(sessions: SessionRepository) -> None:
    """O15: nothing is assumed."""
    await fill(sessions, ["s"])
    for policy in (None, 7, {"max_sessions": 1}):
        with pytest.raises(InvalidArgumentError):
            await sessions.prune(policy)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="per_user"):
        PrunePolicy(per_user=1)  # type: ignore[arg-type]
    assert await sessions.exists("s")
