"""``clear`` of several spools, after one question."""

from __future__ import annotations

import argparse

from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.grid import grid
from cirron_spool.cli.offline_steps import refusal
from cirron_spool.cli.places import find_spools, more_serious, no_spools
from cirron_spool.cli.render import existence, left_out
from cirron_spool.cli.selection import dry_run_json, left_out_json, selection_of
from cirron_spool.errors import EXIT_ATTENTION, EXIT_OK, CirronSpoolError
from cirron_spool.offline import ClearResult, Inventory, clear_spool, inspect_spool
from cirron_spool.text import count, human_size, printable


class ClearMany:
    """The clear of several spools. An error of one does not end the others."""

    def __init__(self, options: argparse.Namespace, console: Console) -> None:
        self._options = options
        self._console = console
        self._exit_code = EXIT_OK
        self._fault: Fault | None = None

    def run(self) -> int:
        """Clear as the arguments say; return the exit code."""
        options, console = self._options, self._console
        inventories = self._inventories()
        full = [inventory for inventory in inventories if inventory.entries]
        files = sum(len(inventory.entries) for inventory in full)
        size = human_size(sum(inventory.total_bytes for inventory in full))
        what = f"{count(files, 'spool file')} ({size}) from {count(len(full), 'spool')}"
        if options.dry_run or not files:
            if not options.json:
                console.data(self._plan(full, len(inventories), what))
            return self._end(inventories, [])
        if not options.force:
            if not options.json:
                console.data(_table(full, console))
            if (refused := refusal(f"? Delete {what}? (y/N) ", console)) is not None:
                self._exit_code, self._fault = refused
                return self._end(inventories, [])
        results = [self._clear(inventory) for inventory in full]
        deleted = sum(result.deleted for result in results)
        if not options.json and (deleted or self._exit_code == EXIT_OK):
            console.line(f"Success: Deleted {count(deleted, 'spool file')}.")
            if left := sum(inventory.left_out for inventory in inventories):
                console.line(left_out(left))
        return self._end(inventories, results)

    def _plan(self, full: list[Inventory], spools: int, what: str) -> list[str]:
        if not spools and self._fault is None:
            return [no_spools(self._options)]
        if not full:
            return [f"No spool files to clear in {count(spools, 'spool')}"]
        return [*_table(full, self._console), f"Dry run: {what} would be deleted."]

    def _inventories(self) -> list[Inventory]:
        selection = selection_of(self._options)
        found: list[Inventory] = []
        for path in find_spools(self._options, self._console):
            try:
                inventory = inspect_spool(path, selection=selection)
            except CirronSpoolError as error:
                self._fail(error.exit_code, Fault.of(error))
                continue
            for warning in inventory.warnings:
                self._console.warning(f"{printable(str(path))}: {warning}")
            if not inventory.exists:
                self._console.warning(f"{printable(str(path))} does not exist. Check --dir.")
            found.append(inventory)
        return found

    def _clear(self, inventory: Inventory) -> ClearResult:
        try:
            result = clear_spool(inventory=inventory)
        except CirronSpoolError as error:
            self._fail(error.exit_code, Fault.of(error))
            return ClearResult(inventory.directory, 0, 0, left_out=inventory.left_out)
        place = printable(str(inventory.directory))
        for name, why in result.failures:
            self._fail(EXIT_ATTENTION, Fault("DeleteError", f"Could not delete {name} in {place}: {why}."))
        return result

    def _fail(self, exit_code: int, fault: Fault) -> None:
        self._console.error(fault.message)
        self._exit_code = more_serious(self._exit_code, exit_code)
        self._fault = self._fault or fault

    def _end(self, inventories: list[Inventory], results: list[ClearResult]) -> int:
        options = self._options
        cleared = {result.directory: result for result in results}
        spools: list[dict[str, object]] = []
        for inventory in inventories:
            result = cleared.get(inventory.directory) or ClearResult(inventory.directory, 0, 0)
            spools.append(
                {
                    "dir": str(inventory.directory),
                    "deleted": result.deleted,
                    "failed": result.failed,
                    "bytes": result.bytes,
                    **(dry_run_json(inventory.entries) if options.dry_run else {}),
                    **left_out_json(options, inventory.left_out),
                    **existence(exists=inventory.exists),
                }
            )
        document: dict[str, object] = {
            "spools": spools,
            "deleted": sum(result.deleted for result in results),
            "failed": sum(result.failed for result in results),
            "bytes": sum(result.bytes for result in results),
            **({"dryRun": True} if options.dry_run else {}),
            **left_out_json(options, sum(inventory.left_out for inventory in inventories)),
        }
        return self._console.end(self._exit_code, document, self._fault)


def _table(inventories: list[Inventory], console: Console) -> list[str]:
    rows = [
        (printable(str(each.directory)), str(len(each.entries)), human_size(each.total_bytes))
        for each in inventories
    ]
    return list(grid(rows, ("Spool", "Batches", "Size"), "<>>", console.columns))
