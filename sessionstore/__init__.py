"""Conversations of AI agents in the SQL database that a team already runs: SQLite or PostgreSQL."""

from __future__ import annotations

from sessionstore.changes import Change
from sessionstore.codec import Json
from sessionstore.documents import DocumentRepository
from sessionstore.errors import (
    CorruptBodyError,
    CorruptStoreError,
    InvalidArgumentError,
    InvalidMessageError,
    MessageIdConflictError,
    ReadOnlyStoreError,
    SchemaOutOfDateError,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    SessionStoreError,
    StorageFullError,
    StoreBusyError,
    StoreClosedError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionConflictError,
    WatchLagError,
    WatchLimitError,
)
from sessionstore.repository import SessionRepository
from sessionstore.retention import PruneThrottle
from sessionstore.settings import StoreSettings
from sessionstore.subscriptions import Subscription
from sessionstore.values import (
    UNSET,
    Lineage,
    Message,
    NewMessage,
    Page,
    PrunePolicy,
    PruneReport,
    Session,
    SessionEvent,
    SessionSummary,
    Transcript,
)

__all__ = [
    "UNSET",
    "Change",
    "CorruptBodyError",
    "CorruptStoreError",
    "DocumentRepository",
    "InvalidArgumentError",
    "InvalidMessageError",
    "Json",
    "Lineage",
    "Message",
    "MessageIdConflictError",
    "NewMessage",
    "Page",
    "PrunePolicy",
    "PruneReport",
    "PruneThrottle",
    "ReadOnlyStoreError",
    "SchemaOutOfDateError",
    "Session",
    "SessionEvent",
    "SessionExistsError",
    "SessionNotFoundError",
    "SessionOwnerError",
    "SessionRepository",
    "SessionStoreError",
    "SessionSummary",
    "StorageFullError",
    "StoreBusyError",
    "StoreClosedError",
    "StoreSettings",
    "StoreTimeoutError",
    "StoreUnavailableError",
    "Subscription",
    "Transcript",
    "VersionConflictError",
    "WatchLagError",
    "WatchLimitError",
]
