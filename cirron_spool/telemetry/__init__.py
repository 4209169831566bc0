"""Metrics and traces of flushes and receivers, in the forms of Prometheus and OpenTelemetry; each behind an extra."""
