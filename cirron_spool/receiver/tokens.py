"""The tokens of a receiver: the configured ones, and those that it has issued. They are only in memory."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from typing import NamedTuple

# Short, as on the platform, so that clients must refresh.
ACCESS_SECONDS = 3600

_REFRESH_SECONDS = 30 * 86400.0

# Most tokens of each kind. The oldest is dropped first, which bounds the memory.
_KEPT = 4096


class Issued(NamedTuple):
    """An access token with a lifetime of ``expires_in`` seconds, and its refresh token, which works once."""

    access_token: str
    refresh_token: str
    expires_in: int


class Bearer(NamedTuple):
    """An accepted bearer token: its name, and the seconds until it expires, or None for never."""

    name: str
    expires_in: float | None


class Tokens:
    """Accepts bearers, issues tokens and refreshes them.

    The fixed ``token`` stays valid; an issued one for ``access_s`` seconds. A refresh token works once. Without
    ``token`` and ``refresh_token`` everything is ``open``: each bearer is accepted, and each refresh token once.
    Tokens are stored and compared as digests, so the time of a comparison tells nothing about a token.
    """

    def __init__(
        self,
        token: str | None,
        refresh_token: str | None,
        *,
        access_s: float = ACCESS_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.open = token is None and refresh_token is None
        self.has_fixed = token is not None
        self._fixed = None if token is None else _digest(token)
        self._access_s = access_s
        self._clock = clock
        self._access = _Expiring(clock)
        self._refresh = _Expiring(clock)
        self._used = _Expiring(clock)
        if refresh_token is not None:
            self._refresh.add(_digest(refresh_token), float("inf"))

    def bearer(self, authorization: str) -> Bearer | None:
        """The token in the value of an Authorization header; None if it is not accepted."""
        scheme, _, given = authorization.partition(" ")
        given = given.strip()
        if scheme.lower() == "bearer":
            seconds = self._access.remaining(_digest(given))
            if seconds is not None:
                return Bearer("sign-in", seconds)
            if self.is_fixed(given):
                return Bearer("receiver", None)
        return Bearer("receiver", None) if self.open else None

    def is_fixed(self, token: str) -> bool:
        """Whether this is the fixed token."""
        return self._fixed is not None and hmac.compare_digest(_digest(token), self._fixed)

    def issue(self) -> Issued:
        """New tokens."""
        issued = Issued(secrets.token_urlsafe(32), secrets.token_urlsafe(32), int(self._access_s))
        self._access.add(_digest(issued.access_token), self._access_s)
        self._refresh.add(_digest(issued.refresh_token), _REFRESH_SECONDS)
        return issued

    def refresh(self, refresh_token: str) -> Issued | None:
        """New tokens for a refresh token; None if it is wrong or used."""
        digest = _digest(refresh_token)
        known = self._refresh.remove(digest)
        accepted = self.open and refresh_token and self._used.remaining(digest) is None
        if not (known or accepted):
            return None
        self._used.add(digest, _REFRESH_SECONDS)
        return self.issue()


class _Expiring:
    """Digests that expire, ``_KEPT`` at most."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: dict[bytes, float] = {}

    def add(self, digest: bytes, seconds: float) -> None:
        if len(self._ends) >= _KEPT:
            del self._ends[next(iter(self._ends))]
        self._ends[digest] = self._clock() + seconds

    def remaining(self, digest: bytes) -> float | None:
        """The seconds until ``digest`` expires; None if it is unknown or expired."""
        end = self._ends.get(digest)
        now = self._clock()
        return None if end is None or end <= now else end - now

    def remove(self, digest: bytes) -> bool:
        """Remove ``digest``. Returns whether it was valid."""
        left = self.remaining(digest)
        self._ends.pop(digest, None)
        return left is not None


def _digest(token: str) -> bytes:
    # Headers can hold bytes that are not UTF-8, which arrive as lone surrogates.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
