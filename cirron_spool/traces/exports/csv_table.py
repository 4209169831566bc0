"""One table as CSV with a header. Lines end with a line feed. Special floats are nan, inf and -inf."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice

from cirron_spool.traces.exports.rows import Rows
from cirron_spool.traces.exports.tables import COLUMNS, table_rows

_ROWS_A_PIECE = 500


def csv_pieces(rows: Rows, table: str) -> Iterator[str]:
    """The table in pieces."""
    lines = _Lines()
    writer = csv.writer(lines)
    writer.writerow(column.name for column in COLUMNS[table])
    found = table_rows(rows, table)
    while portion := list(islice(found, _ROWS_A_PIECE)):
        writer.writerows(portion)
        yield lines.take()
    yield lines.take()


class _Lines:
    """Converts the line ends of a writer from CR LF. With any other line end, Python before 3.13 quotes no lone CR."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        """Take a whole line."""
        self._lines.append(line.removesuffix("\r\n") + "\n")

    def take(self) -> str:
        """The lines since the last call."""
        text = "".join(self._lines)
        self._lines.clear()
        return text
