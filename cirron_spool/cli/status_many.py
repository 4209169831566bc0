"""``status`` of several spools: a line for each, the account and the platform once."""

from __future__ import annotations

import argparse

from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.findings import Findings, conclude, judge_spool, show_account, spool_json
from cirron_spool.cli.grid import grid
from cirron_spool.cli.places import MOST_NAMED, find_spools, next_command_on_several, no_spools
from cirron_spool.cli.render import Times
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import EXIT_ATTENTION, CirronSpoolError
from cirron_spool.spool.survey import Survey, survey
from cirron_spool.text import count, human_size, printable


def run_many(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Show the status of each spool; return the worst exit code."""
    findings = Findings()
    problems = _Problems(findings)
    times = Times()
    rows: list[tuple[str, ...]] = []
    spools: list[dict[str, object]] = []
    batches = with_batches = size = 0
    for path in find_spools(options, console):
        try:
            found = survey(path)
        except CirronSpoolError as error:
            problems.add(error.exit_code, Fault.of(error), "")
            continue
        here = Findings()
        judge_spool(found, argparse.Namespace(**{**vars(options), "dir": str(path)}), here)
        for code, fault in here.faults:
            problems.add(code, fault, f"{printable(str(path))}: ")
        rows.append(_row(found, times))
        if console.json:
            spools.append({**spool_json(found), "problems": [fault.message for _, fault in here.faults]})
        batches += len(found.entries)
        with_batches += bool(found.entries)
        size += found.total_bytes
    if not console.json:
        if rows:
            heads = ("Spool", "Batches", "Size", "Oldest", "Quarantine", "Locked")
            console.data(grid(rows, heads, "<>><><", console.columns))
            total = f"{count(batches, 'batch')}, {human_size(size)} in {count(len(rows), 'spool')}"
            console.line(f"Total: {total}")
        else:
            console.line(no_spools(options))
    account = show_account(options, console, signals, findings)
    problems.finish()
    if batches:
        command = next_command_on_several("flush", options)
        findings.steps.append(
            f"Run {command} to send {count(batches, 'batch')} of {count(with_batches, 'spool')}."
        )
    return conclude({"spools": spools, "files": batches, "totalBytes": size, **account}, console, findings)


class _Problems:
    """The problems of the spools. Beyond a limit they are only counted."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._further = 0

    def add(self, code: int, fault: Fault, place: str) -> None:
        """Add a problem of the spool at ``place``."""
        if len(self._findings.faults) < MOST_NAMED:
            self._findings.add(code, fault.type, f"{place}{fault.message}")
        else:
            self._findings.codes.append(code)
            self._further += 1

    def finish(self) -> None:
        """Print the count of the problems that were not shown."""
        if self._further:
            message = f"{count(self._further, 'further problem')}; --json lists all."
            self._findings.add(EXIT_ATTENTION, "SpoolError", message)


def _row(found: Survey, times: Times) -> tuple[str, ...]:
    entries = found.entries
    return (
        printable(str(found.directory)),
        str(len(entries)),
        human_size(found.total_bytes),
        times.of(entries[0].name)[1] if entries else "",
        str(len(found.quarantine) or ""),
        "yes" if found.is_locked else "",
    )
