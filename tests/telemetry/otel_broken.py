"""Two flushes in an application whose OpenTelemetry raises in one method; the second one has no spool."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, StaticSampler

from cirron_spool import CirronSpoolError, flush_spool


class Sampler(StaticSampler):
    """A sampler of the application."""


def fail(*_: Any, **__: Any) -> None:
    """Take the place of a method."""
    raise RuntimeError("broken")


def main(url: str, spool: str, broken: str) -> None:
    """Break the method with that name, and flush."""
    logging.basicConfig()
    processor, sampler, meters = SpanProcessor(), Sampler(ALWAYS_ON._decision), MeterProvider()
    owners: dict[str, object] = {
        "on_start": processor,
        "on_end": processor,
        "should_sample": sampler,
        "get_meter": meters,
        "add": Counter,
    }
    if broken:
        setattr(owners[broken], broken, fail)
    tracing = TracerProvider(sampler=sampler)
    tracing.add_span_processor(processor)
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(meters)
    result = asyncio.run(flush_spool(spool, api_url=url, token="sk-otel-secret", verify=False))
    try:
        asyncio.run(flush_spool(__file__))
    except CirronSpoolError as error:
        print(f"{result.uploaded} uploaded, then {type(error).__name__}")


if __name__ == "__main__":
    main(*sys.argv[1:])
