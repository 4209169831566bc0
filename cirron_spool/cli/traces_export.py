"""``traces export``: the records in the format of another tool."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from importlib import import_module

from cirron_spool.cli.console import Console, is_terminal
from cirron_spool.cli.output_file import write_file
from cirron_spool.errors import EXIT_OK, ConfigError
from cirron_spool.text import printable
from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.trace import Trace

# The module and the function of a format. The functions of tables also take the table's name.
_FORMATS = {
    "json": ("json_records", "json_pieces"),
    "otlp": ("otlp", "otlp_pieces"),
    "chrome": ("chrome", "chrome_pieces"),
    "csv": ("csv_table", "csv_pieces"),
    "parquet": ("parquet_table", "parquet_pieces"),
}
_OF_TABLES = ("csv", "parquet")


def export(trace: Trace, options: argparse.Namespace, console: Console) -> int:
    """Write the chosen sessions; return the exit code. Without a session the document has no record."""
    if options.table != "spans" and options.format not in _OF_TABLES:
        raise ConfigError(f"--table is for csv and parquet. {options.format} has all records: leave it out.")
    if options.format == "parquet" and options.output == "-" and is_terminal(sys.stdout):
        raise ConfigError("Parquet is binary, and a terminal shows only text. Pass --output FILE.")
    rows = Rows(trace, trace.choose(options.session, options.last))
    if options.output == "-":
        console.parts(_parts(rows, options))
        return EXIT_OK
    write_file(options.output, _parts(rows, options), option="--output")
    console.say(f"Wrote {printable(os.path.abspath(options.output))}.")
    return EXIT_OK


def _parts(rows: Rows, options: argparse.Namespace) -> Iterator[bytes]:
    module, function = _FORMATS[options.format]
    pieces = getattr(import_module(f"cirron_spool.traces.exports.{module}"), function)
    arguments = (rows, options.table) if options.format in _OF_TABLES else (rows,)
    for piece in pieces(*arguments):
        yield piece if isinstance(piece, bytes) else piece.encode()
