"""The checks before a flush: the spool, the settings, the lock, the route.

Blocking: the disk thread runs them.
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
    """The result of the checks for a spool with something to send.

    ``route`` is None unless it was asked for. ``warning`` is for a person, or empty. ``error`` ends the flush after the
    report starts.
    """

    settings: Settings
    route: Route | None = None
    warning: str = ""
    error: CirronSpoolError | None = None


class Contents(NamedTuple):
    """The batches to send, and their sizes in bytes if these were asked for.

    ``irregular`` are entries with a batch's name that are no regular files. ``irregular_kind`` is the kind of the
    first.
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

    None for an empty spool, which needs no settings and no lock. With ``snapshots``, snapshots beside an empty spool
    are something to send. With ``follow``, an empty or missing spool passes, too. Raises SpoolError for an unreadable
    directory, and the errors of ``load``.
    """
    has_work = spool.open() and (
        spool.has_batches() or (snapshots and find_snapshots(spool.path) is not None)
    )
    if not has_work and not follow:
        return None
    settings = load()
    if settings.credentials is None:
        return Preflight(settings)  # a flush without credentials needs no lock
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
    """List the directory that now has the path. Lock it if it replaced the old one.

    Returns the contents, whether the directory was replaced, and a warning or an empty string. Raises SpoolError, and
    SpoolBusyError when another process holds the lock.
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
