"""What a store does, told as it happens: a span for each call of a verb, and a few counters, to one hook.

`enable()` tells it to OpenTelemetry, `install(hook)` to whatever else you have. Nothing is told that a caller wrote: of
ids only the tenant's hash, of an error only its class.

Without a hook nothing is here: the verbs are wrapped when one is installed, and unwrapped when it is taken away.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar, Token
from enum import StrEnum
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from sessionstore.errors import SessionStoreError, StoreTimeoutError
from sessionstore.limits import TENANT_HASH_BYTES, TENANT_HASHES

__all__ = ["Call", "Counter", "Hook", "enable", "hashed", "install"]

T = TypeVar("T")
_log: Final = logging.getLogger("sessionstore")


class Call(NamedTuple):
    """A call of a verb.

    Attributes:
        verb: the name of the method.
        database: `"postgresql"` or `"sqlite"`.
        tenant: a hash of the tenant, 12 hexadecimal digits.
        name: of the database on its server, as the URL has it; as `schema`, `address` and `port` None where there is
            none, as with a file.
        streams: the caller's own code runs between begin and end (`iter_messages`), so the span of the call must not
            become the parent of what happens meanwhile.
    """

    verb: str
    database: str
    tenant: str
    name: str | None = None
    schema: str | None = None
    address: str | None = None
    port: int | None = None
    streams: bool = False


class Counter(StrEnum):
    """What is counted; in brackets the facts that come with it."""

    RETRIES = "sessionstore.retries"
    """A try of a call failed and is made again (error: its class, database)."""
    TIMEOUTS = "sessionstore.timeouts"
    """A call ended with StoreTimeoutError (verb, database)."""
    COALESCED_APPENDS = "sessionstore.coalesced_appends"
    """Appends that left together with others, on PostgreSQL (none)."""
    COALESCED_GROUPS = "sessionstore.coalesced_groups"
    """The statements that they left in (none)."""
    PRUNE_BATCHES = "sessionstore.prune_batches"
    """A transaction of a verb that deletes many sessions (verb)."""


class Hook(Protocol):
    """Whoever wants to know. An error in it is logged once, and never reaches a caller of the store.

    `begin` and `end` are called by the task that called the verb, each `begin` followed by one `end`. All are called
    in an event loop, so they must not block; with several loops in several threads, at the same time.
    """

    def begin(self, call: Call) -> Any:
        """A call begins; whatever this returns is given back at its end."""

    def end(self, begun: Any, error: str | None) -> None:
        """It has ended, with an error of that class, or without. CancelledError is one."""

    def count(self, counter: Counter, number: int, facts: Mapping[str, str]) -> None:
        """Something has happened that often."""


class Caller(Protocol):
    """What has verbs."""

    def _described(self, verb: str) -> Call: ...


_hook: Hook | None = None
_failed = False

_verbs: Final[dict[type, dict[str, Callable[..., Any]]]] = {}
"""The verbs of each class as they were written."""

_inside: Final[ContextVar[bool]] = ContextVar("sessionstore_inside_a_verb", default=False)
"""Whether a verb is under way that is told already: some are made of others."""


def enable(*, tracer_provider: Any = None, meter_provider: Any = None) -> None:
    """Tell OpenTelemetry, from now on. Without providers, those that the process has set up.

    Raises:
        SessionStoreError: its API is not installed.
    """
    try:
        adapter = import_module("sessionstore.tracing")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise SessionStoreError('OpenTelemetry is not installed; run: pip install "sessionstore[otel]"') from None
    install(adapter.OpenTelemetryHook(tracer_provider, meter_provider))


def install(hook: Hook | None) -> None:
    """Tell a hook, from now on, and no other; None: nobody. Calls under way end with the hook they began with."""
    global _hook, _failed  # there is one, for the process
    _hook, _failed = hook, False
    for kind, verbs in _verbs.items():
        for verb, function in verbs.items():
            setattr(kind, verb, function if hook is None else _wrapped(verb, function))


def told(kind: type[T]) -> type[T]:
    """Class decorator: each public coroutine and asynchronous generator that the class defines is a verb."""
    _verbs[kind] = {
        name: function
        for name, function in vars(kind).items()
        if not name.startswith("_") and (inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function))
    }
    return kind


def count(counter: Counter, number: int = 1, **facts: str) -> None:
    """Tell that something has happened, if anybody wants to know."""
    if _hook is not None:
        try:
            _hook.count(counter, number, facts)
        except Exception as error:  # noqa: BLE001  # it must not become the caller's
            _note_failure("count", error)


def apart() -> None:
    """Begin work in a task of its own that nobody waits for: its verbs are told, although a verb has started it."""
    _inside.set(False)


@functools.lru_cache(maxsize=TENANT_HASHES)
def hashed(tenant: str) -> str:
    """A tenant as it is told: the same everywhere, and not its name."""
    return hashlib.blake2b(tenant.encode(), digest_size=TENANT_HASH_BYTES).hexdigest()


def _wrapped(verb: str, function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(self: Caller, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with _Telling(self, verb, streams=True):
                async with contextlib.aclosing(function(self, *args, **kwargs)) as items:
                    async for item in items:
                        yield item

        return stream

    @functools.wraps(function)
    async def call(self: Caller, *args: Any, **kwargs: Any) -> Any:
        if _inside.get():
            return await function(self, *args, **kwargs)
        with _Telling(self, verb):
            return await function(self, *args, **kwargs)

    return call


class _Telling:
    """Tells one call from its begin to its end."""

    __slots__ = ("_begun", "_call", "_hook", "_token")

    def __init__(self, caller: Caller, verb: str, *, streams: bool = False) -> None:
        self._call = caller._described(verb)._replace(streams=streams)  # noqa: SLF001  # of ours, made for this
        self._hook = _hook
        self._begun: Any = None
        self._token: Token[bool] | None = None

    def __enter__(self) -> None:
        if self._hook is not None:
            try:
                self._begun = self._hook.begin(self._call)
            except Exception as error:  # noqa: BLE001  # as in count
                _note_failure("begin", error)
                self._hook = None
        if not self._call.streams:
            self._token = _inside.set(True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._token is not None:
            with contextlib.suppress(ValueError):  # a coroutine that was thrown away ends in some other context
                _inside.reset(self._token)
        if isinstance(error, StoreTimeoutError):
            count(Counter.TIMEOUTS, verb=self._call.verb, database=self._call.database)
        if self._hook is not None:
            # Whoever leaves a stream early has what was wanted.
            failed = kind is not None and not (self._call.streams and kind is GeneratorExit)
            try:
                self._hook.end(self._begun, kind.__name__ if kind is not None and failed else None)
            except Exception as fault:  # noqa: BLE001  # as in count
                _note_failure("end", fault)


def _note_failure(method: str, error: Exception) -> None:
    global _failed  # noqa: PLW0603  # of the one hook
    if not _failed:
        _failed = True
        fields = {"event": "sessionstore.hook_failed", "method": method, "error": type(error).__name__}
        _log.warning("the telemetry hook failed in %s: %s", method, type(error).__name__, extra=fields)
