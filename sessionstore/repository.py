"""The sessions of one tenant: every verb, its arguments and its errors.

Any verb may raise StoreBusyError, StoreUnavailableError and StoreTimeoutError, which say whether it may have happened
all the same, and the other errors of a database that cannot do its part. Docstrings name what is the caller's own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from sessionstore import arguments, limits, retention, telemetry
from sessionstore.arguments import Align, check_policy, check_throttle, optional_count
from sessionstore.batch import Batch
from sessionstore.checks import check_count, check_id, check_seconds, check_user_id, mint_id
from sessionstore.codec import Json
from sessionstore.errors import InvalidArgumentError, SessionNotFoundError, VersionConflictError
from sessionstore.retention import PruneThrottle
from sessionstore.statements import mapping
from sessionstore.units import branching, listing, store, transcripts
from sessionstore.units import messages as message_units
from sessionstore.units import sessions as session_units
from sessionstore.values import (
    UNSET,
    AnyMessage,
    Lineage,
    Message,
    NewMessage,
    Page,
    PrunePolicy,
    PruneReport,
    Session,
    SessionSummary,
    Transcript,
    Unset,
)
from sessionstore.watch import Watching


@telemetry.told
class SessionRepository(Watching):
    """The sessions of one tenant: cheap to make, one for each request if you like.

    `SessionRepository(engine)` uses a caller's engine; `SessionRepository.connect(url)` has its own and is the fastest.
    """

    # --- sessions ---------------------------------------------------------------------------
    async def create(
        self,
        session_id: str | None = None,
        *,
        user_id: str = "",
        model: str = "",
        max_turns: int = 0,
        system_message: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Json] | None = None,
    ) -> Session:
        """Create a session; without an id it gets a UUIDv7. Over the cap the least recently accessed one is evicted.

        Raises:
            SessionExistsError: there is one of that id.
        """
        given = {"user_id": user_id, "model": model, "max_turns": max_turns}
        new = arguments.new_session(metadata, self.settings, **given, system_message=system_message, title=title)
        unit = session_units.create(
            self.tenant, arguments.given_or_minted(session_id), new, cap=self.settings.session_cap
        )
        return (await self._run(unit)).session

    async def open(
        self,
        session_id: str | None = None,
        *,
        user_id: str = "",
        model: str = "",
        max_turns: int = 0,
        system_message: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Json] | None = None,
    ) -> Session:
        """Get a session, or create it. Of one that exists nothing changes but its recency, and nobody is evicted.

        Raises:
            SessionOwnerError: it is another user's.
        """
        given = {"user_id": user_id, "model": model, "max_turns": max_turns}
        new = arguments.new_session(metadata, self.settings, **given, system_message=system_message, title=title)
        cap = self.settings.session_cap
        if session_id is None:
            return (await self._run(session_units.create(self.tenant, mint_id(), new, cap=cap))).session
        return (await self._run(session_units.open_(self.tenant, check_id(session_id), new, cap=cap))).session

    async def get(self, session_id: str, *, user_id: str | None = None) -> Session:
        """Read a session, without touching its recency.

        Raises:
            SessionNotFoundError: there is none, or it is another user's.
        """
        session = await self.find(session_id, user_id=user_id)
        if session is None:
            raise SessionNotFoundError(session_id)
        return session

    async def find(self, session_id: str, *, user_id: str | None = None) -> Session | None:
        """Read a session; None where there is none, or it is another user's."""
        allowed = None if user_id is None else {"", check_user_id(user_id)}
        session = await self._run(session_units.find(self.tenant, check_id(session_id)))
        if session is not None and allowed is not None and session.user_id not in allowed:
            return None
        return session

    async def exists(self, session_id: str) -> bool:
        """Whether there is a session of that id."""
        return await self._run(session_units.head(self.tenant, check_id(session_id))) is not None

    async def length(self, session_id: str) -> int:
        """How many messages are kept, at the same cost for any number.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        row = await self._run(session_units.head(self.tenant, check_id(session_id)))
        if row is None:
            raise SessionNotFoundError(session_id)
        return int(row[1] - row[0])

    async def update(
        self,
        session_id: str,
        *,
        user_id: str | Unset | None = UNSET,
        model: str | Unset | None = UNSET,
        max_turns: int | Unset | None = UNSET,
        system_message: str | Unset | None = UNSET,
        title: str | Unset | None = UNSET,
        summary: str | Unset | None = UNSET,
        active_seed_id: str | Unset | None = UNSET,
        active_persona_id: str | Unset | None = UNSET,
        expected_version: int | None = None,
    ) -> Session:
        """Change columns of a session; None clears one.

        Args:
            expected_version: change nothing unless this is the session's version.

        Raises:
            SessionNotFoundError: there is no such session.
            VersionConflictError: somebody else changed it first.
        """
        texts = {"system_message": system_message, "title": title, "summary": summary}
        active = {"active_seed_id": active_seed_id, "active_persona_id": active_persona_id}
        given = {"user_id": user_id, "model": model, "max_turns": max_turns, **texts, **active}
        changes = arguments.columns(given, self.settings)
        expected = optional_count(expected_version, "expected_version")
        return await self._run(session_units.change(self.tenant, check_id(session_id), changes, expected=expected))

    async def set_metadata(
        self,
        session_id: str,
        values: Mapping[str, Json],
        *,
        remove: Iterable[str] = (),
        expected_version: int | None = None,
    ) -> Session:
        """Set metadata keys to JSON values of at most 64 KiB, and remove others; the rest stays.

        Raises:
            SessionNotFoundError: there is no such session.
            VersionConflictError: somebody else changed it first.
        """
        encoded = arguments.metadata_values(values)
        keys = arguments.metadata_keys(remove, values)
        expected = optional_count(expected_version, "expected_version")
        session_id = check_id(session_id)
        unit = session_units.change(self.tenant, session_id, None, expected=expected, values=encoded, remove=keys)
        return await self._run(unit)

    async def reset(self, session_id: str) -> Session:
        """Empty history, summary and metadata; who and what the session is stays.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        return await self._run(session_units.reset(self.tenant, check_id(session_id)))

    async def delete(self, session_id: str) -> bool:
        """Delete a session with all that belongs to it; False if there is none."""
        return await self._run(session_units.delete(self.tenant, check_id(session_id)))

    async def delete_user(self, user_id: str) -> int:
        """Delete every session of a user, in bounded transactions; how many.

        Raises:
            InvalidArgumentError: the empty user id, which means nobody.
        """
        self._refuse_within("delete_user")
        return await retention.remove_user(self._run, self.tenant, check_id(user_id, "user_id"))

    async def delete_all(self) -> int:
        """Delete every session of this tenant, in bounded transactions; how many."""
        self._refuse_within("delete_all")
        return await retention.remove_tenant(self._run, self.tenant)

    # --- messages ---------------------------------------------------------------------------
    async def append(
        self,
        session_id: str,
        *messages: Mapping[str, Any] | NewMessage,
        expected_length: int | None = None,
        create: bool = False,
    ) -> list[int]:
        """Add messages at the head of a session, all or none; returns their positions.

        Positions are dense and in argument order; a reader sees all of them or none. Safe to retry with the same ids.
        One statement on PostgreSQL, one commit shared with concurrent appends on SQLite, however many messages.

        Args:
            expected_length: fail instead of appending if another writer came first.
            create: create the session if it is missing, in the same transaction.

        Raises:
            SessionNotFoundError: there is no such session.
            InvalidMessageError: a message is not acceptable; none is stored.
            MessageIdConflictError: an id is stored with another body.
            VersionConflictError: the session has not the expected length.
        """
        append = message_units.Append(
            self.tenant,
            check_id(session_id),
            Batch.of(messages, self.settings),
            expected=optional_count(expected_length, "expected_length"),
            create=create,
            cap=self.settings.session_cap,
        )
        return (await self._run(append.unit())).positions

    async def messages(
        self,
        session_id: str,
        *,
        last: int | None = None,
        first: int | None = None,
        after: int | None = None,
        before: int | None = None,
        roles: Iterable[str] | None = None,
        align: Align = "message",
    ) -> list[Message]:
        """Read messages in order: all, or a window of them.

        Args:
            last: the newest so many, after the other conditions.
            first: the oldest so many, after the other conditions.
            after: only positions greater than this.
            before: only positions less than this.
            roles: only messages of these roles.
            align: `"turn"` lets the last messages begin at a user message, up to 1,000 further back, so that a tool
                result is never separated from its call.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        wanted = arguments.window(last=last, first=first, after=after, before=before, roles=roles, align=align)
        session_id = check_id(session_id)
        return mapping.messages(session_id, await self._run(message_units.read(self.tenant, session_id, wanted)))

    async def messages_json(
        self,
        session_id: str,
        *,
        last: int | None = None,
        first: int | None = None,
        after: int | None = None,
        before: int | None = None,
        roles: Iterable[str] | None = None,
        align: Align = "message",
    ) -> bytes:
        """Read the bodies as one JSON array, never decoded: the prefix of a model's next call. See `messages`."""
        wanted = arguments.window(last=last, first=first, after=after, before=before, roles=roles, align=align)
        rows = await self._run(message_units.read(self.tenant, check_id(session_id), wanted))
        return b"[%b]" % b",".join([row[2] for row in rows])

    async def iter_messages(self, session_id: str, *, batch_size: int = limits.ITER_BATCH) -> AsyncIterator[Message]:
        """Read a history of any length in order, a batch at a time, holding no transaction in between.

        Raises:
            SessionNotFoundError: there is no such session, or it was deleted on the way.
            VersionConflictError: the history was rewritten on the way; what was read is no longer so.
        """
        self._refuse_within("iter_messages")
        session_id = check_id(session_id)
        limit = check_count(batch_size, "batch_size", minimum=1, maximum=limits.CHUNK_ROWS)
        position, generation = -1, None
        while True:
            page = await self._run(message_units.page(self.tenant, session_id, after=position, limit=limit))
            if generation not in {None, page.generation}:
                facts = {"expected": generation or 0, "actual": page.generation}
                raise VersionConflictError(session_id, what="generation", **facts)
            for message in mapping.messages(session_id, page.rows):
                yield message
            if len(page.rows) < limit:
                return
            position, generation = page.rows[-1][0], page.generation

    async def replace_messages(
        self, session_id: str, messages: Iterable[AnyMessage], *, expected_version: int | None = None
    ) -> Session:
        """Put another history, of any length, in the place of the one there is; positions begin at 0 again.

        Raises:
            SessionNotFoundError: there is no such session.
            InvalidMessageError: a message is not acceptable; nothing changed.
            VersionConflictError: somebody else changed it first.
        """
        batch = Batch.of(messages, self.settings, whole=True)
        expected = optional_count(expected_version, "expected_version")
        return await self._run(message_units.replace(self.tenant, check_id(session_id), batch, expected=expected))

    async def compact(
        self,
        session_id: str,
        summary: Mapping[str, Any] | NewMessage,
        *,
        keep_last: int,
        expected_version: int | None = None,
    ) -> Session:
        """Replace the oldest messages by one summary message.

        The last `keep_last` messages stay, and those before them back to a user message. Where nothing would be
        replaced, nothing changes.

        Raises:
            SessionNotFoundError: there is no such session.
            InvalidMessageError: the summary is not acceptable.
            MessageIdConflictError: the summary's id is one of a kept message.
            VersionConflictError: somebody else changed it first.
        """
        batch = Batch.of([summary], self.settings)
        keep = check_count(keep_last, "keep_last")
        expected = optional_count(expected_version, "expected_version")
        unit = message_units.compact(self.tenant, check_id(session_id), batch, keep=keep, expected=expected)
        return await self._run(unit)

    async def trim(self, session_id: str, keep_last: int, *, align: Align = "message") -> int:
        """Drop the oldest messages; how many are kept. `align="turn"` keeps back to a user message.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        keep, turn = check_count(keep_last, "keep_last"), arguments.checked_align(align)
        return await self._run(message_units.trim(self.tenant, check_id(session_id), keep, turn=turn))

    async def truncate(self, session_id: str, keep_first: int) -> int:
        """Drop the newest messages; how many are kept. The summary goes with them.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        keep = check_count(keep_first, "keep_first")
        return await self._run(message_units.truncate(self.tenant, check_id(session_id), keep))

    async def pop(self, session_id: str) -> Message | None:
        """Take the newest message away and return it; None from an empty session.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        return await self._run(message_units.pop(self.tenant, check_id(session_id)))

    # --- branching --------------------------------------------------------------------------
    async def fork(self, session_id: str, *, new_id: str | None = None, replace: bool = False) -> Session:
        """Copy a session with its history, columns, metadata and summary into a new one; returns that.

        Args:
            new_id: of the new session; a UUIDv7 by default.
            replace: overwrite the history of `new_id` if it exists; its lineage and creation time stay.

        Raises:
            SessionNotFoundError: there is no such session.
            SessionExistsError: there is one of the new id.
            InvalidArgumentError: a fork onto itself.
        """
        return await self._fork(session_id, None, new_id, replace=replace)

    async def fork_at(
        self, session_id: str, keep_first: int, *, new_id: str | None = None, replace: bool = False
    ) -> Session:
        """Copy the first `keep_first` kept messages into a new session; otherwise as `fork`."""
        return await self._fork(session_id, check_count(keep_first, "keep_first"), new_id, replace=replace)

    async def _fork(self, session_id: str, keep: int | None, new_id: str | None, *, replace: bool) -> Session:
        source, child = check_id(session_id), arguments.given_or_minted(new_id, "new_id")
        if source == child:
            raise InvalidArgumentError("a session cannot be forked onto itself")
        unit = branching.fork(self.tenant, source, child, keep=keep, replace=replace, cap=self.settings.session_cap)
        return (await self._run(unit)).session

    async def lineage(self, session_id: str) -> Lineage:
        """Where a session stands among its forks.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        return await self._run(branching.lineage(self.tenant, check_id(session_id)))

    # --- whole sessions ---------------------------------------------------------------------
    async def snapshot(self, session_id: str) -> Transcript:
        """Read a session and all its messages as of one moment.

        Raises:
            SessionNotFoundError: there is no such session.
        """
        read = await self._run(transcripts.snapshot(self.tenant, check_id(session_id)))
        return Transcript(read.session, tuple(mapping.messages(session_id, read.rows)), read.events)

    async def save(self, transcript: Transcript, *, expected_version: int | None = None) -> Session:
        """Make the stored session what a transcript says, or create it; writes only what differs.

        The transcript's times are kept exactly. A session saved after every turn writes only its new messages.

        Raises:
            InvalidMessageError: a message is not acceptable; nothing changed.
            VersionConflictError: somebody else changed it first.
            SessionNotFoundError: a version was expected of a session that does not exist.
        """
        expected = optional_count(expected_version, "expected_version")
        save = arguments.save(self.tenant, transcript, expected, self.settings)
        return (await self._run(save.unit())).session

    # --- many sessions ----------------------------------------------------------------------
    async def list_sessions(
        self,
        *,
        user_id: str | None = None,
        parent_id: str | None = None,
        metadata: Mapping[str, str | float | bool | None] | None = None,
        limit: int = limits.PAGE_DEFAULT,
        cursor: str | None = None,
    ) -> Page[SessionSummary]:
        """List sessions by update time, newest first, ties by id, without reading a message.

        Metadata conditions cost a probe for each session looked at; nothing else grows with the number of sessions.

        Args:
            parent_id: only its forks.
            metadata: only sessions whose metadata has these scalars.
            limit: sessions of a page; at most 1,000.
            cursor: of the page before.
        """
        wanted = listing.Listing(
            limit=min(check_count(limit, "limit"), limits.PAGE_MAX),
            user_id=None if user_id is None else check_user_id(user_id),
            parent_id=None if parent_id is None else check_id(parent_id, "parent_id"),
            metadata=arguments.metadata_filters(metadata),
            after=arguments.cursor_after(cursor),
        )
        listed = await self._run(listing.page(self.tenant, wanted))
        return Page(listed.rows, arguments.cursor_text(listed.after))

    async def prune(
        self, policy: PrunePolicy, *, batch_size: int = limits.PRUNE_BATCH, dry_run: bool = False
    ) -> PruneReport:
        """Delete old, idle and surplus sessions of this tenant, in bounded transactions.

        A session that is used while the prune runs survives. Interrupted, it is resumed by calling again.

        Args:
            batch_size: sessions of one transaction, 1 to 500.
            dry_run: only report what would go.
        """
        self._refuse_within("prune")
        check_policy(policy)
        size = check_count(batch_size, "batch_size", minimum=1, maximum=limits.PRUNE_BATCH)
        return await retention.prune(self._run, self.tenant, policy, batch_size=size, dry_run=dry_run)

    async def append_and_prune(
        self,
        session_id: str,
        *messages: Mapping[str, Any] | NewMessage,
        policy: PrunePolicy,
        throttle: PruneThrottle,
        expected_length: int | None = None,
    ) -> list[int]:
        """Append, and start a prune in the background if the throttle says it is time.

        A failing prune is logged, never raised. `aclose` waits for it up to 5 s. Otherwise as `append`.
        """
        self._refuse_within("append_and_prune")
        check_policy(policy)
        check_throttle(throttle)
        positions = await self.append(session_id, *messages, expected_length=expected_length)
        if throttle.ready():
            self._in_background(self.prune(policy), "a prune")
        return positions

    async def claim(self, job: str, *, cooldown_seconds: float) -> bool:
        """Whether this process may run a job now: of many, one may in each cooldown, by the database's clock."""
        seconds = min(check_seconds(cooldown_seconds, "cooldown_seconds"), limits.COOLDOWN_MAX_SECONDS)
        micros = int(seconds * 1_000_000)
        return await self._run(store.claim(self.tenant, check_id(job, "job"), cooldown_micros=micros))
