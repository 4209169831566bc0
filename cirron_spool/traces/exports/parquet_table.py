"""One table as Parquet, through pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, Any

from cirron_spool.errors import ConfigError
from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.exports.tables import COLUMNS, table_rows

_ROWS_A_GROUP = 65_536
_PIECE_BYTES = 1 << 20


def load_pyarrow() -> tuple[Any, Any]:
    """Pyarrow and its module for Parquet. Raises ConfigError if it is not installed."""
    try:
        return import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"Parquet needs pyarrow ({error}). Install it: pip install 'cirron-spool[parquet]'."
        ) from None


def parquet_pieces(rows: Rows, table: str) -> Iterator[bytes]:
    """The table in pieces, through a temporary file. Raises ConfigError without pyarrow."""
    arrow, parquet = load_pyarrow()
    with TemporaryFile() as file:
        _write(arrow, parquet, rows, table, file)
        file.seek(0)
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _write(arrow: Any, parquet: Any, rows: Rows, table: str, file: IO[bytes]) -> None:
    types = {"text": arrow.string(), "whole": arrow.int64(), "float": arrow.float64()}
    schema = arrow.schema([(column.name, types[column.type]) for column in COLUMNS[table]])
    found = table_rows(rows, table)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        while portion := list(islice(found, _ROWS_A_GROUP)):
            columns = [
                arrow.array(values, field.type)
                for values, field in zip(zip(*portion, strict=True), schema, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
