"""An HTTP answer as it was read, or the reason why there is none."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Headers(Protocol):
    """The header lines of an answer, by name whatever its case."""

    def getall(self, name: str, default: tuple[()], /) -> Iterable[str]:
        """The values of all lines of that name, or ``default``."""


class Answer(NamedTuple):
    """One HTTP answer as it was read: at most 64 KB of body, never decompressed.

    ``complete`` says that the whole body was read and that its end was certain or the connection was closed in
    order; ``delimited`` that a length or chunks framed it, so that a cut could not have gone unseen; ``early`` that
    it came before the request's last byte had been handed to the network. ``proxy`` is the address of the HTTP proxy
    that was asked to carry the request, or empty, and ``proxy_source`` the variable that names it; ``sent`` are the
    bytes of request body that went out. ``secrets`` are the tokens that no text about the answer may show.
    """

    status: int
    reason: str = ""
    headers: Headers | None = None
    body: bytes = b""
    complete: bool = True
    delimited: bool = True
    early: bool = False
    proxy: str = ""
    sent: int = 0
    proxy_source: str = ""
    secrets: tuple[str, ...] = ()

    def header(self, name: str) -> str:
        """The header's value, or an empty string. Lines that differ are joined by commas, as HTTP reads them."""
        if self.headers is None:
            return ""
        return ", ".join(dict.fromkeys(self.headers.getall(name, ())))


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No usable answer came. ``message`` says why in a few words; ``fatal`` that no retry can help (TLS, a proxy).

    ``hint`` is one more line for a person: what to do.
    """

    message: str
    fatal: bool = False
    hint: str = ""
