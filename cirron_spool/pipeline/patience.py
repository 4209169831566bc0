"""The waits of a watch for the end of an outage and for a new login."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import anyio

from cirron_spool.auth.token_manager import TokenManager
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import EXIT_AUTH, EXIT_TEMPFAIL, CirronSpoolError, ConfigError
from cirron_spool.events import FlushEvent, Resumed, Waiting
from cirron_spool.pipeline.outcome import Outcome
from cirron_spool.protocol import retry
from cirron_spool.protocol.verdict import Verdict
from cirron_spool.settings.model import Settings
from cirron_spool.text import printable

# Seconds between two checks for a new login.
LOGIN_POLL_S = 1.0
# A longer Retry-After is cut to one day.
_LONGEST_PAUSE_S = 86_400.0


class Patience:
    """Waits where a flush would end with an error, until ``ending`` is set.

    ``read_settings`` reads the settings again, and may block. ``is_waiting`` is True from the first wait to the next
    answer without a wait. Waiting and Resumed are emitted at these two times.
    """

    def __init__(
        self,
        settings: Settings,
        tokens: TokenManager,
        read_settings: Callable[[], Settings],
        ending: anyio.Event,
        emit: Callable[[FlushEvent], None],
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._read_settings = read_settings
        self._ending = ending
        self._emit = emit
        self._cause = ""
        self._since = 0.0
        self._waits = 0
        self._resumed_at = 0.0  # by time.monotonic()

    @property
    def is_waiting(self) -> bool:
        """Whether the last attempt called for a wait."""
        return bool(self._cause)

    async def outlast(self, outcome: Outcome) -> bool:
        """Wait until another attempt may succeed after ``outcome``; False if no wait helps."""
        verdict = outcome.result
        if not isinstance(verdict, Verdict):
            return False
        if verdict.exit_code == EXIT_TEMPFAIL:
            asked_s = verdict.later_s or verdict.retry_after_s or 0.0
            return await self._outlast_outage(verdict.message, asked_s, outcome.began)
        if verdict.exit_code == EXIT_AUTH:
            return await self._await_login(verdict.message, outcome.refused)
        self.resume()
        return False

    async def outlast_error(self, error: CirronSpoolError, token: str) -> bool:
        """As :meth:`outlast`, after ``error`` in the check of ``token``."""
        if error.exit_code == EXIT_TEMPFAIL:
            return await self._outlast_outage(str(error), 0.0, time.monotonic())
        return error.exit_code == EXIT_AUTH and await self._await_login(str(error), token)

    def resume(self) -> None:
        """End the wait: the platform answered, and the answer needs no wait."""
        if self._cause:
            cause, self._cause, self._waits = self._cause, "", 0
            self._resumed_at = time.monotonic()
            self._emit(Resumed(cause, time.monotonic() - self._since))

    async def _outlast_outage(self, message: str, asked_s: float, began: float) -> bool:
        if self._ending.is_set():
            return False
        if began < self._resumed_at:  # an attempt of another batch or spool succeeded since then
            return await self._pause(asked_s)
        self._announce("outage", f"{message.removesuffix('.')}. Waiting for the platform.")
        delay_s = retry.outage_delay_s(self._waits, random.random)
        self._waits += 1
        return await self._pause(min(max(delay_s, asked_s), _LONGEST_PAUSE_S))

    async def _await_login(self, message: str, refused: str) -> bool:
        if self._settings.remedy or self._ending.is_set():  # a login would not replace the token
            return False
        if self._tokens.token != refused:  # a new login is already in use
            return True
        where = printable(str(self._settings.config_path))
        self._announce(
            "token",
            f"{message.removesuffix('.')}. Waiting for a new login to {self._settings.api_url} in {where}.",
        )
        while not await self._has_login(refused):
            if not await self._pause(LOGIN_POLL_S):
                return False
        return True

    async def _has_login(self, refused: str) -> bool:
        """Use the token of a new login if there is one, but never a token for another platform."""
        if self._tokens.token != refused:
            return True
        try:
            found = await in_thread(self._read_settings)
        except ConfigError:  # the file may be half edited
            return False
        if found.credentials is None or found.api_url != self._settings.api_url:
            return False
        return self._tokens.adopt(found.credentials, refused)

    def _announce(self, cause: str, message: str) -> None:
        if self._cause != cause:
            self._since = self._since if self._cause else time.monotonic()
            self._cause = cause
            self._emit(Waiting(cause, message))

    async def _pause(self, seconds: float) -> bool:
        """Wait ``seconds``; False if the flush ends before."""
        with anyio.move_on_after(seconds):
            await self._ending.wait()
        return not self._ending.is_set()
