"""The kind of an answer's body: a web page, JSON, or another one."""

from __future__ import annotations

import re

_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
# The start of a web page, by the MIME Sniffing Standard of the WHATWG, section 7.1.
_PAGE_START = re.compile(
    rb"<(?:!doctype html|html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p)[ >]|<!--",
    re.IGNORECASE,
)
# A body may have a byte order mark and white space before its first character.
_BEFORE_THE_START = b"\xef\xbb\xbf \t\r\n"


def media_type(content_type: str) -> str:
    """``text/html`` of ``Text/HTML; charset=utf-8``."""
    return content_type.partition(";")[0].strip().lower()


def is_markup(content_type: str, body: bytes) -> bool:
    """Whether the body is a web page or other markup, whatever its type."""
    return bool(body) and (media_type(content_type) in _PAGE_TYPES or _start_of(body).startswith(b"<"))


def is_page(content_type: str, body: bytes) -> bool:
    """Whether the body is a web page, by its type or by the rules of browsers. Other markup is not."""
    return bool(body) and (
        media_type(content_type) in _PAGE_TYPES or _PAGE_START.match(_start_of(body)) is not None
    )


def is_json(content_type: str, body: bytes) -> bool:
    """Whether the body is JSON by its type, or by its first character."""
    kind = media_type(content_type)
    return kind == "application/json" or kind.endswith("+json") or _start_of(body)[:1] in (b"{", b"[")


def _start_of(body: bytes) -> bytes:
    return body.lstrip(_BEFORE_THE_START)[:16]
