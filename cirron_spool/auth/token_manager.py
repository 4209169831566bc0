"""The token: verify it before a flush, renew it before and during one, save the renewed one.

A renewal is one for all: coroutines share it through a mutex, processes through a lock beside the configuration.
The second to come finds the first one's token in the file and uses it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeGuard

from cirron_spool.auth.secrets import hide
from cirron_spool.auth.token_store import acquire_lock, read_credentials, save
from cirron_spool.concurrency.shield import complete
from cirron_spool.concurrency.threads import in_thread
from cirron_spool.errors import (
    EXIT_AUTH,
    EXIT_OK,
    EXIT_TEMPFAIL,
    AuthInvalidError,
    ConfigError,
    TokenRenewalError,
)
from cirron_spool.http.attempts import attempt_on_schedule
from cirron_spool.http.transport import Transport
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import Action, Verdict, judge_renewal
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.settings.sources import check_token
from cirron_spool.text import printable

STATUS_PATH = "/api/cli/status"
REFRESH_PATH = "/api/cli/auth/refresh"

# docs/contract.md, Settings and tokens: renew when the token expires within five minutes.
_RENEW_BEFORE = timedelta(minutes=5)
# A token that lives shorter than that, or a refresh that fails, must not lead to a refresh for every batch.
_BETWEEN_RENEWALS = timedelta(minutes=1)
# How long the answer to a refresh under way is waited for once the flush is cancelled: a few round trips, and within
# what is left of the five seconds that a flush has to end, after the four that its batch in flight has.
_ROTATION_GRACE_S = 0.8


_RENEWED = Verdict(Action.ACKNOWLEDGED, None, exit_code=EXIT_OK)


Warn = Callable[[str], None]


class TokenManager:
    """The token of one client, for one or several flushes. ``unsaved`` says that a renewed token could not be saved.

    The methods take ``warn``, which gets one line for a person at a time.
    """

    def __init__(
        self,
        settings: Settings,
        credentials: Credentials,
        transport: Transport,
    ) -> None:
        self._settings = settings
        self._credentials = credentials
        self._transport = transport
        self._mutex = asyncio.Lock()
        self._verifying = asyncio.Lock()
        self._verified: str | None = None
        self._next_renewal: datetime | None = None
        # The failure on which the flush ends: those that wait for the same renewal need not try it again.
        self._unavailable: Verdict | None = None
        self.unsaved = False

    @property
    def token(self) -> str:
        """The bearer token to use now."""
        return self._credentials.token

    @property
    def hint(self) -> str:
        """The origin of the token in use and its remedy, for a person whose token was refused."""
        return self._settings.refusal_hint(self._credentials)

    @property
    def advice(self) -> str:
        """The hint where it adds to "Run cirron auth login", the message of a 401; else empty."""
        return self.hint if self._settings.remedy else ""

    @property
    def due(self) -> bool:
        """Whether the token is near its expiry and could be renewed now. Cheap: asked before every upload."""
        expires_at = self._credentials.expires_at
        if expires_at is None or self._credentials.refresh_token is None:
            return False
        now = datetime.now(UTC)
        return expires_at - now < _RENEW_BEFORE and (self._next_renewal is None or now >= self._next_renewal)

    async def renew_if_due(self, warn: Warn) -> None:
        """Before a flush: renew a token that expires within five minutes. A refusal is left to the 401 it leads to.

        Raises TokenRenewalError when the platform cannot renew it now.
        """
        if self.due:
            self._next_renewal = datetime.now(UTC) + _BETWEEN_RENEWALS
            await self.renew(self.token, warn)

    async def renew_early(self, warn: Warn) -> None:
        """During a flush: as :meth:`renew_if_due`, but try once, and leave every failure to the 401 it leads to."""
        if self.due:
            self._next_renewal = datetime.now(UTC) + _BETWEEN_RENEWALS
            async with self._mutex:
                await self._try_renewal(self.token, warn)

    async def verify(self, warn: Warn) -> None:
        """Ask the platform whether the token is valid, and renew a refused one.

        A token that was found valid is not asked about again. Raises AuthInvalidError when the platform refuses the
        token, TokenRenewalError when the platform cannot renew it now. Any other failure is a warning.
        """
        async with self._verifying:
            if self.token != self._verified:
                await self._verify(warn)

    async def _verify(self, warn: Warn) -> None:
        token = self.token
        outcome = await self._transport.get(
            self._settings.api_url + STATUS_PATH,
            {"Authorization": f"Bearer {token}"},
        )
        if isinstance(outcome, NoAnswer):
            self._could_not_verify(outcome.message, warn)
            return
        document = _object(outcome) if outcome.status == 200 else None
        if outcome.status == 401 or (document is not None and document.get("valid") is False):
            if not await self.renew(token, warn):
                raise AuthInvalidError(hint=self.hint)
        elif outcome.status == 403:
            raise AuthInvalidError(hint=self.hint)
        elif outcome.status != 200:
            self._could_not_verify(f"HTTP {outcome.status} {outcome.reason}".rstrip(), warn)
        elif document is None:
            self._could_not_verify("the answer is not the expected JSON", warn)
        else:
            self._verified = token

    async def renew(self, refused: str, warn: Warn) -> bool:
        """Get a token other than ``refused``: from the file, if another process renewed it, or by a refresh.

        A temporary failure is retried on the schedule of an upload. False when the platform refuses; then the token
        in use stays. Raises TokenRenewalError when it cannot renew the token now.
        """
        async with self._mutex:
            if self.token != refused:
                return True
            if self._credentials.refresh_token is None:
                return False
            verdict = self._unavailable or await attempt_on_schedule(
                lambda: self._try_renewal(refused, warn),
                retries=self._settings.retries,
                is_temporary=lambda outcome: outcome.action is Action.RETRY,
                announce=partial(self._announce, warn),
            )
            if verdict.action is Action.ACKNOWLEDGED:
                return True
            if verdict.exit_code == EXIT_AUTH:
                return False
            self._unavailable = verdict
            hint = verdict.hint
            if verdict.exit_code == EXIT_TEMPFAIL:
                later = "The platform could not renew the token. Nothing is lost: run the flush again later."
                hint = f"{hint} {later}".lstrip()
            raise TokenRenewalError(
                self._without_secrets(f"{verdict.message.removesuffix('.')}."),
                verdict.exit_code,
                hint=self._without_secrets(hint),
            )

    async def _try_renewal(self, refused: str, warn: Warn) -> Verdict:
        """One try, under the lock that other processes respect; ACKNOWLEDGED when another token is in use."""
        lock = await acquire_lock(self._settings.config_path)
        try:
            if await self._adopt(refused):
                return _RENEWED
            # From here on the platform may have rotated the token: the new one must not be lost to a cancellation.
            verdict = await complete(self._rotate(warn), _ROTATION_GRACE_S)
            # Refused or lost; a process that does not honour our lock may have been faster after all.
            if verdict.action is not Action.ACKNOWLEDGED and await self._adopt(refused):
                return _RENEWED
            return verdict
        finally:
            if lock is not None:
                await in_thread(lock.give_back)

    async def _rotate(self, warn: Warn) -> Verdict:
        """One refresh, and its token in use and saved."""
        outcome = await self._transport.post_json(
            self._settings.api_url + REFRESH_PATH, {}, {"refresh_token": self._credentials.refresh_token}
        )
        renewed = _renewed(outcome, self._credentials) if isinstance(outcome, Answer) else None
        if renewed is None:
            return judge_renewal(outcome, now=datetime.now(UTC))
        self._credentials = renewed
        try:
            # Of its own, so that the end of that wait does not cut it.
            await complete(save(self._settings.config_path, renewed))
        except (OSError, ConfigError) as error:
            self.unsaved = True
            why = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            warn(
                f"The token was renewed but could not be saved in {printable(str(self._settings.config_path))}: "
                f"{printable(why)}. This flush goes on with it; run cirron auth login before the next."
            )
        return _RENEWED

    async def _adopt(self, refused: str) -> bool:
        """Use the token in the file if it is another one than ``refused``."""
        try:
            found = await in_thread(read_credentials, self._settings.config_path)
        except ConfigError:
            return False
        if found is None or found.token == refused:
            return False
        self._credentials = found
        return True

    def _could_not_verify(self, why: str, warn: Warn) -> None:
        warn(
            f"Could not verify auth before flush: {self._without_secrets(printable(why))}. Proceeding anyway."
        )

    def _announce(self, warn: Warn, verdict: Verdict, delay_s: float, number: int) -> None:
        """Say that a renewal failed, and that attempt ``number`` follows in ``delay_s`` seconds."""
        warn(f"{self._without_secrets(verdict.message)}. Attempt {number} in {delay_s:.1f} s.")

    def _without_secrets(self, text: str) -> str:
        return hide(text, self._credentials.token, self._credentials.refresh_token)


def _renewed(answer: Answer, old: Credentials) -> Credentials | None:
    """The credentials in a refresh's answer, or None when it is not one (docs/contract.md, Settings and tokens)."""
    document = _object(answer) if answer.status == 200 else None
    if document is None:
        return None
    access, refresh = document.get("access_token"), document.get("refresh_token")
    if not _is_token(access):
        return None
    # The old refresh token may be spent by now: what else the answer says wrongly must not cost the new ones.
    return replace(
        old,
        token=access,
        refresh_token=refresh if _is_token(refresh) else old.refresh_token,
        expires_at=_expiry(document.get("expires_in")),
    )


def _is_token(value: object) -> TypeGuard[str]:
    if not isinstance(value, str):
        return False
    try:
        check_token(value, "the refresh")
    except ConfigError:
        return False
    return True


def _expiry(seconds: object) -> datetime | None:
    """When a token expires that lives for ``seconds`` from now; None when that is no length of time."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.now(UTC) + timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        return None


def _object(answer: Answer) -> dict[str, object] | None:
    if not answer.complete:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None
