"""The public names, their signatures and fields, written down: a change of any is a decision, and seen here."""

from __future__ import annotations

import dataclasses
import inspect
import pickle
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

import sessionstore
from sessionstore import (
    UNSET,
    CorruptBodyError,
    DocumentRepository,
    InvalidArgumentError,
    InvalidMessageError,
    Message,
    MessageIdConflictError,
    NewMessage,
    SchemaOutOfDateError,
    Session,
    SessionExistsError,
    SessionNotFoundError,
    SessionOwnerError,
    SessionRepository,
    SessionStoreError,
    StoreBusyError,
    StoreTimeoutError,
    StoreUnavailableError,
    Transcript,
    VersionConflictError,
)
from sessionstore.schema import SessionRow

NAMES = {
    *("SessionRepository", "DocumentRepository", "StoreSettings", "PruneThrottle", "PrunePolicy", "PruneReport"),
    *("Session", "SessionSummary", "Message", "NewMessage", "Transcript", "Page", "Lineage", "Json", "UNSET"),
    *("SessionStoreError", "SessionNotFoundError", "SessionExistsError", "SessionOwnerError", "VersionConflictError"),
    *("InvalidMessageError", "InvalidArgumentError", "MessageIdConflictError", "SchemaOutOfDateError"),
    *("CorruptBodyError", "CorruptStoreError", "StorageFullError", "ReadOnlyStoreError", "StoreClosedError"),
    *("StoreBusyError", "StoreUnavailableError", "StoreTimeoutError"),
    *("Change", "SessionEvent", "Subscription", "WatchLagError", "WatchLimitError"),
}

NEW = "user_id='', model='', max_turns=0, system_message=None, title=None, metadata=None"
WINDOW = "last=None, first=None, after=None, before=None, roles=None, align='message'"
COLUMNS = "user_id, model, max_turns, system_message, title, summary, active_seed_id, active_persona_id"
UNSET_COLUMNS = ", ".join(f"{name}=UNSET" for name in COLUMNS.split(", "))

HANDLE = {
    "__init__": "(engine, *, tenant='', settings=StoreSettings()) -> None",
    "connect": "(url, *, tenant='', settings=StoreSettings(), migrate=False) -> Self",
    "aclose": "async () -> None",
    "tenant": "property -> str",
    "settings": "property -> StoreSettings",
    "for_tenant": "(tenant) -> Self",
    "within": "(connection) -> Self",
}

SESSIONS = HANDLE | {
    "create": f"async (session_id=None, *, {NEW}) -> Session",
    "open": f"async (session_id=None, *, {NEW}) -> Session",
    "get": "async (session_id, *, user_id=None) -> Session",
    "find": "async (session_id, *, user_id=None) -> Session | None",
    "exists": "async (session_id) -> bool",
    "length": "async (session_id) -> int",
    "update": f"async (session_id, *, {UNSET_COLUMNS}, expected_version=None) -> Session",
    "set_metadata": "async (session_id, values, *, remove=(), expected_version=None) -> Session",
    "reset": "async (session_id) -> Session",
    "delete": "async (session_id) -> bool",
    "delete_user": "async (user_id) -> int",
    "delete_all": "async () -> int",
    "append": "async (session_id, *..., expected_length=None, create=False) -> list[int]",
    "messages": f"async (session_id, *, {WINDOW}) -> list[Message]",
    "messages_json": f"async (session_id, *, {WINDOW}) -> bytes",
    "iter_messages": "(session_id, *, batch_size=500) -> AsyncIterator[Message]",
    "replace_messages": "async (session_id, messages, *, expected_version=None) -> Session",
    "compact": "async (session_id, summary, *, keep_last, expected_version=None) -> Session",
    "trim": "async (session_id, keep_last, *, align='message') -> int",
    "truncate": "async (session_id, keep_first) -> int",
    "pop": "async (session_id) -> Message | None",
    "fork": "async (session_id, *, new_id=None, replace=False) -> Session",
    "fork_at": "async (session_id, keep_first, *, new_id=None, replace=False) -> Session",
    "lineage": "async (session_id) -> Lineage",
    "snapshot": "async (session_id) -> Transcript",
    "save": "async (transcript, *, expected_version=None) -> Session",
    "list_sessions": (
        "async (*, user_id=None, parent_id=None, metadata=None, limit=50, cursor=None) -> Page[SessionSummary]"
    ),
    "prune": "async (policy, *, batch_size=500, dry_run=False) -> PruneReport",
    "append_and_prune": "async (session_id, *..., policy, throttle, expected_length=None) -> list[int]",
    "record_event": "async (session_id, kind, *, payload=None) -> int",
    "events": "async (session_id, *, after=None, limit=1000) -> list[SessionEvent]",
    "watch": "(session_id=None, *, after=None) -> AsyncIterator[Change]",
    "subscribe": "(session_id, callback) -> Subscription",
    "subscribers": "(session_id) -> list[Callback]",
    "subscriber_count": "(session_id) -> int",
    "claim": "async (job, *, cooldown_seconds) -> bool",
}

DOCUMENTS = HANDLE | {
    "save_markdown": "async (category, name, *, text) -> None",
    "find_markdown": "async (category, name) -> str | None",
    "save_json": "async (category, name, *, value) -> None",
    "find_json": "async (category, name) -> Json | None",
    "list_category": "async (category) -> list[str]",
    "delete": "async (category, name) -> bool",
}

FIELDS: dict[str, dict[str, Any]] = {
    "StoreSettings": {
        "operation_timeout_seconds": 15.0,
        "durability": "full",
        "schema": None,
        "row_level_security": False,
        "session_cap": None,
        "max_body_bytes": 16 * 1024 * 1024,
        "max_call_bytes": 64 * 1024 * 1024,
        "max_batch": 10_000,
        "max_depth": 200,
        "max_watchers": 10_000,
        "event_log_dir": None,
    },
    "SessionSummary": dict.fromkeys(
        [
            *("id", "user_id", "title", "parent_id", "message_count", "active_seed_id", "project_id"),
            *("created_at", "updated_at"),
        ],
        ...,
    ),
    "NewMessage": {"body": ..., "role": None, "message_id": None, "created_at": None},
    "Transcript": {"session": ..., "messages": (), "events": ()},
    "Change": dict.fromkeys(["session_id", "kind", "generation", "messages", "event", "cursor"], ...),
    "SessionEvent": dict.fromkeys(
        [
            *("session_id", "number", "kind", "generation", "first_position", "next_position"),
            "created_at",
        ],
        ...,
    )
    | {"payload": None},
    "Page": {"rows": ..., "cursor": None},
    "Lineage": {"parent_id": ..., "child_ids": ..., "root_id": ...},
    "PrunePolicy": {"max_age": timedelta(days=7), "max_sessions": 100, "max_idle": None, "per_user": False},
    "PruneReport": {"by_age": 0, "by_number": 0, "by_idle": 0, "session_ids": ()},
}
"""The fields of the values in order, with their defaults; `...` where there is none."""


def written(kind: type, name: str) -> str:
    """A member of a class as one line: how it is called, with names, kinds and defaults, and what it gives."""
    member = inspect.getattr_static(kind, name)
    if isinstance(member, property):
        assert member.fset is None, f"{name} can be set"
        return f"property -> {member.fget.__annotations__['return']}"
    signature = inspect.signature(getattr(kind, name))
    parameters: list[str] = []
    starred = False
    for parameter in signature.parameters.values():
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            parameters.append("*...")
            starred = True
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parameters.append("*")
            starred = True
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        parameters.append(parameter.name + default)
    awaited = "async " if inspect.iscoroutinefunction(member) else ""
    line = f"{awaited}({', '.join(parameters)}) -> {signature.return_annotation}"
    return line.replace(repr(sessionstore.StoreSettings()), "StoreSettings()")


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")} | {"__init__"}


def test_the_names() -> None:
    """The package gives the names of its API and no others."""
    assert set(sessionstore.__all__) == NAMES
    assert len(sessionstore.__all__) == len(NAMES)
    everything: dict[str, Any] = {}
    exec("from sessionstore import *", everything)  # noqa: S102
    assert set(everything) - {"__builtins__"} == NAMES


@pytest.mark.parametrize("name", SESSIONS)
def test_verbs_of_sessions(name: str) -> None:
    """Their names, parameters, defaults and results."""
    assert written(SessionRepository, name) == SESSIONS[name]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_verbs_of_documents(name: str) -> None:
    """The same constructors, and six verbs."""
    assert written(DocumentRepository, name) == DOCUMENTS[name]


def test_there_are_no_other_verbs() -> None:
    """What is not written down here is not there."""
    assert public(SessionRepository) == set(SESSIONS)
    assert public(DocumentRepository) == set(DOCUMENTS)


def test_repositories_are_context_managers() -> None:
    """`async with` opens and closes them."""
    for kind in (SessionRepository, DocumentRepository):
        assert inspect.iscoroutinefunction(kind.__aenter__)
        assert inspect.iscoroutinefunction(kind.__aexit__)


def test_at_most_two_positional_arguments() -> None:
    """Whatever follows is named."""
    for kind in (SessionRepository, DocumentRepository):
        for name in public(kind) - {"tenant", "settings"}:
            parameters = inspect.signature(getattr(kind, name)).parameters.values()
            positional = [
                each for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"
            ]
            assert len(positional) <= 2, name


def test_everything_public_is_documented() -> None:
    """Classes, functions, methods and properties."""
    for name in NAMES - {"Json", "UNSET"}:
        value = getattr(sessionstore, name)
        assert inspect.getdoc(value), name
        for member, found in inspect.getmembers(value):
            if not member.startswith("_") and (inspect.isroutine(found) or isinstance(found, property)):
                assert inspect.getdoc(found), f"{name}.{member}"


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_values(name: str) -> None:
    """In order, with defaults; frozen, slotted."""
    kind = getattr(sessionstore, name)
    found = {
        entry.name: ... if entry.default is dataclasses.MISSING else entry.default for entry in dataclasses.fields(kind)
    }
    assert list(found.items()) == list(FIELDS[name].items())
    assert kind.__dataclass_params__.frozen
    assert "__slots__" in vars(kind)
    assert "__dict__" not in dir(kind)


def test_a_session_has_the_columns_of_its_row() -> None:
    """All but tenant and bucket, and metadata beside them."""
    columns = [column.name for column in SessionRow.__table__.columns]
    found = [entry.name for entry in dataclasses.fields(Session)]
    assert found == [name for name in columns if name not in {"tenant_id", "activity_bucket"}] + ["metadata"]
    assert isinstance(vars(Session)["length"], property)
    assert "__slots__" in vars(Session)


def test_properties_of_values() -> None:
    """What is derived from the fields."""
    expected = {
        "PruneReport": {"total"},
        "Session": {"length", "cursor"},
        "Subscription": {"callback", "active", "cancel"},
        "Message": {"position", "role", "body", "body_json", "plain", "message_id", "created_at"},
        "Transcript": {
            *("derived_events", "exchange_count", "is_empty", "user_messages", "agent_responses"),
            *("of", "replace"),
        },
        "PruneThrottle": {"ready"},
    }
    for name, members in expected.items():
        kind = getattr(sessionstore, name)
        fields = {entry.name for entry in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
        assert {member for member in dir(kind) if not member.startswith("_")} - fields == members


NOW = datetime(2024, 5, 17, tzinfo=UTC)
ROW = (3, "user", b'{"role":"user","content":"a secret"}', True, "m", NOW)


def test_messages_are_values() -> None:
    """Equal by what they hold, hashable, pickled, and not changed by anybody."""
    message, other = Message("s", ROW), Message("s", list(ROW))
    assert (message.position, message.role, message.message_id, message.created_at) == (3, "user", "m", NOW)
    assert (message.body, message.body_json) == ({"role": "user", "content": "a secret"}, ROW[2])
    assert message == other == pickle.loads(pickle.dumps(message))  # noqa: S301
    assert hash(message) == hash(other)
    for name in ("position", "role", "body", "body_json", "message_id", "created_at", "new"):
        with pytest.raises(AttributeError):
            setattr(message, name, 1)


def test_values_show_no_content() -> None:
    """P11: no repr has a body, a metadata value or another text of the conversation."""
    secret = "a secret"  # noqa: S105
    texts: dict[str, Any] = {"system_message": secret, "title": secret, "summary": secret}
    transcript = Transcript.of("s", [{"role": "user", "content": secret}], metadata={"k": secret}, **texts)
    values = [transcript, transcript.session, *transcript.derived_events, Message("s", ROW)]
    values.append(NewMessage({"role": "user", "content": secret}))
    for value in values:
        assert secret not in repr(value), type(value)
        assert secret not in str(value), type(value)


def test_transcripts_are_built_and_changed() -> None:
    """`of` takes every column that a caller may set, `replace` gives a changed copy; others are refused."""
    columns: dict[str, Any] = {name: "x" for name in COLUMNS.split(", ") if name != "max_turns"}
    message = {"role": "user"}
    built = Transcript.of("s", [message, NewMessage(message)], max_turns=3, metadata={"k": 1}, **columns)
    assert (built.session.id, built.session.max_turns, built.session.length) == ("s", 3, 2)
    assert {name: getattr(built.session, name) for name in columns} == columns
    assert built.messages == (message, NewMessage(message))
    moment = datetime(2024, 5, 17, tzinfo=UTC)
    changed = built.replace(title="new", messages=[message], metadata={}, updated_at=moment)
    assert (changed.session.title, changed.session.length, changed.session.metadata) == ("new", 1, {})
    assert (changed.session.updated_at, changed.session.created_at) == (moment, built.session.created_at)
    assert (built.session.title, built.session.length, built.session.metadata) == ("x", 2, {"k": 1})
    for name in ("id", "tenant_id", "generation", "version", "length", "activity_bucket", "nonsense"):
        other: dict[str, Any] = {name: "x"}
        for refused in (built.replace, partial(Transcript.of, "s")):
            with pytest.raises(InvalidArgumentError, match=name):
                refused(**other)


# --- errors ---------------------------------------------------------------------------------------

FACTS: dict[type[SessionStoreError], tuple[dict[str, Any], dict[str, Any]]] = {
    SessionNotFoundError: ({"session_id": "s"}, {"session_id": "s"}),
    SessionExistsError: ({"session_id": "s"}, {"session_id": "s"}),
    SessionOwnerError: ({"session_id": "s"}, {"session_id": "s"}),
    VersionConflictError: ({"session_id": "s", "expected": 1, "actual": 2}, {"expected": 1, "actual": 2}),
    InvalidMessageError: ({"path": "$.x", "reason": "is bad"}, {"path": "$.x", "reason": "is bad"}),
    MessageIdConflictError: ({"session_id": "s", "message_id": "m"}, {"message_id": "m"}),
    SchemaOutOfDateError: (
        {"found": "0001", "expected": "0002", "command": "run this"},
        {"found": "0001", "expected": "0002", "command": "run this"},
    ),
    CorruptBodyError: ({"session_id": "s", "position": 3}, {"session_id": "s", "position": 3}),
}


def errors() -> list[type[SessionStoreError]]:
    found = (getattr(sessionstore, name) for name in sorted(NAMES) if name.endswith("Error"))
    return list(found)


def test_errors_are_one_family() -> None:
    """Two of them are ValueErrors as well; none is of another kind."""
    assert len(errors()) == 19
    for kind in errors():
        assert issubclass(kind, SessionStoreError)
        assert issubclass(kind, ValueError) is (kind in {InvalidMessageError, InvalidArgumentError})
        assert not issubclass(kind, OSError | LookupError)


@pytest.mark.parametrize("kind", FACTS)
def test_errors_carry_their_facts(kind: type[SessionStoreError]) -> None:
    """As attributes and in the text, also after a trip to another process."""
    given, facts = FACTS[kind]
    error = kind(**given)
    for found in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert type(found) is kind
        for name, value in facts.items():
            assert getattr(found, name) == value
            assert str(value) in str(found)


def test_errors_that_may_pass() -> None:
    """Three say whether to try again, and honestly whether it may have happened."""
    for kind in (StoreBusyError, StoreUnavailableError, StoreTimeoutError):
        error = kind("text", maybe_committed=True)
        assert (str(error), error.retryable, error.maybe_committed) == ("text", True, True)
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (str(copy), copy.retryable, copy.maybe_committed) == ("text", True, True)
        assert kind().maybe_committed is False
    assert [kind for kind in errors() if hasattr(kind, "retryable")] == [
        *(StoreBusyError, StoreTimeoutError, StoreUnavailableError)
    ]


def test_errors_have_a_text_of_their_own() -> None:
    """Also where nothing more is known than their kind."""
    for kind in set(errors()) - set(FACTS):
        assert len(str(kind())) > 10, kind


def test_what_is_unset() -> None:
    """It says so, and is not None."""
    assert repr(UNSET) == "UNSET"
    assert bool(UNSET)
