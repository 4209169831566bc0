"""The two routes of the device flow that a client calls: start a sign-in, and poll for its tokens."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote

from cirron_spool.receiver.account import SMALL_BODY, USER
from cirron_spool.receiver.answers import Answer, RefusedError
from cirron_spool.receiver.connections import Request
from cirron_spool.receiver.device_codes import DeviceCodes, PollError
from cirron_spool.receiver.journal import Journal
from cirron_spool.receiver.tokens import Tokens

_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")

# Retry-After for a sign-in beyond the limit.
_TOO_MANY_WAIT_S = "60"


class DeviceFlow:
    """Starts sign-ins in ``codes``, and returns their tokens."""

    def __init__(self, codes: DeviceCodes, tokens: Tokens, journal: Journal, lifetime_s: int) -> None:
        self._codes = codes
        self._tokens = tokens
        self._journal = journal
        self._lifetime_s = lifetime_s

    async def start(self, request: Request) -> Answer:
        """A new device code and user code, with the address of the page that approves the user code."""
        await request.read_all(SMALL_BODY)
        if not (self._tokens.open or self._tokens.has_fixed):
            raise RefusedError(403, "Nobody could approve a code: this receiver was started without --token.")
        page = f"{origin(request)}/device"
        sign_in = self._codes.start(request.address)
        if sign_in is None:
            raise RefusedError(429, "Too many sign-ins wait for approval.", {"Retry-After": _TOO_MANY_WAIT_S})
        self._journal.note(f"Sign-in started from {request.peer}")
        return Answer(
            200,
            {
                "deviceCode": sign_in.device_code,
                "userCode": sign_in.user_code,
                "verificationUrl": page,
                "verificationUrlComplete": f"{page}?user_code={quote(sign_in.user_code)}",
                "expiresIn": self._lifetime_s,
                "interval": sign_in.interval_s,
            },
        )

    async def poll(self, request: Request) -> Answer:
        """The tokens of an approved sign-in, or the error code of RFC 8628."""
        given = parse_qs(request.head.query, keep_blank_values=True).get("device_code", [])
        if len(given) != 1:
            raise RefusedError(400, "The query must be device_code=…, once.")
        result = self._codes.poll(given[0])
        if isinstance(result, PollError):
            # A pending code is not a refusal. The journal already has a denial.
            if result.wait_s:
                return Answer(429, {"error": result.code}, {"Retry-After": str(result.wait_s)})
            return Answer(400, {"error": result.code})
        issued = result.issued
        if not result.again:
            self._journal.signed_in(request.peer)
        return Answer(
            200,
            {
                "accessToken": issued.access_token,
                "refreshToken": issued.refresh_token,
                "tokenType": "Bearer",
                "expiresIn": issued.expires_in,
                "user": USER,
            },
        )


def origin(request: Request) -> str:
    """The origin of the receiver for the client, also behind a proxy that ends TLS.

    Raises RefusedError (400) for an invalid Host.
    """
    host = request.head.fields.get("host", "") or request.local
    if not _HOST.fullmatch(host):
        raise RefusedError(400, "Host is not a host name or address with an optional port.")
    return f"{'https' if is_https(request) else 'http'}://{host}"


def is_https(request: Request) -> bool:
    """Whether a proxy reports that the client uses https."""
    return request.head.fields.get("x-forwarded-proto", "").strip().lower() == "https"
