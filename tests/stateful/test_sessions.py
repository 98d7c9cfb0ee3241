"""All verbs in any order, against a plain model in memory, on every database.

Each example works in a tenant of its own, in which after every step the session concerned is compared as a whole.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import itertools
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sessionstore import (
    InvalidArgumentError,
    MessageIdConflictError,
    NewMessage,
    PrunePolicy,
    Session,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    SessionRepository,
    StoreSettings,
    Transcript,
    VersionConflictError,
)
from tests.stateful.model import COLUMNS, Conflict, Conversation, Foreign, Missing, Model, Msg, Stale, Taken
from tests.support.invariants import assert_sound

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator

VERDICTS: dict[type[Exception], type[Exception]] = {
    Missing: SessionNotFoundError,
    Taken: SessionExistsError,
    Stale: VersionConflictError,
    Conflict: MessageIdConflictError,
    Foreign: SessionOwnerError,
}
BIRTH = datetime(2024, 1, 1, tzinfo=UTC)

KEYS = st.sampled_from(["a", "B", "é", "a/b"])
USERS = st.sampled_from(["", "ann", "bob"])
ROLES = st.sampled_from(["user", "assistant", "tool"])
MESSAGES = st.builds(Msg, st.integers(0, 3), ROLES, st.none() | st.sampled_from(["m1", "m2", "m3"]))
BATCHES = st.lists(MESSAGES, max_size=4, unique_by=lambda message: message.id or object())
TEXTS = st.sampled_from(["x", "y é"])
GIVEN = st.fixed_dictionaries({}, optional={"user_id": USERS, "model": TEXTS, "title": TEXTS})
CHANGES = st.fixed_dictionaries(
    {}, optional={name: st.none() | TEXTS for name in COLUMNS if name != "user_id"} | {"user_id": USERS}
)
METADATA = st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from([1, 1.0, None, [True], {"z": 1, "a": "\0"}]))
KEEPS = st.integers(0, 6)
EXPECTING = st.sampled_from(["nothing", "nothing", "right", "wrong"])
CAPS = st.sampled_from([None, None, 1, 2, 3])


@dataclass
class Store:
    """A database, and the one event loop in which everything happens."""

    url: str
    runner: asyncio.Runner
    repository: SessionRepository
    tenants: Iterator[int]


@dataclass
class Seen:
    """How a session was when it was last looked at."""

    model: Conversation
    real: Session


class Sessions(RuleBasedStateMachine):
    """One tenant, and what it should hold."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self.store = store
        self.model = Model()
        self.repository = store.repository.for_tenant(f"tenant-{next(store.tenants)}")
        self.concerned: set[str] = set()
        self.seen: dict[str, Seen] = {}

    # --- helpers ----------------------------------------------------------------------------

    def call(self, call: Awaitable[Any]) -> Any:
        async def waited() -> Any:
            return await call

        return self.store.runner.run(waited())

    def both(self, expected: Any, call: Awaitable[Any], *keys: str) -> None:
        """Ask the model, then the store: the same result, or the same verdict and nothing changed."""
        self.concerned |= set(keys)
        before = copy.deepcopy(self.model.sessions)
        try:
            wanted = expected()
        except tuple(VERDICTS) as verdict:
            self.model.sessions = before
            with pytest.raises(VERDICTS[type(verdict)]):
                self.call(call)
            return
        found = self.call(call)
        if isinstance(wanted, int | list | tuple):
            assert found == wanted

    def capped(self, cap: int | None) -> SessionRepository:
        capped = copy.copy(self.repository)
        capped._settings = StoreSettings(session_cap=cap)
        return capped

    def version(self, key: str, expecting: str) -> int | None:
        stored = self.model.sessions.get(key)
        current = 0 if stored is None else stored.version
        return {"nothing": None, "right": current, "wrong": current + 1}[expecting]

    # --- rules ------------------------------------------------------------------------------

    @rule(key=KEYS, columns=GIVEN, metadata=METADATA, cap=CAPS)
    def create(self, key: str, columns: dict[str, Any], metadata: dict[str, Any], cap: int | None) -> None:
        call = self.capped(cap).create(key, metadata=metadata, **columns)
        self.both(lambda: self.model.create(key, columns, metadata, cap), call, *self.model.sessions, key)

    @rule(key=KEYS, columns=GIVEN, metadata=METADATA, cap=CAPS)
    def open(self, key: str, columns: dict[str, Any], metadata: dict[str, Any], cap: int | None) -> None:
        call = self.capped(cap).open(key, metadata=metadata, **columns)
        self.both(lambda: self.model.open(key, columns, metadata, cap), call, *self.model.sessions, key)

    @rule(key=KEYS, columns=CHANGES, expecting=EXPECTING)
    def update(self, key: str, columns: dict[str, Any], expecting: str) -> None:
        version = self.version(key, expecting)
        call = self.repository.update(key, expected_version=version, **columns)
        self.both(lambda: self.model.update(key, columns, version), call, key)

    @rule(key=KEYS, values=METADATA, remove=st.sets(st.sampled_from(["k", "l"])), expecting=EXPECTING)
    def set_metadata(self, key: str, values: dict[str, Any], remove: set[str], expecting: str) -> None:
        version, gone = self.version(key, expecting), sorted(remove - values.keys())
        call = self.repository.set_metadata(key, values, remove=gone, expected_version=version)
        self.both(lambda: self.model.set_metadata(key, values, gone, version), call, key)

    @rule(key=KEYS)
    def reset(self, key: str) -> None:
        self.both(lambda: self.model.reset(key), self.repository.reset(key), key)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.both(lambda: self.model.delete(key), self.repository.delete(key), key)

    @rule(user=st.sampled_from(["ann", "bob"]))
    def delete_user(self, user: str) -> None:
        self.both(lambda: self.model.delete_user(user), self.repository.delete_user(user), *self.model.sessions)

    @rule(most=st.integers(2, 4))
    def prune(self, most: int) -> None:
        policy = PrunePolicy(max_age=None, max_sessions=most)

        async def total() -> int:
            return (await self.repository.prune(policy)).total

        self.both(lambda: self.model.prune(most), total(), *self.model.sessions)

    @rule(key=KEYS, messages=BATCHES, length=EXPECTING, create=st.booleans())
    def append(self, key: str, messages: list[Msg], length: str, create: bool) -> None:
        stored = self.model.sessions.get(key)
        current = 0 if stored is None else len(stored.history)
        expected = {"nothing": None, "right": current, "wrong": current + 1}[length]
        call = self.repository.append(key, *map(_given, messages), expected_length=expected, create=create)
        self.both(lambda: self.model.append(key, messages, expected, create=create), call, key)

    @rule(key=KEYS, last=KEEPS, turn=st.booleans())
    def read(self, key: str, last: int, turn: bool) -> None:
        async def positions() -> list[int]:
            messages = await self.repository.messages(key, last=last, align="turn" if turn else "message")
            return [message.position for message in messages]

        self.both(lambda: self.model.window(key, last, turn=turn), positions(), key)

    @rule(key=KEYS, keep=KEEPS, turn=st.booleans())
    def trim(self, key: str, keep: int, turn: bool) -> None:
        call = self.repository.trim(key, keep, align="turn" if turn else "message")
        self.both(lambda: self.model.trim(key, keep, turn=turn), call, key)

    @rule(key=KEYS, keep=KEEPS)
    def truncate(self, key: str, keep: int) -> None:
        self.both(lambda: self.model.truncate(key, keep), self.repository.truncate(key, keep), key)

    @rule(key=KEYS)
    def pop(self, key: str) -> None:
        async def number() -> tuple[int, ...]:
            taken = await self.repository.pop(key)
            return () if taken is None else (taken.body["n"],)

        def expected() -> tuple[int, ...]:
            taken = self.model.pop(key)
            return () if taken is None else (taken.n,)

        self.both(expected, number(), key)

    @rule(key=KEYS, messages=BATCHES, expecting=EXPECTING)
    def replace(self, key: str, messages: list[Msg], expecting: str) -> None:
        version = self.version(key, expecting)
        call = self.repository.replace_messages(key, map(_given, messages), expected_version=version)
        self.both(lambda: self.model.replace(key, messages, version), call, key)

    @rule(key=KEYS, summary=MESSAGES, keep=KEEPS, expecting=EXPECTING)
    def compact(self, key: str, summary: Msg, keep: int, expecting: str) -> None:
        version = self.version(key, expecting)
        call = self.repository.compact(key, _given(summary), keep_last=keep, expected_version=version)
        self.both(lambda: self.model.compact(key, summary, keep, version), call, key)

    @rule(key=KEYS, new=KEYS, keep=st.none() | KEEPS, over=st.booleans(), cap=CAPS)
    def fork(self, key: str, new: str, keep: int | None, over: bool, cap: int | None) -> None:
        repository = self.capped(cap)
        if keep is None:
            call = repository.fork(key, new_id=new, replace=over)
        else:
            call = repository.fork_at(key, keep, new_id=new, replace=over)
        if key == new:
            with pytest.raises(InvalidArgumentError):
                self.call(call)
            return
        self.both(lambda: self.model.fork(key, new, keep, over=over, cap=cap), call, *self.model.sessions, key, new)

    @rule(key=KEYS, messages=BATCHES, columns=GIVEN, metadata=METADATA, expecting=EXPECTING, second=st.integers(0, 3))
    def save(  # noqa: PLR0917 - called by name
        self,
        key: str,
        messages: list[Msg],
        columns: dict[str, Any],
        metadata: dict[str, Any],
        expecting: str,
        second: int,
    ) -> None:
        version, updated = self.version(key, expecting), BIRTH + timedelta(seconds=second)
        transcript = Transcript.of(key, map(_given, messages), metadata=metadata, updated_at=updated, **columns)
        saved = Conversation(history=list(messages), metadata=dict(metadata), changed=(0, second))
        saved.columns |= columns
        self.both(
            lambda: self.model.save(key, saved, version),
            self.repository.save(transcript, expected_version=version),
            key,
        )

    @rule(key=KEYS, more=BATCHES, drop=st.integers(0, 2), skip=st.integers(0, 2))
    def save_edited(self, key: str, more: list[Msg], drop: int, skip: int) -> None:
        """Load, drop some of the newest, add others, save: what a caller does after every turn."""
        if key not in self.model.sessions:
            return
        loaded = self.call(self.repository.snapshot(key))
        kept = loaded.messages[: len(loaded.messages) - drop]
        ids = {message.message_id for message in kept if message.message_id is not None}
        new = [message for message in more if message.id not in ids]
        saved = copy.deepcopy(self.model.sessions[key])
        saved.history = saved.history[: len(saved.history) - drop] + new if drop <= len(saved.history) else new
        if drop > len(loaded.messages):
            kept = ()
        if not kept and not new:  # an empty transcript continues at the head
            saved.first = self.model.sessions[key].next
        updated = self.seen[key].real.updated_at
        edited = loaded.replace(messages=(*kept, *map(_given, new)), updated_at=updated)
        self.both(lambda: self.model.save(key, saved, None), self.repository.save(edited), key)

    @rule(key=KEYS)
    def lineage(self, key: str) -> None:
        async def found() -> tuple[Any, ...]:
            lineage = await self.repository.lineage(key)
            return lineage.parent_id, lineage.child_ids, lineage.root_id

        self.both(lambda: self.model.lineage(key), found(), key)

    @rule(limit=st.integers(1, 3))
    def list_all(self, limit: int) -> None:
        rows, cursor = [], None
        while True:
            page = self.call(self.repository.list_sessions(limit=limit, cursor=cursor))
            rows += page.rows
            cursor = page.cursor
            if cursor is None:
                break
        order = sorted(self.model.sessions)
        order.sort(key=lambda key: self.model.sessions[key].changed, reverse=True)
        assert [row.id for row in rows] == order
        assert [row.message_count for row in rows] == [len(self.model.sessions[key].history) for key in order]

    # --- what must hold ---------------------------------------------------------------------

    @invariant()
    def concerned_are_equal(self) -> None:
        concerned, self.concerned = self.concerned, set()
        for key in sorted(concerned):
            wanted = self.model.sessions.get(key)
            assert self.call(self.repository.exists(key)) == (wanted is not None)
            if wanted is not None:
                self._compare(key, wanted, self.call(self.repository.snapshot(key)))

    def _compare(self, key: str, wanted: Conversation, found: Transcript) -> None:
        session = found.session
        assert [_of(message) for message in found.messages] == wanted.history
        assert [message.position for message in found.messages] == list(range(wanted.first, wanted.next))  # type: ignore[union-attr]
        assert (session.first_position, session.next_position) == (wanted.first, wanted.next)
        assert {name: getattr(session, name) for name in COLUMNS} == wanted.columns
        assert repr(session.metadata) == repr(dict(sorted(wanted.metadata.items())))
        assert session.version == wanted.version
        assert (session.parent_id, session.fork_position) == (wanted.parent, wanted.fork_position)
        if wanted.changed[0] == 0:
            assert session.updated_at == BIRTH + timedelta(seconds=wanted.changed[1])
        if key in self.seen:
            _compare_moves(self.seen[key], Seen(wanted, session))
        self.seen[key] = Seen(copy.deepcopy(wanted), session)


def _compare_moves(before: Seen, after: Seen) -> None:
    """Whether what should have moved since has moved forward, and the rest not at all."""
    moves = [
        (before.model.rewritten == after.model.rewritten, before.real.generation, after.real.generation),
        (before.model.touched == after.model.touched, before.real.last_accessed_at, after.real.last_accessed_at),
    ]
    if after.model.changed[0] == 1:
        moves.append((before.model.changed == after.model.changed, before.real.updated_at, after.real.updated_at))
    for same, old, new in moves:
        assert old == new if same else old < new  # type: ignore[operator]


def _given(message: Msg) -> Any:
    body = {"role": message.role, "n": message.n}
    return body if message.id is None else NewMessage(body, message_id=message.id)


def _of(message: Any) -> Msg:
    assert message.body["role"] == message.role
    return Msg(message.body["n"], message.role, message.message_id)


@contextmanager
def opened(url: str) -> Iterator[Store]:
    """A store that outlives the examples."""
    with asyncio.Runner() as runner:
        repository = SessionRepository.connect(url)
        runner.run(repository.__aenter__())
        try:
            yield Store(url, runner, repository, itertools.count())
        finally:
            runner.run(repository.aclose())


def test_any_order_of_verbs(database_url: str) -> None:
    """H16, H19, H22, H24, H26, F06, O12, O15, X05: every verb does to a session what the model says."""
    with opened(database_url) as store:
        profile = hypothesis.settings(
            hypothesis.settings.default,
            stateful_step_count=30,
            suppress_health_check=[hypothesis.HealthCheck.too_slow],
        )
        machine: Any = functools.partial(Sessions, store)
        run_state_machine_as_test(machine, settings=profile)
        store.runner.run(assert_sound(store.url, store.repository))
