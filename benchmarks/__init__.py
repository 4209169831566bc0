"""Measurements of the project: see ``benchmarks/README.md``."""
