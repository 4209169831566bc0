"""Check that a form comes from this receiver's own page, not from another web site (CSRF)."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from cirron_spool.receiver.connections import Request

_COOKIE = "cirron_spool_device"
_VALUE = re.compile(r"[A-Za-z0-9_-]{43}")


class FormGuard:
    """Binds the token of a form to a cookie that other sites can neither read nor send. Stateless."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def cookie(self, request: Request) -> str:
        """The value of the browser's cookie, or a new one."""
        return _cookie(request) or secrets.token_urlsafe(32)

    def form_token(self, cookie: str) -> str:
        """The form token for the browser with this cookie."""
        return hmac.new(self._key, cookie.encode(), hashlib.sha256).hexdigest()

    def is_own_form(self, request: Request, form_token: str) -> bool:
        """Whether token, cookie and browser headers prove that the request comes from the page."""
        cookie = _cookie(request)
        fits = hmac.compare_digest(
            form_token.encode("utf-8", "surrogatepass"), self.form_token(cookie or "").encode()
        )
        return fits and cookie is not None and _same_origin(request)


def set_cookie(value: str, *, secure: bool) -> str:
    """The Set-Cookie header for a value."""
    return f"{_COOKIE}={value}; Path=/device; HttpOnly; SameSite=Strict{'; Secure' if secure else ''}"


def _cookie(request: Request) -> str | None:
    for pair in request.head.fields.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == _COOKIE and _VALUE.fullmatch(value):
            return value
    return None


def _same_origin(request: Request) -> bool:
    """Whether the browser reports a request from the same origin; True without a report.

    Sec-Fetch-Site comes first. Behind a proxy, Host can differ from the browser's Origin.
    """
    fields = request.head.fields
    site = fields.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = fields.get("origin")
    return origin is None or origin.partition("://")[2].lower() == fields.get("host", "").lower()
