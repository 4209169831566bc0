"""The owner of a spool in its record: host, process, and start of the work."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from typing import NamedTuple

from cirron_spool.concurrency.processes import is_running, start_of
from cirron_spool.text import iso_utc, printable

_LONGEST_SHOWN = 64


class Owner(NamedTuple):
    """A process that works on a spool. ``key`` is random: each claim has another key.

    ``boot`` and ``namespace`` identify the set of processes in which ``process`` is unique. ``started`` is its start
    time in ticks. Each is empty if the system does not report it. ``since`` is only for messages, by the owner's
    clock.
    """

    key: str
    host: str = ""
    process: int = 0
    boot: str = ""
    namespace: str = ""
    started: str = ""
    since: str = ""

    def to_json(self) -> bytes:
        """The content of the record: one JSON object."""
        return (json.dumps(self._asdict()) + "\n").encode()

    def has_ended(self) -> bool:
        """Whether the owner's process has certainly ended. Known only for this kernel and namespace."""
        here = _kernel()
        if not all(here) or (self.host, self.boot, self.namespace) != here or not self.started:
            return False
        return not is_running(self.process, self.started)

    def __str__(self) -> str:
        """``process 1234 on node7, since 2026-04-18T04:29:58.051Z``; an empty string without a readable record."""
        return f"process {self.process} on {self.host}, since {self.since}" if self.process else ""


def this_process() -> Owner:
    """The current process as an owner, with a new key."""
    process = os.getpid()
    return Owner(os.urandom(8).hex(), *_here(), started=start_of(process), since=iso_utc(time.time_ns()))


def owner_of(content: bytes, modified_ns: int) -> Owner:
    """Parse a record. A damaged record gives an owner without a name, with a key from the file's content."""
    try:
        fields = json.loads(content)
        texts = {name: str(fields[name]) for name in Owner._fields if name != "process"}
        owner = Owner(**texts, process=int(fields["process"]))
        if (
            owner.process > 0
            and owner.key.isalnum()
            and owner.key.isascii()
            and len(owner.key) <= _LONGEST_SHOWN
        ):
            return owner._replace(host=_short(owner.host), since=_short(owner.since))
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    return Owner(hashlib.sha256(b"%d %s" % (modified_ns, content)).hexdigest()[:16])


def _here() -> tuple[str, int, str, str]:
    host, boot, namespace = _kernel()
    return host, os.getpid(), boot, namespace


def _kernel() -> tuple[str, str, str]:
    """The host, its boot, and its process namespace, in which containers of one kernel differ."""
    boot = namespace = ""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
            boot = file.read().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except (OSError, ValueError):
        pass
    return _short(platform.node()), boot, namespace


def _short(text: str) -> str:
    return printable(text[:_LONGEST_SHOWN])
