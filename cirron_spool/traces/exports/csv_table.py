"""One table as CSV, with a head; lines end with a line feed, and floats that are not finite are nan, inf and -inf."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import islice

from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.exports.tables import COLUMNS, table_rows

_ROWS_A_PIECE = 500


def csv_pieces(rows: Rows, table: str) -> Iterator[str]:
    """The table in pieces."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(column.name for column in COLUMNS[table])
    found = table_rows(rows, table)
    while portion := list(islice(found, _ROWS_A_PIECE)):
        writer.writerows(portion)
        yield text.getvalue()
        text.seek(0)
        text.truncate()
    yield text.getvalue()
