"""A span and metrics of each flush through the API of OpenTelemetry, if the application uses it.

The application's SDK exports them. This module exports nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from cirron_spool import __version__
from cirron_spool.errors import EXIT_AUTH, EXIT_OK, EXIT_TEMPFAIL, CirronSpoolError
from cirron_spool.events import Ended, Failed, FlushEvent, FlushResult, Quarantined, Retrying, Uploaded

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter, Histogram, MeterProvider
    from opentelemetry.trace import Span

_SCOPE = "cirron_spool"


class _Instruments(NamedTuple):
    batches: Counter
    uploaded: Counter
    sent: Counter
    retries: Counter
    duration: Histogram


class FlushTelemetry:
    """The span of one flush, and the metrics of its events."""

    def __init__(self, span: Span, instruments: _Instruments) -> None:
        self._span = span
        self._instruments = instruments

    def note(self, event: FlushEvent) -> None:
        """Count an event; Ended completes the span."""
        instruments = self._instruments
        match event:
            case Uploaded():
                instruments.batches.add(1, {"cirron.spool.outcome": "uploaded"})
                instruments.uploaded.add(event.size)
                instruments.sent.add(event.sent)
            case Failed():
                instruments.batches.add(1, {"cirron.spool.outcome": "failed"})
                self._tell("cirron.spool.batch.failed", event.name, event.status)
            case Quarantined():
                instruments.batches.add(1, {"cirron.spool.outcome": "quarantined"})
                self._tell("cirron.spool.batch.quarantined", event.name, event.status)
            case Retrying():
                instruments.retries.add(1)
                self._tell("cirron.spool.batch.retry", event.name, event.status)
            case Ended():
                self._end(event.result)

    def _tell(self, what: str, name: str, status: int | None) -> None:
        known = {"http.response.status_code": status} if status is not None else {}
        self._span.add_event(what, {"file.name": name, **known})

    def _end(self, result: FlushResult) -> None:
        if result.evicted:
            self._instruments.batches.add(result.evicted, {"cirron.spool.outcome": "evicted"})
        attributes = _server(result.destination)
        if result.exit_code != EXIT_OK:
            attributes["error.type"] = _error_type(result)
        self._instruments.duration.record(result.seconds, attributes)
        self._span.set_attributes(
            {
                **attributes,
                "cirron.spool.exit_code": result.exit_code,
                "cirron.spool.batches.uploaded": result.uploaded,
                "cirron.spool.batches.failed": result.failed,
                "cirron.spool.batches.skipped": result.skipped,
                "cirron.spool.batches.quarantined": result.quarantined,
                "cirron.spool.batches.evicted": result.evicted,
                "cirron.spool.uploaded": result.bytes_read,
                "cirron.spool.sent": result.bytes_sent,
            }
        )
        if result.exit_code != EXIT_OK:
            from opentelemetry.trace import Status, StatusCode

            why = result.failures[-1].message if result.failures else f"exit code {result.exit_code}"
            self._span.set_status(Status(StatusCode.ERROR, why))


def is_used() -> bool:
    """Whether the application uses OpenTelemetry."""
    return "opentelemetry.trace" in sys.modules or "opentelemetry.metrics" in sys.modules


@contextmanager
def flush_telemetry(directory: Path) -> Iterator[FlushTelemetry | None]:
    """The telemetry of a flush of ``directory``; None without OpenTelemetry in the application.

    Its span is the current one within the block. An application that uses OpenTelemetry has imported it: nothing is
    imported for others.
    """
    if not is_used():
        yield None
        return
    from opentelemetry import metrics, trace

    tracer = trace.get_tracer(_SCOPE, __version__)
    attributes = {"file.directory": str(directory).encode("utf-8", "replace").decode()}
    with tracer.start_as_current_span("flush spool", attributes=attributes) as span:
        try:
            yield FlushTelemetry(span, _instruments(metrics.get_meter_provider()))
        except CirronSpoolError as error:
            span.set_attribute("error.type", type(error).__name__)
            raise


@lru_cache(maxsize=1)  # each instrument is made once
def _instruments(provider: MeterProvider) -> _Instruments:
    meter = provider.get_meter(_SCOPE, __version__)
    return _Instruments(
        batches=meter.create_counter(
            "cirron.spool.batches", "{batch}", "Batches, by the outcome of their upload."
        ),
        uploaded=meter.create_counter(
            "cirron.spool.uploaded", "By", "Bytes of the files of the uploaded batches."
        ),
        sent=meter.create_counter(
            "cirron.spool.sent", "By", "Bytes of the request bodies that carried the uploaded batches."
        ),
        retries=meter.create_counter(
            "cirron.spool.retries", "{retry}", "Attempts after the first one of a batch."
        ),
        duration=meter.create_histogram("cirron.spool.flush.duration", "s", "Duration of flushes."),
    )


def _server(destination: str) -> dict[str, str | int]:
    parts = urlsplit(destination)
    if not parts.hostname:
        return {}
    return {
        "server.address": parts.hostname,
        "server.port": parts.port or (443 if parts.scheme == "https" else 80),
    }


def _error_type(result: FlushResult) -> str:
    """The status of the last failure in the form of the semantic conventions, or a name of the exit code."""
    if result.failures and result.failures[-1].status is not None:
        return str(result.failures[-1].status)
    return {EXIT_AUTH: "authentication", EXIT_TEMPFAIL: "temporary"}.get(result.exit_code, "attention")
