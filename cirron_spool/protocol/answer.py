"""An HTTP answer, or the reason for its absence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Headers(Protocol):
    """The header lines of an answer. Names are case-insensitive."""

    def getall(self, name: str, default: tuple[()], /) -> Iterable[str]:
        """The values of all lines of that name, or ``default``."""


class Answer(NamedTuple):
    """One HTTP answer, with at most 64 KB of body, not decompressed.

    ``complete`` is True if the whole body was read, and was delimited or ended with an orderly close. ``delimited`` is
    True if a length or chunks framed the body, so that a cut is visible. ``early`` is True if the answer came before
    the end of the request. ``proxy`` is the address of the HTTP proxy, or empty. ``proxy_source`` is the variable with
    the proxy. ``sent`` counts the bytes of the request body. ``secrets`` are tokens that no message may show.
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
        """The header's value, or an empty string. As in HTTP, commas join different lines."""
        if self.headers is None:
            return ""
        return ", ".join(dict.fromkeys(self.headers.getall(name, ())))


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There is no usable answer. ``message`` is the short reason. ``fatal`` is True if no retry helps (TLS, a proxy).

    ``hint`` is one more line for a person, with the next step.
    """

    message: str
    fatal: bool = False
    hint: str = ""
