"""Sign in on a machine without a browser: the device flow (RFC 8628; docs/contract.md, Settings and tokens).

The platform returns a code, which a person approves in any browser. This machine polls until then.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from cirron_spool.auth.answers import is_token, json_object, read_grant, seconds_in
from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, SignInError
from cirron_spool.http.attempts import attempt_on_schedule
from cirron_spool.http.transport import Transport
from cirron_spool.protocol.answer import Answer
from cirron_spool.protocol.retry import SHORTEST_PAUSE_S, parse_retry_after
from cirron_spool.protocol.verdict import Action, Verdict, judge_auth
from cirron_spool.settings.model import Credentials, Settings
from cirron_spool.text import printable

DEVICE_PATH = "/api/cli/auth/device"

# RFC 8628, sections 3.2 and 3.5: the default interval, and its increase after slow_down.
_USUAL_INTERVAL_S = 5.0
_SLOWER_BY_S = 5.0
# The default of expiresIn, and the limits of the platform's numbers.
_USUAL_LIFETIME_S = 600.0
_LONGEST_LIFETIME_S = 3600.0
_LONGEST_INTERVAL_S = 60.0
# A person types the code, and an address must fit on one line.
_LONGEST_CODE = 40
_LONGEST_ADDRESS = 2000

_NOTHING_SAVED = "Nothing was saved."
_AGAIN = "Run cirron auth login again."
_FAILED = "The sign-in failed"

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """A sign-in that waits for its approval.

    A person types ``user_code`` at ``address``. ``complete_address`` includes the code, or is the same as ``address``.
    Codes and addresses are printable. ``lifetime_s`` and ``interval_s`` are in seconds.
    """

    device_code: str
    user_code: str
    address: str
    complete_address: str
    lifetime_s: float
    interval_s: float

    def __repr__(self) -> str:  # the device code is a secret
        return f"DeviceCode(user_code={self.user_code!r}, address={self.address!r})"


class _Poll(NamedTuple):
    """The outcome of one poll: credentials, the seconds to wait, or the failure."""

    credentials: Credentials | None = None
    wait_s: float | None = None
    is_slower: bool = False
    failure: Verdict | None = None

    @property
    def retry_after_s(self) -> float | None:
        """The delay that the server asked for after a temporary failure."""
        return self.failure.retry_after_s if self.failure is not None else None

    def retry_line(self, delay_s: float, number: int) -> str:
        """As :meth:`Verdict.retry_line`, after a temporary failure."""
        return self.failure.retry_line(delay_s, number) if self.failure is not None else ""


class DeviceFlow:
    """The device flow with the platform of ``settings``."""

    def __init__(self, settings: Settings, transport: Transport) -> None:
        self._url = settings.api_url + DEVICE_PATH
        self._retries = settings.retries
        self._transport = transport

    async def begin(self, announce: Announce) -> DeviceCode:
        """Request a code. ``announce`` gets one line for a person before each retry.

        Raises SignInError when the platform returns none.
        """
        code: DeviceCode | None = None

        async def attempt() -> Verdict:
            nonlocal code
            outcome = await self._transport.post_json(self._url, {}, {})
            code = _read_code(outcome) if isinstance(outcome, Answer) else None
            return judge_auth(outcome, failed="The sign-in could not begin", now=datetime.now(UTC))

        verdict = await attempt_on_schedule(
            attempt,
            retries=self._retries,
            is_temporary=lambda verdict: code is None and verdict.action is Action.RETRY,
            announce=lambda verdict, delay_s, number: announce(verdict.retry_line(delay_s, number)),
        )
        if code is not None:
            return code
        if verdict.status in (404, 405):
            hint = "Check --url, or give a token: cirron auth login --with-token."
            raise SignInError(f"{verdict.message}. {_NOTHING_SAVED}", EXIT_ATTENTION, hint=hint)
        raise _failure(verdict)

    async def wait(self, code: DeviceCode, announce: Announce) -> Credentials:
        """Poll at the platform's interval until the code is approved.

        Raises SignInError when the code is denied or expires, or when the platform cannot be reached.
        """
        deadline = time.monotonic() + code.lifetime_s
        interval_s = code.interval_s
        while True:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise _expired()
            await asyncio.sleep(min(interval_s, left_s))
            poll = await attempt_on_schedule(
                lambda: self._poll(code),
                retries=self._retries,
                is_temporary=lambda poll: poll.failure is not None and poll.failure.action is Action.RETRY,
                announce=lambda poll, delay_s, number: announce(poll.retry_line(delay_s, number)),
            )
            if poll.credentials is not None:
                return poll.credentials
            if poll.failure is not None:
                raise _failure(poll.failure)
            if poll.is_slower:
                interval_s = min(interval_s + _SLOWER_BY_S, _LONGEST_INTERVAL_S)
            if poll.wait_s is not None:  # beyond the usual interval
                await asyncio.sleep(max(0.0, min(poll.wait_s - interval_s, deadline - time.monotonic())))

    async def _poll(self, code: DeviceCode) -> _Poll:
        """Poll once. Raises SignInError for a denied or expired code."""
        quoted = quote(code.device_code, safe="")
        outcome = await self._transport.get(f"{self._url}?device_code={quoted}", {})
        now = datetime.now(UTC)
        if isinstance(outcome, Answer):
            if (credentials := read_grant(outcome)) is not None:
                return _Poll(credentials)
            if outcome.status == 429:
                asked_s = parse_retry_after(outcome.header("Retry-After"), now, outcome.header("Date"))
                return _Poll(wait_s=asked_s, is_slower=asked_s is None)
            if (poll := _refusal(_error_in(outcome))) is not None:
                return poll
        secrets = (code.device_code, quoted)  # a redirect may repeat the address
        return _Poll(failure=judge_auth(outcome, failed=_FAILED, now=now, secrets=secrets))


def _refusal(error: str) -> _Poll | None:
    """The outcome for an ``error`` of the device flow; None for another error. Raises SignInError."""
    if error == "authorization_pending":
        return _Poll(wait_s=None)
    if error == "slow_down":
        return _Poll(is_slower=True)
    if error == "access_denied":
        raise SignInError(f"The sign-in was denied in the browser. {_NOTHING_SAVED}")
    if error == "expired_token":
        raise _expired()
    return None


def _expired() -> SignInError:
    return SignInError(f"The code has expired. {_NOTHING_SAVED} {_AGAIN}")


def _failure(verdict: Verdict) -> SignInError:
    """The error of a sign-in that ends on ``verdict``."""
    later = (
        " Run cirron auth login again later." if verdict.exit_code not in (EXIT_ATTENTION, EXIT_AUTH) else ""
    )
    message = f"{verdict.message.removesuffix('.')}. {_NOTHING_SAVED}{later}"
    return SignInError(message, verdict.exit_code, hint=verdict.hint)


def _error_in(answer: Answer) -> str:
    document = json_object(answer)
    error = document.get("error") if document is not None and 400 <= answer.status <= 499 else None
    return error if isinstance(error, str) else ""


def _read_code(answer: Answer) -> DeviceCode | None:
    """The code in the first answer of a sign-in; None if a necessary part is missing."""
    document = json_object(answer) if answer.status in (200, 201) else None
    if document is None:
        return None
    device_code, user_code = document.get("deviceCode"), document.get("userCode")
    address, complete = document.get("verificationUrl"), document.get("verificationUrlComplete")
    if not is_token(device_code) or not _is_line(user_code, _LONGEST_CODE) or not _is_address(address):
        return None
    lifetime_s = seconds_in(document.get("expiresIn"), usual=_USUAL_LIFETIME_S, most=_LONGEST_LIFETIME_S)
    interval_s = seconds_in(document.get("interval"), usual=_USUAL_INTERVAL_S, most=_LONGEST_INTERVAL_S)
    return DeviceCode(
        device_code,
        str(user_code),
        str(address),
        str(complete) if _is_address(complete) else str(address),
        lifetime_s,
        max(interval_s, SHORTEST_PAUSE_S),
    )


def _is_line(value: object, longest: int) -> bool:
    """Whether ``value`` is a short printable text."""
    return isinstance(value, str) and 0 < len(value) <= longest and printable(value) == value


def _is_address(value: object) -> bool:
    """Whether ``value`` is a web address. Another scheme could start a program."""
    return (
        _is_line(value, _LONGEST_ADDRESS)
        and str(value).lower().startswith(("https://", "http://"))
        and " " not in str(value)
    )
