"""The error of the benchmarks, and the line of a child process that explains a failure."""

from __future__ import annotations

from cirron_spool.text import printable


class BenchmarkError(Exception):
    """A measurement is impossible, or its delivery was incomplete."""


def last_line(text: bytes) -> str:
    """The last line of ``text`` that is not blank: Python and Node name the error there."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return printable(lines[-1].strip()) if lines else "no message"
