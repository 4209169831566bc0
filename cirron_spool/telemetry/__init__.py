"""Metrics for Prometheus, and spans and metrics for OpenTelemetry.

Each library comes with an extra, and is imported at its use.
"""
