"""The routes of a token: its status, and its renewal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from cirron_spool.receiver.answers import Answer, RefusedError, unauthorized
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.tokens import ACCESS_SECONDS, Tokens

# A refresh request holds one token.
_REFRESH_BYTES = 64 << 10


class Account:
    """Answers for ``tokens``."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def status(self, request: Request) -> Answer:
        """Tell whether the bearer is accepted, and the user."""
        if not self._tokens.accepts(request.head.fields.get("authorization", "")):
            refused = unauthorized()
            content = {"success": False, "error": refused.message, "valid": False}
            return Answer(refused.status, content, refused.fields, refused.message)
        expires = datetime.now(UTC) + timedelta(seconds=ACCESS_SECONDS)
        return Answer(
            200,
            {
                "valid": True,
                "token": {"name": "receiver", "expiresAt": expires.isoformat(timespec="milliseconds")},
                "user": {"email": "receiver@localhost", "name": "cirron-spool receiver"},
                "organization": {"name": "cirron-spool receiver"},
            },
        )

    async def refresh(self, request: Request) -> Answer:
        """New tokens for a refresh token."""
        body = await request.read_all(_REFRESH_BYTES)
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
        access, refresh = issued
        return Answer(
            200,
            {
                "access_token": access,
                "refresh_token": refresh,
                "expires_in": ACCESS_SECONDS,
                "token_type": "Bearer",
            },
        )
