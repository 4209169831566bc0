"""The account behind a token, as the platform sees it now."""

from __future__ import annotations

import time
from dataclasses import dataclass

from cirron_spool.auth.answers import Identity
from cirron_spool.auth.token_manager import TokenManager, Warn
from cirron_spool.errors import NotAuthenticatedError
from cirron_spool.http.transport import Transport
from cirron_spool.settings.model import Credentials, Settings


@dataclass(frozen=True, slots=True)
class Account:
    """The platform's answer about the token in use.

    ``identity`` is None unless the token is valid. ``problem`` is the reason for a missing answer, or empty.
    ``seconds`` is the time from the request to the answer, with the connection set-up. ``unsaved`` is a warning about a
    renewed token that could not be saved, or empty.
    """

    credentials: Credentials
    identity: Identity | None
    is_refused: bool
    problem: str
    seconds: float
    unsaved: str


async def look_up(settings: Settings, warn: Warn) -> Account:
    """Ask the platform about the token of ``settings``. An expiring or refused token is renewed first.

    Raises NotAuthenticatedError without a token, ConfigError for an unusable proxy or certificate, and
    TokenRenewalError when the platform cannot renew the token now.
    """
    if settings.credentials is None:
        raise NotAuthenticatedError(hint=settings.missing_hint)
    async with Transport(timeout_ms=settings.timeout_ms) as transport:
        tokens = TokenManager(settings, settings.credentials, transport)
        await tokens.renew_if_due(warn)
        began = time.monotonic()
        check = await tokens.ask(warn)
        seconds = time.monotonic() - began
        return Account(
            tokens.credentials, check.identity, check.is_refused, check.problem, seconds, tokens.unsaved
        )
