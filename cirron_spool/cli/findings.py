"""The findings of ``status``: problems of the spool, the login and the platform, and the next step for each."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field

from cirron_spool.cli import render
from cirron_spool.cli.console import Console, Fault
from cirron_spool.cli.offline_steps import next_command
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
from cirron_spool.spool.survey import Survey
from cirron_spool.text import count, human_size

# A fuller spool is a finding. The limit is the SDK's.
_NEARLY_FULL_PERCENT = 80
# With less free space the SDK may not be able to seal its next batches.
_LITTLE_SPACE_BYTES = 256 * 1024 * 1024
# The most serious first. A flush ends with the first one that applies.
_SEVERITY = (EXIT_USAGE, EXIT_AUTH, EXIT_ATTENTION, EXIT_TEMPFAIL, EXIT_OK)


@dataclass
class Findings:
    """The exit codes, the problems, and the next commands."""

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
        """The first problem with the most serious exit code."""
        return next((fault for code, fault in self.faults if code == self.exit_code), None)


def conclude(document: dict[str, object], console: Console, findings: Findings) -> int:
    """Show the next steps and the problems, and end with ``document``; return the exit code."""
    if not console.json:
        # Without a step, the message of the problem has the remedy.
        rest = "Correct the problem below." if findings.faults else "Nothing is left to do."
        console.data(f"Next: {step}" for step in findings.steps or [rest])
    for code, fault in findings.faults:
        show = console.warning if code == EXIT_ATTENTION else console.error
        show(fault.message)
    return console.end(findings.exit_code, {**document, "next": findings.steps}, findings.fault)


# -- the spool


def percent_full(found: Survey) -> int:
    """How full the spool is, in percent of the SDK's limit."""
    return found.total_bytes * 100 // found.cap


def judge_spool(found: Survey, options: argparse.Namespace, findings: Findings) -> None:
    """Add the problems that can be seen in the spool before a flush."""
    if found.unwritable:
        findings.add(EXIT_ATTENTION, "SpoolError", found.unwritable)
    if found.empty:
        message = f"{count(len(found.empty), 'empty batch', 'empty batches')} cannot be sent, such as {found.empty[0]}."
        findings.add(
            EXIT_ATTENTION, "EmptyBatch", message, "Delete the empty files. A power cut can leave them."
        )
    if found.irregular:
        entries = count(len(found.irregular), "entry", "entries")
        message = f"{entries} with a batch's name, such as {found.irregular[0]}, is not a regular file."
        findings.add(EXIT_ATTENTION, "NotABatch", message, "Move it out of the spool.")
    if found.quarantine or found.quarantine_problem:
        message = found.quarantine_problem or (
            f"The platform rejected {count(len(found.quarantine), 'batch')}, which is in quarantine."
            if len(found.quarantine) == 1
            else f"The platform rejected {len(found.quarantine)} batches, which are in quarantine."
        )
        step = f"Run {next_command('quarantine list', options)} for the reasons."
        findings.add(EXIT_ATTENTION, "Quarantined", message, step)
    if percent_full(found) >= _NEARLY_FULL_PERCENT:
        message = (
            f"The spool is {percent_full(found)} % full. The SDK deletes the oldest batches beyond its limit."
        )
        findings.add(EXIT_ATTENTION, "SpoolNearlyFull", message)
    if found.free_bytes is not None and found.free_bytes < _LITTLE_SPACE_BYTES:
        findings.add(
            EXIT_ATTENTION, "DiskNearlyFull", f"Only {human_size(found.free_bytes)} of disk are free."
        )
    if found.snapshots is not None:
        findings.steps.append(
            f"Run {next_command('flush --snapshots', options)} to send the snapshots that were not sent before."
        )
    if found.is_locked:
        findings.steps.append("Wait until the running flush or clear ends.")


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
    from cirron_spool.cli.account_view import account_json, account_warnings
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
        message = f"{settings.api_url} did not verify the token: {account.problem}."
        findings.add(EXIT_TEMPFAIL, "PlatformError", message, "Check the network and the address.")
    if account.unsaved:
        findings.codes.append(EXIT_ATTENTION)
    platform = {
        "apiUrl": settings.api_url,
        "answers": not account.problem,
        "milliseconds": None if account.problem else milliseconds,
    }
    return {"account": account_json(settings, account), "platform": platform}
