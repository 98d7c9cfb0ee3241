"""Conversations of AI agents in the SQL database that a team already runs: SQLite or PostgreSQL."""

from __future__ import annotations

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
)
from sessionstore.repository import SessionRepository
from sessionstore.retention import PruneThrottle
from sessionstore.settings import StoreSettings
from sessionstore.values import (
    UNSET,
    Lineage,
    Message,
    NewMessage,
    Page,
    PrunePolicy,
    PruneReport,
    Session,
    SessionSummary,
    Transcript,
)

__all__ = [
    "UNSET",
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
    "Transcript",
    "VersionConflictError",
]
