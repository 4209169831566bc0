"""The codes of the device flow (RFC 8628), from the start to the tokens. No network."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from cirron_spool.receiver.tokens import Issued

# No vowels, which could form words, and no letters that look like digits (RFC 8628, section 6.1).
ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
_USER_CODE_LETTERS = 8

# Seconds that a poll before its time adds to the interval (section 3.5).
_SLOWER_S = 5
_SLOWEST_S = 60
# Tolerance for polls: a network can shorten the time between two of them.
_JITTER_S = 0.5

# Time in which a code gives the same tokens again, since the first answer can be lost.
_REDEEM_AGAIN_S = 60.0

# Most codes in total, and most undecided codes of one address. The limits bound memory and guessing.
_MOST_CODES = 1024
_MOST_PENDING = 32


class Decision(Enum):
    """The user's decision about a code."""

    NONE = auto()
    APPROVED = auto()
    DENIED = auto()


class PollError(NamedTuple):
    """An error code of RFC 8628, section 3.5. ``slow_down`` has the seconds to wait."""

    code: str
    wait_s: int = 0


class Granted(NamedTuple):
    """The tokens of an approved sign-in. ``again``: the client has asked for them before."""

    issued: Issued
    again: bool


PENDING = PollError("authorization_pending")
DENIED = PollError("access_denied")
EXPIRED = PollError("expired_token")


@dataclass(slots=True)
class SignIn:
    """One sign-in. ``user_code`` includes the hyphen. ``expires`` is a clock time, ``interval_s`` is in seconds."""

    device_code: str
    user_code: str
    address: str
    expires: float
    interval_s: int
    polled: float = float("-inf")
    decision: Decision = Decision.NONE
    is_final: bool = False  # the client knows the decision
    issued: Issued | None = None


class DeviceCodes:
    """All sign-ins. A code lives ``lifetime_s`` seconds; a client polls every ``interval_s``.

    ``issue`` makes the tokens of an approved sign-in when its client first asks for them.
    """

    def __init__(
        self,
        issue: Callable[[], Issued],
        *,
        lifetime_s: int,
        interval_s: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issue = issue
        self._lifetime_s = lifetime_s
        self._interval_s = interval_s
        self._clock = clock
        self._by_device_code: dict[str, SignIn] = {}
        self._by_user_code: dict[str, SignIn] = {}

    def start(self, address: str) -> SignIn | None:
        """A new sign-in of a client at ``address``; None if there are too many."""
        now = self._clock()
        for old in [each for each in self._by_device_code.values() if each.expires <= now]:
            self._forget(old)
        pending = sum(
            each.decision is Decision.NONE and each.address == address
            for each in self._by_device_code.values()
        )
        if len(self._by_device_code) >= _MOST_CODES or pending >= _MOST_PENDING:
            return None
        user_code = _new_user_code()
        while user_code in self._by_user_code:
            user_code = _new_user_code()
        sign_in = SignIn(
            secrets.token_urlsafe(32), user_code, address, now + self._lifetime_s, self._interval_s
        )
        self._by_device_code[sign_in.device_code] = sign_in
        self._by_user_code[user_code] = sign_in
        return sign_in

    def decide(self, user_code: str, decision: Decision) -> bool:
        """Approve or deny a code. Returns False for an unknown, expired or used code.

        The last decision before the client's poll counts. The same decision may come twice, as from a form.
        """
        sign_in = self._by_user_code.get(normal_user_code(user_code))
        if sign_in is None or sign_in.expires <= self._clock():
            return False
        if sign_in.is_final:
            return sign_in.decision is decision
        sign_in.decision = decision
        return True

    def poll(self, device_code: str) -> Granted | PollError:
        """The answer to a client's poll: the tokens, or an error. For a short time the tokens can be repeated."""
        now = self._clock()
        sign_in = self._by_device_code.get(device_code)
        if sign_in is None or sign_in.expires <= now:
            return EXPIRED
        if sign_in.decision is Decision.NONE:
            return self._pending(sign_in, now)
        again = sign_in.is_final
        sign_in.is_final = True
        if sign_in.decision is Decision.DENIED:
            return DENIED
        if sign_in.issued is None:
            sign_in.issued = self._issue()
            sign_in.expires = now + _REDEEM_AGAIN_S
        return Granted(sign_in.issued, again)

    @staticmethod
    def _pending(sign_in: SignIn, now: float) -> PollError:
        too_fast = now - sign_in.polled < sign_in.interval_s - _JITTER_S
        sign_in.polled = now
        if not too_fast:
            return PENDING
        sign_in.interval_s = min(sign_in.interval_s + _SLOWER_S, _SLOWEST_S)
        return PollError("slow_down", sign_in.interval_s)

    def _forget(self, sign_in: SignIn) -> None:
        del self._by_device_code[sign_in.device_code]
        del self._by_user_code[sign_in.user_code]


def normal_user_code(text: str) -> str:
    """A typed user code in its normal form. It may be in lower case, without the hyphen, or with blanks.

    Of any other text, only letters and digits are left.
    """
    letters = "".join(letter for letter in text.upper() if letter.isascii() and letter.isalnum())
    letters = letters[: 2 * _USER_CODE_LETTERS]
    half = _USER_CODE_LETTERS // 2
    return f"{letters[:half]}-{letters[half:]}" if len(letters) > half else letters


def _new_user_code() -> str:
    return normal_user_code("".join(secrets.choice(ALPHABET) for _ in range(_USER_CODE_LETTERS)))
