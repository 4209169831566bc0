"""The access and refresh tokens of a receiver: the configured ones, and those that its refresh route has issued."""

from __future__ import annotations

import hmac
import secrets
import time
from collections import deque

# As the platform's are short-lived, so that a client's refresh has something to do.
ACCESS_SECONDS = 3600

# Old ones expire anyway. This bounds the memory for a client that refreshes without end.
_ISSUED_KEPT = 64


class Tokens:
    """Accepts bearers and refreshes them. All comparisons take the same time wherever the first difference is.

    The fixed token stays valid; an issued one for ``ACCESS_SECONDS``. A refresh token works once. Without either of the
    two, everything is accepted.
    """

    def __init__(self, token: str | None, refresh_token: str | None) -> None:
        self.open = token is None and refresh_token is None
        self._token = token
        self._refresh_token = refresh_token
        self._issued: deque[tuple[str, float]] = deque(maxlen=_ISSUED_KEPT)

    def accepts(self, authorization: str) -> bool:
        """Whether the value of an Authorization header holds a valid token."""
        if self.open:
            return True
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        now = time.monotonic()
        known = [token for token, expires in self._issued if now < expires]
        if self._token is not None:
            known.append(self._token)
        # Every one is compared, so that the time says nothing about which one fitted.
        fits = [_same(given, token) for token in known]
        return scheme.lower() == "bearer" and any(fits)

    def refresh(self, refresh_token: str) -> tuple[str, str] | None:
        """A new access token and the refresh token that replaces the one given, or None when that one is wrong."""
        if self._refresh_token is None:
            if not (self.open and refresh_token):
                return None
            return secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        if not _same(refresh_token, self._refresh_token):
            return None
        access, self._refresh_token = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
        self._issued.append((access, time.monotonic() + ACCESS_SECONDS))
        return access, self._refresh_token


def _same(left: str, right: str) -> bool:
    # Headers can hold bytes that are not UTF-8, which arrive as lone surrogates.
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))
