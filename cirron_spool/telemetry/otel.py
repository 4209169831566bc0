"""A span and metrics of each flush through the API of OpenTelemetry, if the application uses it.

The application's SDK exports them. This module exports nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
_LOGGER = logging.getLogger("cirron_spool")


class _Instruments(NamedTuple):
    batches: Counter
    uploaded: Counter
    sent: Counter
    retries: Counter
    duration: Histogram


@contextmanager
def _tolerated() -> Iterator[list[Exception]]:
    """Log an exception of the application's providers, processors and samplers, and add it to the list.

    Some SDK releases do not catch it. It must not end a flush, nor replace its result.
    """
    failures: list[Exception] = []
    try:
        yield failures
    except Exception as error:  # the application's code may raise anything
        failures.append(error)
        _LOGGER.warning("OpenTelemetry failed in this application. The flush continues.", exc_info=error)


class FlushTelemetry:
    """The span of one flush, and the metrics of its events."""

    def __init__(self, span: Span, instruments: _Instruments) -> None:
        self._span = span
        self._instruments = instruments
        self._has_failed = False

    def note(self, event: FlushEvent) -> None:
        """Count an event; Ended completes the span. After a failure no event is counted."""
        if not self._has_failed:
            with _tolerated() as failures:
                self._note(event)
            self._has_failed = bool(failures)

    def _note(self, event: FlushEvent) -> None:
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

    Within the block, the flush's span is the current one. An application that uses OpenTelemetry has already imported
    it, so this function imports nothing.
    """
    if not is_used():
        yield None
        return
    with ExitStack() as outer:
        telemetry: FlushTelemetry | None = None
        with _tolerated():
            span = outer.enter_context(_span_of(directory))
            telemetry = FlushTelemetry(span, _new_instruments())
        yield telemetry


@contextmanager
def _span_of(directory: Path) -> Iterator[Span]:
    """The span of a flush of ``directory``. An error at the end of the span does not replace that of the flush."""
    from opentelemetry import trace

    tracer = trace.get_tracer(_SCOPE, __version__)
    attributes = {"file.directory": str(directory).encode("utf-8", "replace").decode()}
    current = tracer.start_as_current_span("flush spool", attributes=attributes)
    span = current.__enter__()
    try:
        yield span
    except BaseException as error:
        with _tolerated():
            if isinstance(error, CirronSpoolError):
                span.set_attribute("error.type", type(error).__name__)
            current.__exit__(type(error), error, error.__traceback__)
        raise
    with _tolerated():
        current.__exit__(None, None, None)


def _new_instruments() -> _Instruments:
    from opentelemetry import metrics

    return _instruments(metrics.get_meter_provider())


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
    """``error.type`` of the semantic conventions: the status of the last failure, or a name of the exit code."""
    if result.failures and result.failures[-1].status is not None:
        return str(result.failures[-1].status)
    return {EXIT_AUTH: "authentication", EXIT_TEMPFAIL: "temporary"}.get(result.exit_code, "attention")
