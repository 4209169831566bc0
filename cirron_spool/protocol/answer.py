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

    ``complete``: the whole body was read, and its end was certain or the connection was closed in order.
    ``delimited``: a length or chunks framed the body, so a cut would show. ``early``: the answer came before the last
    byte of the request was sent. ``proxy`` is the address of the HTTP proxy of the request, or empty.
    ``proxy_source`` is the variable that names the proxy. ``sent`` counts the bytes of request body. ``secrets`` are
    the tokens that no text about the answer may show.
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

    ``hint`` is one more line for a person, with the next step.
    """

    message: str
    fatal: bool = False
    hint: str = ""
