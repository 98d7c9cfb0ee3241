"""The hook of `sessionstore.telemetry` that tells OpenTelemetry. Loaded by `telemetry.enable()` and by nothing else.

Names of attributes are those of its semantic conventions for databases, where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
from opentelemetry.util.types import AttributeValue

from sessionstore.telemetry import Call, Counter

__all__ = ["OpenTelemetryHook"]

_SCOPE: Final = "sessionstore"
_SCHEMA: Final = "https://opentelemetry.io/schemas/1.33.0"
"""The version of the conventions in which those for databases became stable."""

_ATTRIBUTES: Final = {"error": "error.type", "database": "db.system.name", "verb": "db.operation.name"}
"""The facts of counters, by their names in the conventions."""

_COUNTERS: Final = {
    Counter.RETRIES: ("{try}", "Tries of calls that failed and were made again."),
    Counter.TIMEOUTS: ("{call}", "Calls that did not end within their deadline."),
    Counter.COALESCED_APPENDS: ("{append}", "Appends that left together with others."),
    Counter.COALESCED_GROUPS: ("{group}", "Statements in which several appends left together."),
    Counter.PRUNE_BATCHES: ("{batch}", "Transactions that deleted a batch of sessions."),
}


class OpenTelemetryHook:
    """Makes a span of each call, and counters."""

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        """Take the providers given, or those of the process."""
        about = _SCOPE, version("sessionstore")
        self._tracer = trace.get_tracer(*about, tracer_provider, _SCHEMA)
        meter = metrics.get_meter(*about, meter_provider, _SCHEMA)
        self._counters = {
            counter: meter.create_counter(counter.value, unit, description)
            for counter, (unit, description) in _COUNTERS.items()
        }

    def begin(self, call: Call) -> tuple[Span, object]:
        """Start the span; what the verb does becomes its child, unless the caller's code runs meanwhile."""
        span = self._tracer.start_span(f"{_SCOPE}.{call.verb}", kind=SpanKind.CLIENT, attributes=_attributes(call))
        return span, None if call.streams else context.attach(trace.set_span_in_context(span))

    def end(self, begun: tuple[Span, object], error: str | None) -> None:
        """End the span."""
        span, token = begun
        if token is not None:
            context.detach(token)  # type: ignore[arg-type]  # a token, which is opaque
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))  # no description: it would be the error's text
        span.end()

    def count(self, counter: Counter, number: int, facts: Mapping[str, str]) -> None:
        """Add to a counter."""
        self._counters[counter].add(number, {_ATTRIBUTES[name]: value for name, value in facts.items()})


def _attributes(call: Call) -> dict[str, AttributeValue]:
    known = {
        "db.system.name": call.database,
        "db.operation.name": call.verb,
        "db.namespace": "|".join(part for part in (call.name, call.schema) if part) or None,
        "server.address": call.address,
        "server.port": call.port,
        "sessionstore.tenant_hash": call.tenant,
    }
    return {name: value for name, value in known.items() if value is not None}
