"""``inspect`` of several spools: a line for each, and totals."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator

from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.grid import grid
from cirron_spool.cli.places import find_spools, more_serious, no_spools
from cirron_spool.cli.render import Times, existence
from cirron_spool.cli.selection import entries_json, left_out_json, selection_of
from cirron_spool.errors import EXIT_OK, CirronSpoolError
from cirron_spool.offline import Inventory, inspect_spool
from cirron_spool.spool.quarantine import entries_if_readable
from cirron_spool.text import count, human_size, printable


class InspectMany:
    """The inventories of several spools, one after another, and their totals."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        self._selection = selection_of(options)
        self._paths = find_spools(options, console)
        self._times = Times()
        self._fault: Fault | None = None
        self._exit_code = EXIT_OK
        self._files = self._bytes = self._left_out = 0

    def run(self) -> int:
        """Print the inventories; return the exit code."""
        if self._options.json:
            self._console.data(self._json())
        elif not self._paths:
            self._console.line(no_spools(self._options))
        else:
            rows = [self._row(inventory, aside) for inventory, aside in self._inventories()]
            if rows:
                heads = ("Spool", "Batches", "Size", "Oldest", "Quarantine")
                self._console.data(grid(rows, heads, "<>><>", self._console.columns))
            files = f"{count(self._files, 'file')}, {human_size(self._bytes)}"
            self._console.line(f"Total: {files} in {count(len(rows), 'spool')}")
            if self._left_out:
                self._console.line(f"Left out by the selection: {count(self._left_out, 'file')}")
        return self._exit_code

    def _inventories(self) -> Iterator[tuple[Inventory, int]]:
        """Each inventory, and the number of batches in its quarantine."""
        for path in self._paths:
            try:
                inventory = inspect_spool(path, selection=self._selection)
            except CirronSpoolError as error:
                self._exit_code = more_serious(self._exit_code, error.exit_code)
                self._fault = self._fault or Fault.of(error)
                self._console.error(str(error))
                continue
            aside, unreadable = entries_if_readable(path)
            for warning in (*inventory.warnings, unreadable):
                if warning:
                    self._console.warning(f"{printable(str(path))}: {warning}")
            if not inventory.exists:
                self._console.warning(f"{printable(str(path))} does not exist. Check --dir.")
            self._files += len(inventory.entries)
            self._bytes += inventory.total_bytes
            self._left_out += inventory.left_out
            yield inventory, len(aside)

    def _row(self, inventory: Inventory, aside: int) -> tuple[str, ...]:
        entries = inventory.entries
        oldest = self._times.of(entries[0].name)[1] if entries else ""
        place = printable(str(inventory.directory))
        return (place, str(len(entries)), human_size(inventory.total_bytes), oldest, str(aside or ""))

    def _json(self) -> Iterator[str]:
        """The document: one line for each spool, created at the output."""
        yield "{"
        yield '  "spools": ['
        before = ""
        for inventory, aside in self._inventories():
            if before:
                yield f"{before},"
            before = f"    {json.dumps(self._spool_json(inventory, aside))}"
        if before:
            yield before
        yield "  ],"
        totals: dict[str, object] = {
            "files": self._files,
            "totalBytes": self._bytes,
            **left_out_json(self._options, self._left_out),
            **self._console.ending(self._exit_code, self._fault),
        }
        yield ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in totals.items())
        yield "}"

    def _spool_json(self, inventory: Inventory, aside: int) -> dict[str, object]:
        entries = list(entries_json(inventory.entries))
        ends = [
            {key: entry[key] for key in ("name", "createdNs", "iso")} for entry in entries[:1] + entries[-1:]
        ]
        return {
            "dir": str(inventory.directory),
            "files": len(entries),
            "totalBytes": inventory.total_bytes,
            "oldest": ends[0] if ends else None,
            "newest": ends[1] if ends else None,
            **({"quarantined": aside} if aside else {}),
            "entries": entries,
            **left_out_json(self._options, inventory.left_out),
            **existence(exists=inventory.exists),
        }
