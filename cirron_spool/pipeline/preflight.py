"""The checks before a flush: the spool, the settings, the lock, the route.

Blocking: for the thread that works on the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from cirron_spool.errors import CirronSpoolError
from cirron_spool.http import route as routes
from cirron_spool.http.route import Route
from cirron_spool.settings.model import Settings
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.listing import Listing


@dataclass(frozen=True, slots=True)
class Cleared:
    """A spool with something to send.

    ``route`` is None where it was not asked for. ``warning`` is for a person, or empty. ``error`` ends the flush once
    its result can be reported.
    """

    settings: Settings
    route: Route | None = None
    warning: str = ""
    error: CirronSpoolError | None = None


class Contents(NamedTuple):
    """A listing, the size of its batches in bytes where sizes were asked for, and the kind of its first stranger."""

    listing: Listing
    total_bytes: int
    strange: str


def clear_for_flush(
    spool: SpoolDirectory, load: Callable[[], Settings], *, find_route: bool
) -> Cleared | None:
    """Open the spool, ``load`` the settings, lock the spool, and find the route to the platform.

    None when there is nothing to send: an empty spool needs no settings and no lock. Raises SpoolError for a
    directory that cannot be read, and the errors of ``load``.
    """
    if not (spool.open() and spool.has_batches()):
        return None
    settings = load()
    if settings.credentials is None:
        return Cleared(settings)  # a flush without credentials claims nothing
    warning = ""
    try:
        spool.check_writable()
        warning = spool.lock()
        return Cleared(settings, routes.find_route(settings.api_url) if find_route else None, warning)
    except CirronSpoolError as error:
        return Cleared(settings, warning=warning, error=error)


def list_contents(spool: SpoolDirectory, *, sizes: bool) -> Contents:
    """List the batches; ``sizes`` adds a stat for each file. Raises SpoolError."""
    listing = spool.listing()
    total = sum(map(spool.size_of, listing.names)) if sizes else 0
    strange = spool.kind_of(listing.strangers[0]) if listing.strangers else ""
    return Contents(listing, total, strange)
