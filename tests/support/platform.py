"""The platform's own behaviour: what a scripted server says where no script speaks."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable

from .answers import Answer, json_answer, ok
from .wire import Request

Route = tuple[str, str]  # method, path

INGEST: Route = ("POST", "/api/traces")
STATUS: Route = ("GET", "/api/cli/status")
REFRESH: Route = ("POST", "/api/cli/auth/refresh")

# A callable is asked when the head is there; it may give an answer whose `late` looks at the body.
AnswerLike = Answer | Callable[[Request], Answer]

# What `Request.decoded` raises for a body that is not what its headers claim.
UNDECODABLE = (OSError, EOFError, ValueError, zlib.error)


class Platform:
    """Status, refresh and ingest of the contract, in memory.

    With `check_auth`, status and ingest demand `access_token` and answer 401 otherwise. A refresh takes
    `refresh_token`, once: both tokens are then ``access-N`` and ``refresh-N`` of the N-th rotation.
    """

    def __init__(self, *, check_auth: bool, access_token: str, refresh_token: str) -> None:
        self.check_auth = check_auth
        self.access_token = access_token
        self.refresh_token = refresh_token
        self.rotations = 0

    def routes(self) -> dict[Route, AnswerLike]:
        """What each route says by default."""
        return {INGEST: self._ingest, STATUS: self._status, REFRESH: Answer(late=self._refresh)}

    def _authorised(self, request: Request) -> bool:
        return not self.check_auth or request.token == self.access_token

    def _ingest(self, request: Request) -> Answer:
        if not self._authorised(request):
            return json_answer({"error": "invalid_token"}, 401)
        return Answer(late=_store)

    def _status(self, request: Request) -> Answer:
        if not self._authorised(request):
            return json_answer({"error": "invalid_token"}, 401)
        return json_answer(
            {
                "valid": True,
                "token": {"type": "cli", "expiresAt": "2099-01-01T00:00:00.000Z"},
                "user": {"email": "alice@example.com", "name": "Alice"},
                "organization": {"id": "org_1", "name": "Example"},
            }
        )

    def _refresh(self, request: Request) -> Answer:
        try:
            offered = json.loads(request.body)["refresh_token"]
        except (ValueError, KeyError, TypeError):
            return json_answer({"error": "invalid_request"}, 400)
        if offered != self.refresh_token:
            return json_answer({"error": "invalid_grant"}, 401)
        self.rotations += 1
        self.access_token = f"access-{self.rotations}"
        self.refresh_token = f"refresh-{self.rotations}"
        tokens = {"access_token": self.access_token, "refresh_token": self.refresh_token}
        return json_answer({**tokens, "expires_in": 3600, "token_type": "Bearer"})


def _store(request: Request) -> Answer:
    try:
        _ = request.decoded
    except UNDECODABLE as exc:
        return json_answer({"error": f"not what it claims to be: {exc}"}, 400)
    return ok() if request.batch_id else json_answer({"error": "no batch id"}, 400)
