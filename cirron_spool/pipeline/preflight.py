"""What a flush must know first: whether there is anything to send, how, by which way, and then what.

The thread that works on the disk finds it out from its start, without a way to the event loop and back in between:
each costs as much as some small batches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeVar

from cirron_spool.concurrency.threads import tell
from cirron_spool.errors import CirronSpoolError, NotAuthenticatedError
from cirron_spool.http.proxies import Route, look_up
from cirron_spool.settings.load import Credentials, Settings
from cirron_spool.spool.directory import Listing, SpoolDirectory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Begun:
    """A flush that may begin: its settings, a warning for a person, and the way to the platform if it looks for one.

    ``error`` is what it ends with instead, once there is a flush to speak of.
    """

    settings: Settings
    warning: str = ""
    route: Route | None = None
    error: CirronSpoolError | None = None

    @property
    def may_send(self) -> bool:
        """Whether there are credentials, and no ``error``."""
        return self.error is None and self.settings.credentials is not None

    def credentials(self) -> Credentials:
        """The credentials to begin with. Raises ``error``, or NotAuthenticatedError when there are none."""
        if self.error is not None:
            raise self.error
        if self.settings.credentials is None:
            raise NotAuthenticatedError(hint=self.settings.missing_hint)
        return self.settings.credentials


class Listed(NamedTuple):
    """What was listed: its bytes together, where they were asked for, and what the first stranger is, in words."""

    listing: Listing
    total_bytes: int
    strange: str


class Beginning:
    """The first steps of the disk's thread, of which the event loop is told.

    ``sizes`` asks for the bytes of all batches, a stat a file; the rest is as for :func:`begin`.
    """

    def __init__(
        self, spool: SpoolDirectory, load: Callable[[], Settings], *, own_session: bool, sizes: bool
    ) -> None:
        self._spool = spool
        self._begin = partial(begin, spool, load, own_session=own_session)
        self._sizes = sizes
        loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[Begun | BaseException | None] = loop.create_future()
        self._listed: asyncio.Future[Listed | BaseException] = loop.create_future()

    async def begun(self) -> Begun | None:
        """What :func:`begin` comes to, or raises."""
        return _value(await self._begun)

    async def listed(self) -> Listed:
        """What was listed, for a flush that may send. Raises SpoolError."""
        return _value(await self._listed)

    def names(self, between: Callable[[], None]) -> Iterator[str]:
        """For the thread: begin, call ``between``, list, and name the batches, oldest first. Blocking."""
        begun = _tell_outcome(self._begun, self._begin)
        if begun is None or not begun.may_send:
            return
        between()
        listed = _tell_outcome(self._listed, self._list)
        if listed is not None:
            yield from listed.listing.names

    def _list(self) -> Listed:
        listing = self._spool.listing()
        total = sum(map(self._spool.size_of, listing.names)) if self._sizes else 0
        return Listed(listing, total, self._spool.kind_of(listing.strangers[0]) if listing.strangers else "")


def begin(spool: SpoolDirectory, load: Callable[[], Settings], *, own_session: bool) -> Begun | None:
    """Open the spool, ``load`` the settings, claim the spool, and look up the way for a session of our own.

    None when there is nothing to send, which needs no settings and no claim. Raises SpoolError when the directory
    cannot be read, and whatever ``load`` raises.
    """
    if not (spool.open() and spool.has_batches()):
        return None
    settings = load()
    if settings.credentials is None:
        return Begun(settings)
    warning = ""
    try:
        spool.check_writable()
        warning = spool.lock()
        return Begun(settings, warning, look_up(settings.api_url) if own_session else None)
    except CirronSpoolError as error:
        return Begun(settings, warning, error=error)


def _tell_outcome(future: asyncio.Future[T | BaseException], work: Callable[[], T]) -> T | None:
    """From a thread: let ``future`` come to what ``work`` returns, which is returned here, too, or raises."""
    try:
        outcome = work()
    except BaseException as error:  # noqa: BLE001  # raised in the event loop
        tell(future, error)
        return None
    tell(future, outcome)
    return outcome


def _value(outcome: T | BaseException) -> T:
    """The value that an outcome is. Raises the exception that it is instead."""
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome
