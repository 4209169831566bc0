"""What a flush must know before it connects: whether there is anything to send, how, and by which way. Blocking."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cirron_spool.config import Credentials, Settings
from cirron_spool.errors import CirronSpoolError, NotAuthenticatedError
from cirron_spool.routes import Route, look_up
from cirron_spool.spool import SpoolDirectory


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
            raise NotAuthenticatedError
        return self.settings.credentials


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
