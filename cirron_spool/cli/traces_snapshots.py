"""``traces snapshots``: the statistics of tensors, as a table and as JSON."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from cirron_spool.cli.console import Console
from cirron_spool.cli.grid import grid
from cirron_spool.errors import EXIT_OK
from cirron_spool.text import count, iso_utc, printable, sparkline
from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.forms import document
from cirron_spool.traces.tensor import TensorSnapshot, read_tensor
from cirron_spool.traces.trace import Trace

_HEADS = ("Tensor", "Histogram", "Time", "Mean", "Std", "Min", "Max", "Norm", "Shape", "Type")
_SIDES = "<<<>>>>>" + "<<"
# Wider than a histogram: the columns of names are the ones to shorten.
_SHORTEST_NAME = 16


def show(trace: Trace, options: argparse.Namespace, console: Console) -> int:
    """Print the snapshots of the chosen sessions, oldest first; return the exit code."""
    rows = Rows(trace, trace.choose(options.session, options.last))
    found = [
        (rows.session(row.number).id, read_tensor(row))
        for row in rows.snapshots()
        if options.name is None or fnmatchcase(row.tensor_name, options.name)
    ]
    if options.json:
        forms = [{"session": session, **tensor.form()} for session, tensor in found]
        return console.end(EXIT_OK, document(trace, "snapshots", forms))
    console.data(_lines(trace, [tensor for _, tensor in found], console.columns))
    return EXIT_OK


def _lines(trace: Trace, tensors: Sequence[TensorSnapshot], columns: int) -> Iterator[str]:
    place = printable(str(trace.path))
    if not tensors:
        yield f"No snapshots found in {place}"
        return
    yield f"Spool: {place}  ({count(len(tensors), 'snapshot')})"
    yield from grid([_row(each) for each in tensors], _HEADS, _SIDES, columns, shortest=_SHORTEST_NAME)


def _row(tensor: TensorSnapshot) -> tuple[str, ...]:
    return (
        printable(tensor.name),
        sparkline(tensor.counts),
        iso_utc(tensor.ts_ns),
        *(f"{value:.6g}" if value is not None else "" for value in tensor.statistics.values()),
        "×".join(map(str, tensor.shape)),
        printable(tensor.dtype),
    )
