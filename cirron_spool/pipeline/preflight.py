"""The checks before a flush: the spool, the settings, the lock, the route.

Blocking: for the thread that works on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from cirron_spool.errors import CirronSpoolError
from cirron_spool.http import route as routes
from cirron_spool.http.route import Route
from cirron_spool.settings.model import Settings
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.selection import Selected, Selection
from cirron_spool.spool.snapshots import find_snapshots


@dataclass(frozen=True, slots=True)
class Preflight:
    """A spool with something to send.

    ``route`` is None where it was not asked for. ``warning`` is for a person, or empty. ``error`` ends the flush once
    its result can be reported.
    """

    settings: Settings
    route: Route | None = None
    warning: str = ""
    error: CirronSpoolError | None = None


class Contents(NamedTuple):
    """The batches to send, and where sizes were asked for, their sizes in bytes.

    ``irregular`` are named like batches but are no regular files; ``irregular_kind`` is the kind of the first.
    """

    selected: Selected[str]
    sizes: list[int]
    irregular: tuple[str, ...]
    irregular_kind: str


def run_preflight(
    spool: SpoolDirectory,
    load: Callable[[], Settings],
    *,
    find_route: bool,
    lock: bool = True,
    follow: bool = False,
    snapshots: bool = False,
) -> Preflight | None:
    """Open the spool, ``load`` the settings, lock the spool unless ``lock`` is False, and find the route.

    None when there is nothing to send: an empty spool needs no settings and no lock. With ``snapshots`` a run's
    snapshots beside an empty spool are something to send. Raises SpoolError for a directory that cannot be read, and
    the errors of ``load``. With ``follow``, an empty or missing spool is cleared, too.
    """
    has_work = spool.open() and (
        spool.has_batches() or (snapshots and find_snapshots(spool.path) is not None)
    )
    if not has_work and not follow:
        return None
    settings = load()
    if settings.credentials is None:
        return Preflight(settings)  # a flush without credentials claims nothing
    warning = ""
    try:
        if spool.exists:
            spool.check_writable()
            warning = spool.lock() if lock else ""
        return Preflight(settings, routes.find_route(settings.api_url) if find_route else None, warning)
    except CirronSpoolError as error:
        return Preflight(settings, warning=warning, error=error)


def follow_contents(
    spool: SpoolDirectory, selection: Selection, *, sizes: bool
) -> tuple[Contents, bool, str]:
    """List the spool that now is at the path, and lock it if it is another one.

    Also whether it is another one, and a warning for a person, or an empty string. Raises SpoolError, and
    SpoolBusyError when another process holds it.
    """
    warning = ""
    is_new = spool.reopen()
    if is_new:
        spool.check_writable()
        warning = spool.lock()
    return list_contents(spool, selection, sizes=sizes), is_new, warning


def list_contents(spool: SpoolDirectory, selection: Selection, *, sizes: bool) -> Contents:
    """List the selected batches; ``sizes`` adds a stat for each file. Raises SpoolError."""
    names, irregular = spool.listing()
    size_of = cache(spool.size_of)
    selected = selection.take(names, name_of=str, size_of=size_of, now_ns=time.time_ns())
    return Contents(
        selected,
        [size_of(name) for name in selected.batches] if sizes else [],
        irregular,
        spool.kind_of(irregular[0]) if irregular else "",
    )
