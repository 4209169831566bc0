"""Verify the new token of a sign-in, before it is saved."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cirron_spool.auth.answers import Identity, json_object, read_identity, read_validity
from cirron_spool.auth.token_manager import ask_status
from cirron_spool.errors import EXIT_ATTENTION, EXIT_TEMPFAIL, SignInError
from cirron_spool.http.attempts import attempt_on_schedule
from cirron_spool.http.transport import Transport
from cirron_spool.protocol.answer import Answer
from cirron_spool.protocol.verdict import Action, Verdict, judge_auth
from cirron_spool.settings.model import Credentials, Settings


async def verify_new_token(
    settings: Settings, credentials: Credentials, transport: Transport, announce: Callable[[str], None]
) -> Identity:
    """Ask the platform for the identity of ``credentials``. ``announce`` gets one line before each retry.

    Raises SignInError when the platform refuses the token or cannot be reached.
    """
    identity: Identity | None = None
    refused = False

    async def attempt() -> Verdict:
        nonlocal identity, refused
        outcome = await ask_status(transport, settings.api_url, credentials)
        document = json_object(outcome) if isinstance(outcome, Answer) and outcome.status == 200 else None
        if document is not None:
            is_valid = read_validity(document)
            refused = is_valid is False
            identity = read_identity(document) if is_valid else None
        failed = "The new token could not be verified"
        return judge_auth(outcome, failed=failed, now=datetime.now(UTC), secrets=credentials.secrets)

    verdict = await attempt_on_schedule(
        attempt,
        retries=settings.retries,
        is_temporary=lambda verdict: not refused and identity is None and verdict.action is Action.RETRY,
        announce=lambda verdict, delay_s, number: announce(verdict.retry_line(delay_s, number)),
    )
    if identity is not None:
        return identity
    if refused or verdict.status in (401, 403):
        raise SignInError(f"{settings.api_url} refused the token. Nothing was saved.")
    exit_code, remedy = verdict.exit_code, ""
    if verdict.status in (404, 405):
        exit_code, remedy = EXIT_ATTENTION, " Check the address."
    elif exit_code == EXIT_TEMPFAIL:
        remedy = " Run cirron auth login again later."
    message = f"{verdict.message.removesuffix('.')}. Nothing was saved.{remedy}"
    raise SignInError(message, exit_code, hint=verdict.hint)
