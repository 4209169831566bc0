"""Metrics for Prometheus, and spans and metrics for OpenTelemetry.

Each one needs an extra, whose library is imported at its first use.
"""
