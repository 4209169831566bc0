"""The routes of a token: its status, and its renewal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cirron_spool.receiver.answers import Answer, RefusedError, unauthorized
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.tokens import Tokens

# Largest body of a request with tokens or codes, in bytes.
SMALL_BODY = 64 << 10

USER = {"email": "receiver@localhost", "name": "cirron-spool receiver"}
_ORGANIZATION = {"name": "cirron-spool receiver"}


class Account:
    """The handlers for the status and the renewal of ``tokens``."""

    def __init__(self, tokens: Tokens, journal: Journal) -> None:
        self._tokens = tokens
        self._journal = journal

    async def status(self, request: Request) -> Answer:
        """The expiry and the user of an accepted bearer token."""
        bearer = self._tokens.bearer(request.head.fields.get("authorization", ""))
        if bearer is None:
            refused = unauthorized()
            content = {"success": False, "error": refused.message, "valid": False}
            return Answer(refused.status, content, refused.fields, refused.message)
        expires_at = None
        if bearer.expires_in is not None:
            end = datetime.now(UTC) + timedelta(seconds=bearer.expires_in)
            expires_at = end.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Answer(
            200,
            {
                "valid": True,
                "token": {"name": bearer.name, "expiresAt": expires_at},
                "user": USER,
                "organization": _ORGANIZATION,
            },
        )

    async def refresh(self, request: Request) -> Answer:
        """New tokens for a refresh token, which works only once."""
        body = await request.read_all(SMALL_BODY)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "The body is not JSON.") from None
        token = asked.get("refresh_token") if isinstance(asked, dict) else None
        if not isinstance(token, str):
            raise RefusedError(400, 'The body must be {"refresh_token": "…"}.')
        issued = self._tokens.refresh(token)
        if issued is None:
            raise unauthorized()
        self._journal.note(f"Token refreshed for {request.peer}")
        return Answer(
            200,
            {
                "access_token": issued.access_token,
                "refresh_token": issued.refresh_token,
                "expires_in": issued.expires_in,
                "token_type": "Bearer",
            },
        )
