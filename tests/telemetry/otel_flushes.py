"""Flushes under the real SDK of OpenTelemetry, with exporters in memory. Prints what they hold as JSON.

A process of its own: the providers are global, and a flush looks for them among the imported modules.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from pathlib import Path

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from cirron_spool import CirronSpoolError, flush_spool


async def flush(url: str, spool: str, token: str | None) -> None:
    """One flush within a span of the application."""
    with trace.get_tracer("application").start_as_current_span("training"), suppress(CirronSpoolError):
        await flush_spool(spool, api_url=url, token=token, retries=1, verify=False)


def main(url: str, *spools: str) -> None:
    """Flush each spool; the last one without a token."""
    reader, exporter = InMemoryMetricReader(), InMemorySpanExporter()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracing)
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    for spool in spools:
        asyncio.run(flush(url, spool, "sk-otel-secret" if spool != spools[-1] else None))
    data = reader.get_metrics_data()
    assert data is not None
    spans = exporter.get_finished_spans()
    parents = {span.context.span_id: span.name for span in spans if span.context is not None}
    print(
        json.dumps(
            {
                "metrics": json.loads(data.to_json()),
                "spans": [
                    {
                        **json.loads(span.to_json()),
                        "parent": parents[span.parent.span_id] if span.parent is not None else None,
                    }
                    for span in spans
                ],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
    assert Path(sys.argv[-1]).is_dir()
