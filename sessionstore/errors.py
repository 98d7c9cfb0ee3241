"""The errors of the store: one family, chosen by code or constraint name, never by message text.

No error carries a body, a metadata value, a password or a URL with one. Driver errors are replaced, not chained.
"""

from __future__ import annotations

from typing import Any


class SessionStoreError(Exception):
    """Something went wrong in the store; every error of this package is one."""

    def __init__(self, message: str | None = None, **facts: Any) -> None:
        """Keep the facts as attributes; the message defaults to the first line of the class's docstring."""
        self.message = message or (type(self).__doc__ or "").partition("\n")[0]
        self._facts = facts
        for name, value in facts.items():
            setattr(self, name, value)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive a trip through pickle, as errors of worker processes do."""
        return _rebuild, (type(self), self.message, self._facts)


def _rebuild(kind: type[SessionStoreError], message: str, facts: dict[str, Any]) -> SessionStoreError:
    error = kind.__new__(kind)
    SessionStoreError.__init__(error, message, **facts)
    return error


class SessionNotFoundError(SessionStoreError):
    """There is no session of that id (or it is another tenant's, or not that user's)."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(f"there is no session {session_id!r}", session_id=session_id)


class SessionExistsError(SessionStoreError):
    """A session of that id exists already."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} exists already", session_id=session_id)


class SessionOwnerError(SessionStoreError):
    """The session belongs to another user."""

    session_id: str

    def __init__(self, session_id: str) -> None:
        super().__init__(f"session {session_id!r} belongs to another user", session_id=session_id)


class VersionConflictError(SessionStoreError):
    """Somebody else changed the session first."""

    session_id: str
    expected: int
    actual: int

    def __init__(self, session_id: str, *, what: str = "version", expected: int, actual: int) -> None:
        super().__init__(
            f"session {session_id!r} has {what} {actual}, expected {expected}",
            session_id=session_id,
            expected=expected,
            actual=actual,
        )


class InvalidArgumentError(SessionStoreError, ValueError):
    """An argument is not acceptable; nothing was sent to the database."""


class InvalidMessageError(SessionStoreError, ValueError):
    """A message, metadata value or document is not acceptable; nothing was stored."""

    path: str
    reason: str
    index: int | None

    def __init__(self, path: str, reason: str, *, index: int | None = None) -> None:
        place = "" if index is None else f"message {index}: "
        super().__init__(f"{place}{path}: {reason}", path=path, reason=reason, index=index)


class MessageIdConflictError(SessionStoreError):
    """A message of that id is stored with another body."""

    session_id: str
    message_id: str

    def __init__(self, session_id: str, message_id: str) -> None:
        super().__init__(
            f"session {session_id!r} holds message id {message_id!r} with another body",
            session_id=session_id,
            message_id=message_id,
        )


class SchemaOutOfDateError(SessionStoreError):
    """The database's schema and this code do not fit together."""

    found: str | None
    expected: str
    command: str

    def __init__(self, *, found: str | None, expected: str, command: str) -> None:
        at = "has no sessionstore tables, or none that may be seen" if found is None else f"is at revision {found}"
        super().__init__(
            f"the database {at}, this code needs {expected}; run: {command}",
            found=found,
            expected=expected,
            command=command,
        )


class CorruptBodyError(SessionStoreError):
    """A stored body is no longer a JSON object."""

    session_id: str
    position: int

    def __init__(self, session_id: str, position: int) -> None:
        super().__init__(
            f"the body at position {position} of session {session_id!r} is not a JSON object",
            session_id=session_id,
            position=position,
        )


class CorruptStoreError(SessionStoreError):
    """The database is damaged, or holds something other than a store."""


class StorageFullError(SessionStoreError):
    """The database has no room left; nothing was stored. It goes on as soon as there is room."""


class ReadOnlyStoreError(SessionStoreError):
    """The database, its file or the role in use cannot write."""


class StoreClosedError(SessionStoreError):
    """The repository was closed."""


class WatchLagError(SessionStoreError):
    """A consumer did not take what it watches for, and too much of it was waiting.

    What waited is let go of. Nothing is lost: watching again after the cursor of the last change that was taken reads
    it from the database.
    """


class WatchLimitError(SessionStoreError):
    """More watchers than `StoreSettings.max_watchers` allows for one database in this process."""


class TransientStoreError(SessionStoreError):
    """Calling again may succeed. `maybe_committed` says whether the call may have happened all the same."""

    retryable: bool = True
    maybe_committed: bool = False

    def __init__(self, message: str | None = None, *, maybe_committed: bool = False) -> None:
        super().__init__(message, maybe_committed=maybe_committed)


class StoreBusyError(TransientStoreError):
    """The database or the session was locked by somebody else."""


class StoreUnavailableError(TransientStoreError):
    """The database could not be reached, or went away."""


class StoreTimeoutError(TransientStoreError):
    """The call did not end within its deadline."""
