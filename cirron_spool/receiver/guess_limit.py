"""A limit on wrong guesses from one address, in bounded memory."""

from __future__ import annotations

import ipaddress
import time
from collections import deque
from collections.abc import Callable

# The time window of the limit, in seconds.
MOST_GUESSES = 5
WINDOW_S = 60.0

# Most remembered addresses. The one with the oldest last guess is forgotten first.
_MOST_ADDRESSES = 1024


class GuessLimit:
    """After ``MOST_GUESSES`` wrong guesses within ``WINDOW_S`` seconds, an address must wait.

    The addresses of one IPv6 network of 64 bits count as one, because one machine can use them all.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._guesses: dict[str, deque[float]] = {}

    def wait_s(self, address: str) -> int:
        """The seconds that this address must wait, 0 for none."""
        guesses = self._guesses.get(_network(address))
        if guesses is None or len(guesses) < MOST_GUESSES:
            return 0
        left = guesses[0] + WINDOW_S - self._clock()
        return int(left) + 1 if left > 0 else 0

    def wrong(self, address: str) -> None:
        """Count a wrong guess."""
        network = _network(address)
        guesses = self._guesses.pop(network, None) or deque(maxlen=MOST_GUESSES)
        if len(self._guesses) >= _MOST_ADDRESSES:
            del self._guesses[next(iter(self._guesses))]
        guesses.append(self._clock())
        self._guesses[network] = guesses


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
