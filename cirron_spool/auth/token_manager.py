"""The token of a client: verification before a flush, renewal before and during a flush.

Coroutines share a request through SingleFlight. Processes exclude each other with a lock beside the configuration. A
process that waited for the lock uses the renewed token in the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NamedTuple

from cirron_spool.auth.answers import Identity, json_object, read_identity, read_renewal, read_validity
from cirron_spool.auth.single_flight import SingleFlight
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
from cirron_spool.protocol.verdict import Action, Verdict, judge_auth
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.text import printable, redact

_STATUS_PATH = "/api/cli/status"
REFRESH_PATH = "/api/cli/auth/refresh"

# docs/contract.md, Settings and tokens.
_RENEW_BEFORE = timedelta(minutes=5)
# The shortest time between two renewals by expiry, so that a short-lived token is not renewed for each batch.
_BETWEEN_RENEWALS = timedelta(minutes=1)
# Seconds that a cancelled flush waits for a renewal. It must end within five, and the batch in flight uses four.
_ROTATION_GRACE_S = 0.8

# Remembered old tokens. After failed saves, the file may have one of them.
_REPLACED_TOKENS = 100
_RENEWED = Verdict(Action.ACKNOWLEDGED, None, exit_code=EXIT_OK)
_NOT_RENEWABLE = Verdict(Action.STOP, None, exit_code=EXIT_AUTH)
_LATER = "The platform could not renew the token. Nothing is lost: run the flush again later."

Warn = Callable[[str], None]


class Check(NamedTuple):
    """The platform's answer about a token.

    ``problem`` is the reason for a missing answer, or empty. ``identity`` is None unless the token is valid.
    """

    is_refused: bool = False
    may_renew: bool = False
    problem: str = ""
    identity: Identity | None = None


class TokenManager:
    """The token of one client, for one or several flushes.

    Concurrent verifications of a token share one request, and so do concurrent renewals. ``unsaved`` is a warning with
    the reason why the token could not be saved. It is empty for a token in the file.

    In all methods, ``warn`` gets one line for a person.
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
        self._verification: SingleFlight[Check] = SingleFlight()
        self._renewal: SingleFlight[Verdict] = SingleFlight()
        self._verified: str | None = None
        self._next_renewal: datetime | None = None
        # Tokens that a renewal replaced. After a failed save, the file has one of them.
        self._replaced: deque[str] = deque(maxlen=_REPLACED_TOKENS)
        self.unsaved = ""

    @property
    def token(self) -> str:
        """The bearer token to use now."""
        return self._credentials.token

    @property
    def credentials(self) -> Credentials:
        """The credentials in use."""
        return self._credentials

    @property
    def hint(self) -> str:
        """A text for a person with the origin of the refused token, and the remedy."""
        return self._settings.refusal_hint(self._credentials)

    @property
    def advice(self) -> str:
        """The hint if it adds to "Run cirron auth login", the message of a 401; else empty."""
        return self.hint if self._settings.remedy else ""

    @property
    def due(self) -> bool:
        """Whether to renew the token now, since it expires within five minutes. Cheap enough for each upload."""
        return self._expires_soon and (self._next_renewal is None or datetime.now(UTC) >= self._next_renewal)

    @property
    def _expires_soon(self) -> bool:
        expires_at = self._credentials.expires_at
        if expires_at is None or self._credentials.refresh_token is None:
            return False
        return expires_at - datetime.now(UTC) < _RENEW_BEFORE

    async def renew_if_due(self, warn: Warn) -> None:
        """Before a flush: renew a token that expires within five minutes. A refusal is ignored: a 401 will follow.

        Raises TokenRenewalError when the platform cannot renew the token now.
        """
        if self.due or (self._expires_soon and self._renewal.lock.locked()):
            self._next_renewal = datetime.now(UTC) + _BETWEEN_RENEWALS
            await self.renew(self.token, warn)

    async def renew_early(self) -> None:
        """During a flush: try to renew an expiring token once. Failures are ignored: a 401 will follow."""
        if self.due:
            self._next_renewal = datetime.now(UTC) + _BETWEEN_RENEWALS
            async with self._renewal.lock:
                await self._try_renewal(self.token, _ignore)

    async def verify(self, warn: Warn) -> bool:
        """Verify the token with the platform, and renew a refused one. False without an answer.

        A valid token is not verified again until it is refused. Raises AuthInvalidError when the platform refuses the
        token, and TokenRenewalError when it cannot renew the token now. Other failures are warnings.
        """
        credentials = self._credentials
        token = credentials.token
        if token == self._verified:
            return True
        check = await self._verification.run(token, partial(self._check, credentials))
        if check.is_refused and not (check.may_renew and await self.renew(token, warn)):
            raise AuthInvalidError(hint=self._settings.refusal_hint(credentials))
        if check.problem:
            warn(f"Could not verify auth before flush: {check.problem}. Proceeding anyway.")
        return not check.problem

    async def ask(self, warn: Warn) -> Check:
        """Ask the platform about the token, even if it was valid before.

        A refused token is renewed once, and checked again. Raises TokenRenewalError when the platform cannot renew the
        token now.
        """
        check = await self._check(self._credentials)
        if check.is_refused and check.may_renew and await self.renew(self.token, warn):
            check = await self._check(self._credentials)
        return check

    def adopt(self, credentials: Credentials, refused: str) -> bool:
        """Use the ``credentials`` of a new login. False if their token is ``refused`` or was replaced by a renewal."""
        if credentials.token == refused or credentials.token in self._replaced:
            return False
        self._credentials, self.unsaved, self._next_renewal = credentials, "", None
        return True

    async def renew(self, refused: str, warn: Warn) -> bool:
        """Replace the token ``refused``: by a token of another process in the file, or by a renewal.

        Temporary failures are retried on the schedule of an upload. False when the platform refuses the renewal; the
        token then stays in use. Raises TokenRenewalError when the platform cannot renew the token now.
        """
        if refused == self._verified:
            self._verified = None
        verdict = await self._renewal.run(refused, partial(self._renew_on_schedule, refused, warn))
        if verdict.action is Action.ACKNOWLEDGED or self.token != refused:
            return True
        if verdict.exit_code == EXIT_AUTH:
            return False
        hint = verdict.hint
        if verdict.exit_code == EXIT_TEMPFAIL:
            hint = f"{hint} {_LATER}".lstrip()
        raise TokenRenewalError(f"{verdict.message.removesuffix('.')}.", verdict.exit_code, hint=hint)

    async def _check(self, credentials: Credentials) -> Check:
        """Ask the platform about the token of ``credentials``, once."""
        outcome = await ask_status(self._transport, self._settings.api_url, credentials)
        if isinstance(outcome, NoAnswer):
            return Check(problem=_redact_in(outcome.message, credentials))
        document = json_object(outcome) if outcome.status == 200 else None
        if outcome.status in (401, 403):
            return Check(is_refused=True, may_renew=outcome.status == 401)
        if outcome.status != 200:
            return Check(problem=_redact_in(f"HTTP {outcome.status} {outcome.reason}".rstrip(), credentials))
        is_valid = read_validity(document) if document is not None else None
        if document is None or is_valid is None:
            return Check(problem="the answer is not the expected JSON")
        if not is_valid:
            return Check(is_refused=True, may_renew=True)
        self._verified = credentials.token
        return Check(identity=read_identity(document))

    async def _renew_on_schedule(self, refused: str, warn: Warn) -> Verdict:
        if self.token != refused:
            return _RENEWED
        if self._credentials.refresh_token is None:
            return _NOT_RENEWABLE

        return await attempt_on_schedule(
            lambda: self._try_renewal(refused, warn),
            retries=self._settings.retries,
            is_temporary=lambda verdict: verdict.action is Action.RETRY,
            announce=lambda verdict, delay_s, number: warn(verdict.retry_line(delay_s, number)),
        )

    async def _try_renewal(self, refused: str, warn: Warn) -> Verdict:
        """Try once, under the lock of all processes. ACKNOWLEDGED if another token is in use afterwards."""
        lock = await acquire_lock(self._settings.config_path)
        try:
            if await self._adopt(refused):
                return _RENEWED
            # From here on the platform may rotate the token. A cancellation must not lose the new one.
            verdict = await complete(self._rotate(warn), _ROTATION_GRACE_S)
            # A process that ignores the lock may have used the refresh token, and saved new tokens.
            if verdict.action is not Action.ACKNOWLEDGED and await self._adopt(refused):
                return _RENEWED
            return verdict
        finally:
            if lock is not None:
                await in_thread(lock.release)

    async def _rotate(self, warn: Warn) -> Verdict:
        """Request a new token once, use it, and save it."""
        old = self._credentials
        outcome = await self._transport.post_json(
            self._settings.api_url + REFRESH_PATH, {}, {"refresh_token": old.refresh_token}
        )
        renewed = read_renewal(outcome, old) if isinstance(outcome, Answer) else None
        if renewed is None:
            failed = "The token could not be renewed"
            return judge_auth(outcome, failed=failed, now=datetime.now(UTC), secrets=old.secrets)
        self._replaced.append(old.token)
        self._credentials, self.unsaved = renewed, ""
        try:
            # The save has its own shield, since the grace period must not cut it.
            saved = await complete(save(self._settings.config_path, renewed, replaces=self._replaced))
            if not saved:
                where = printable(str(self._settings.config_path))
                warn(f"Another program changed the login in {where} during the renewal. Its change stays.")
        except (OSError, ConfigError) as error:
            reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            self.unsaved = (
                f"The token was renewed but could not be saved in {printable(str(self._settings.config_path))}: "
                f"{printable(reason).removesuffix('.')}. Run cirron auth login before the next flush."
            )
        return _RENEWED

    async def _adopt(self, refused: str) -> bool:
        """Use the token in the file, unless it is ``refused`` or was replaced by a renewal."""
        try:
            found = await in_thread(read_credentials, self._settings.config_path)
        except ConfigError:
            return False
        if found is None or found.token == refused or found.token in self._replaced:
            return False
        self._credentials, self.unsaved = found, ""
        return True


async def ask_status(transport: Transport, api_url: str, credentials: Credentials) -> Answer | NoAnswer:
    """Ask the platform at ``api_url`` whether the token is valid."""
    return await transport.get(api_url + _STATUS_PATH, {"Authorization": f"Bearer {credentials.token}"})


def _ignore(message: str) -> None:
    """A ``warn`` that drops the message."""


def _redact_in(text: str, credentials: Credentials) -> str:
    return redact(printable(text), *credentials.secrets)
