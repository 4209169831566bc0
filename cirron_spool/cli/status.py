"""``status``: the spool, the login and the platform on one screen, and the next step."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.offline_steps import next_command, warn_of
from cirron_spool.cli.places import are_several
from cirron_spool.cli.signals import Signals
from cirron_spool.errors import (
    EXIT_ATTENTION,
    EXIT_AUTH,
    EXIT_OK,
    EXIT_TEMPFAIL,
    EXIT_USAGE,
    AuthInvalidError,
    CirronSpoolError,
    NotAuthenticatedError,
)
from cirron_spool.settings.load import load_settings
from cirron_spool.settings.model import Settings
from cirron_spool.settings.paths import spool_directory
from cirron_spool.spool.survey import Survey, survey
from cirron_spool.text import count, human_size, printable

# From this part of the SDK's cap on, a person has little time left.
_NEARLY_FULL_PERCENT = 80
# With less free space the SDK may not be able to seal its next batches.
_LITTLE_SPACE_BYTES = 256 * 1024 * 1024
# The most serious first: a flush ends with the first that holds.
_SEVERITY = (EXIT_USAGE, EXIT_AUTH, EXIT_ATTENTION, EXIT_TEMPFAIL, EXIT_OK)


@dataclass
class Findings:
    """The exit codes, the fault that decides, and the next commands."""

    codes: list[int] = field(default_factory=lambda: [EXIT_OK])
    faults: list[tuple[int, Fault]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def add(self, code: int, kind: str, message: str, step: str = "") -> None:
        """Add a problem and its remedy."""
        self.codes.append(code)
        self.faults.append((code, Fault(kind, message)))
        if step:
            self.steps.append(step)

    @property
    def exit_code(self) -> int:
        """The most serious exit code."""
        return min(self.codes, key=_SEVERITY.index)

    @property
    def fault(self) -> Fault | None:
        """The first problem with that exit code."""
        return next((fault for code, fault in self.faults if code == self.exit_code), None)


def run(options: argparse.Namespace, console: Console, signals: Signals) -> int:
    """Show the status as the arguments say; return the exit code."""
    if are_several(options):
        from cirron_spool.cli.status_many import run_many  # seldom needed

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


def conclude(document: dict[str, object], console: Console, findings: Findings) -> int:
    """Show the next steps and the problems, and end with ``document``; return the exit code."""
    if not console.json:
        # The message of a problem without a step of its own has the remedy.
        rest = "Correct the problem below." if findings.faults else "Nothing is left to do."
        console.data(f"Next: {step}" for step in findings.steps or [rest])
    for code, fault in findings.faults:
        show = console.warning if code == EXIT_ATTENTION else console.error
        show(fault.message)
    return console.end(findings.exit_code, {**document, "next": findings.steps}, findings.fault)


# -- the spool


def _spool_lines(found: Survey, options: argparse.Namespace) -> Iterator[str]:
    times = render.Times()
    entries = found.entries
    what = f"{count(len(entries), 'batch')}, {human_size(found.total_bytes)}" if entries else "empty"
    yield f"Spool: {printable(str(found.directory))}  ({what if found.exists else 'not there yet'})"
    if entries:
        oldest, newest = (times.of(entry.name)[1] for entry in (entries[0], entries[-1]))
        yield f"Oldest: {oldest}   Newest: {newest}"
    yield f"SDK limit: {human_size(found.cap)}, {_percent(found)} % full"
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
        yield "At work: another flush or clear holds this spool"


def _percent(found: Survey) -> int:
    return found.total_bytes * 100 // found.cap


def judge_spool(found: Survey, options: argparse.Namespace, findings: Findings) -> None:
    """Add the problems that can be seen in the spool before a flush."""
    if found.unwritable:
        findings.add(EXIT_ATTENTION, "SpoolError", found.unwritable)
    if found.empty:
        message = (
            f"{count(len(found.empty), 'batch')} without a byte, such as {found.empty[0]}, cannot be sent."
        )
        findings.add(
            EXIT_ATTENTION, "EmptyBatch", message, "Delete the empty files: a power cut leaves them."
        )
    if found.irregular:
        entries = count(len(found.irregular), "entry", "entries")
        message = f"{entries} with a batch's name, such as {found.irregular[0]}, is no regular file."
        findings.add(EXIT_ATTENTION, "NotABatch", message, "Move it out of the spool.")
    if found.quarantine or found.quarantine_problem:
        message = found.quarantine_problem or (
            f"The platform rejected {count(len(found.quarantine), 'batch')}, which is in quarantine."
            if len(found.quarantine) == 1
            else f"The platform rejected {len(found.quarantine)} batches, which are in quarantine."
        )
        step = f"Run {next_command('quarantine list', options)} for the reasons."
        findings.add(EXIT_ATTENTION, "Quarantined", message, step)
    if _percent(found) >= _NEARLY_FULL_PERCENT:
        message = (
            f"The spool is {_percent(found)} % full. The SDK deletes the oldest batches beyond its limit."
        )
        findings.add(EXIT_ATTENTION, "SpoolNearlyFull", message)
    if found.free_bytes is not None and found.free_bytes < _LITTLE_SPACE_BYTES:
        findings.add(
            EXIT_ATTENTION, "DiskNearlyFull", f"Only {human_size(found.free_bytes)} of disk are free."
        )
    if found.snapshots is not None:
        findings.steps.append(
            f"Run {next_command('flush --snapshots', options)} to send each snapshot that is not sent yet."
        )
    if found.is_locked:
        findings.steps.append("Wait for the flush or clear that is at work.")


def spool_json(found: Survey) -> dict[str, object]:
    """The part of the JSON form about the spool."""
    times = render.Times()

    def described(index: int) -> dict[str, object] | None:
        if not found.entries:
            return None
        name = found.entries[index].name
        ns, iso = times.of(name)
        return {"name": name, "createdNs": ns, "iso": iso}

    snapshots = found.snapshots
    return {
        "dir": str(found.directory),
        **render.existence(exists=found.exists),
        "files": len(found.entries),
        "totalBytes": found.total_bytes,
        "oldest": described(0),
        "newest": described(-1),
        "limitBytes": found.cap,
        "emptyFiles": len(found.empty),
        "writable": not found.unwritable,
        "atWork": found.is_locked,
        "quarantined": len(found.quarantine),
        "snapshots": None
        if snapshots is None
        else {"dir": str(snapshots.folder), "files": snapshots.files, "allCounted": snapshots.all_counted},
        "freeBytes": found.free_bytes,
    }


# -- the account and the platform


def show_account(
    options: argparse.Namespace, console: Console, signals: Signals, findings: Findings
) -> dict[str, object]:
    """Show the account, add its problems, and return its part of the JSON form."""
    try:
        settings = load_settings(os.environ)
    except CirronSpoolError as error:
        findings.add(error.exit_code, Fault.of(error).type, str(error))
        return {"account": None, "platform": None}
    for warning in settings.warnings:
        console.warning(warning)
    address = f"{settings.api_url} ({settings.origins['api_url'].place})"
    credentials = settings.credentials
    if credentials is None:
        if not console.json:
            console.data(["Account: signed out", f"Platform: {address}, not asked"])
        if not options.offline:
            missing = NotAuthenticatedError(hint=settings.missing_hint)
            findings.add(EXIT_AUTH, Fault.of(missing).type, str(missing), "Run cirron auth login.")
            console.warning(missing.hint)
        return {"account": None, "platform": {"apiUrl": settings.api_url, "answers": None}}
    if options.offline:
        if not console.json:
            console.data(
                [f"Account: token from {credentials.origin.place}", f"Platform: {address}, not asked"]
            )
        account = {"token": {"source": credentials.origin.place}, "overridesLogin": bool(settings.overridden)}
        return {"account": account, "platform": {"apiUrl": settings.api_url, "answers": None}}
    try:
        return _ask(settings, address, console, signals, findings)
    except CirronSpoolError as error:
        findings.add(error.exit_code, Fault.of(error).type, str(error))
        if error.hint:
            console.warning(error.hint)
        return {"account": None, "platform": {"apiUrl": settings.api_url, "answers": False}}


def _ask(
    settings: Settings, address: str, console: Console, signals: Signals, findings: Findings
) -> dict[str, object]:
    from cirron_spool.auth.account import look_up
    from cirron_spool.cli.auth import account_json, account_warnings
    from cirron_spool.cli.stoppable import run_until_stopped

    account = run_until_stopped(lambda: look_up(settings, console.warning), signals)
    milliseconds = round(account.seconds * 1000)
    source = f"token from {account.credentials.origin.place}"
    if account.identity is not None:
        source = f"{account.identity.with_organization}, {source}"
    answers = "does not answer" if account.problem else f"answers in {milliseconds} ms"
    if not console.json:
        console.data([f"Account: {source}", f"Platform: {address} {answers}"])
    for warning in account_warnings(settings, account):
        console.warning(warning)
    if account.is_refused:
        refused = AuthInvalidError(hint=settings.refusal_hint(account.credentials))
        findings.add(EXIT_AUTH, Fault.of(refused).type, str(refused), refused.hint)
    if account.problem:
        message = f"{settings.api_url} could not be asked: {account.problem}."
        findings.add(EXIT_TEMPFAIL, "PlatformError", message, "Check the network and the address.")
    if account.unsaved:
        findings.codes.append(EXIT_ATTENTION)
    platform = {
        "apiUrl": settings.api_url,
        "answers": not account.problem,
        "milliseconds": None if account.problem else milliseconds,
    }
    return {"account": account_json(settings, account), "platform": platform}
