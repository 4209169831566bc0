"""``status``: the spool, the login and the platform on one screen, and the next step."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator

from cirron_spool.cli import render
from cirron_spool.cli.console import Console
from cirron_spool.cli.findings import (
    Findings,
    conclude,
    judge_spool,
    percent_full,
    show_account,
    spool_json,
)
from cirron_spool.cli.offline_steps import next_command, warn_of
from cirron_spool.cli.places import are_several
from cirron_spool.cli.signals import Signals
from cirron_spool.settings.paths import spool_directory
from cirron_spool.spool.survey import Survey, survey
from cirron_spool.text import count, human_size, printable


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Show the status as the arguments say; return the exit code."""
    if are_several(options):
        from cirron_spool.cli.status_many import run_many  # late import: rarely needed

        return run_many(options, console, signals)
    found = survey(spool_directory(options.dir, os.environ))
    findings = Findings()
    if not console.json:
        console.data(_spool_lines(found, options))
    if not found.entries:
        warn_of(found.directory, options, console, exists=found.exists)
    judge_spool(found, options, findings)
    account = show_account(options, console, signals, findings)
    if found.entries and not found.is_locked:
        findings.steps.append(
            f"Run {next_command('flush', options)} to send {count(len(found.entries), 'batch')}."
        )
    return conclude({**spool_json(found), **account}, console, findings)


def _spool_lines(found: Survey, options: argparse.Namespace) -> Iterator[str]:
    times = render.Times()
    entries = found.entries
    what = f"{count(len(entries), 'batch')}, {human_size(found.total_bytes)}" if entries else "empty"
    yield f"Spool: {printable(str(found.directory))}  ({what if found.exists else 'does not exist yet'})"
    if entries:
        oldest, newest = (times.of(entry.name)[1] for entry in (entries[0], entries[-1]))
        yield f"Oldest: {oldest}   Newest: {newest}"
    yield f"SDK limit: {human_size(found.cap)}, {percent_full(found)} % full"
    if found.quarantine:
        size = human_size(sum(rejection.size for rejection in found.quarantine))
        listing = next_command("quarantine list", options)
        yield f"Quarantine: {count(len(found.quarantine), 'batch')}, {size} (see {listing})"
    else:
        yield "Quarantine: empty"
    yield f"Snapshots: {found.snapshots or 'none'}"
    if found.free_bytes is not None:
        yield f"Free disk: {human_size(found.free_bytes)}"
    if found.is_locked:
        yield "Locked: another flush or clear uses this spool"
