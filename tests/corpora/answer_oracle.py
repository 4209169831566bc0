"""Which raw answers may delete a batch: RFC 9112's framing and docs/contract.md, read from the bytes alone.

It shares no line with the package. MAY is strict: what RFC 9110 or 9112 calls malformed may not delete, unless they
allow a recipient to read past it. MUST is what no client has a reason to doubt.
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple

STATUS_LINE = re.compile(rb"HTTP/1\.([01])[ \t]+([1-5][0-9][0-9])([ \t].*)?")
CLEAN_STATUS_LINE = re.compile(rb"HTTP/1\.[01] [0-9]{3} ([!-~][ -~]{,200})?")
FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*"
)  # a safe context may hold controls (9110, 5.5)
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
CHUNK = re.compile(rb"([0-9A-Fa-f]+)[ \t]*(;[\t -~\x80-\xff]*)?")
CLEAN_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}(;%b(=(%b|\"[!#-Z^-~ ]*\"))?)*" % (TOKEN, TOKEN))
USUAL = re.compile("[\t -~]*")
LONGEST_BODY = 64 * 1024


class Allowed(NamedTuple):
    """Whether an answer may delete a batch, and whether it must."""

    may: bool
    must: bool = False


NO = Allowed(False)


def allowed(raw: bytes, ending: str) -> Allowed:
    """The word on ``raw``, after which the connection stays "open", or ends with a "close" or a "reset"."""
    clean, interim = ending != "reset", 0
    while True:
        head, rest, lines_are_clean = split_head(raw)
        match = STATUS_LINE.fullmatch(head[0]) if head else None
        headers = read_fields(head[1:])
        if match is None or headers is None:
            return NO
        version, status = match[1], int(match[2])
        clean = clean and lines_are_clean and CLEAN_STATUS_LINE.fullmatch(head[0]) is not None
        if status == 101 or status >= 200:
            break
        raw, interim, clean = rest, interim + 1, clean and version == b"1"
    if status not in (200, 201, 202, 204):
        return NO
    framing = headers.get("transfer-encoding", []), headers.get("content-length", [])
    body, left, delimited, framing_is_clean = read_body(rest, status, version, *framing)
    if body is None or len(body) > LONGEST_BODY:
        return NO
    if not delimited and ending != "close":
        return NO
    if not acknowledges(headers, body, delimited):
        return NO
    small = len(head) < 100 and sum(map(len, head)) + len(rest) - len(body) < 4000 and interim < 4
    usual = all(len(values) == 1 and USUAL.fullmatch(values[0]) for values in headers.values())
    return Allowed(True, clean and framing_is_clean and small and usual and not left)


def split_head(raw: bytes) -> tuple[list[bytes], bytes, bool]:
    """The lines of a head, what follows it, and whether each ended in CR LF; no lines when there is no whole head.

    A recipient may take a lone LF for a line's end, skip blanks before the first field (9112, 2.2), and read a folded
    line as a space (9112, 5.2).
    """
    lines: list[bytes] = []
    clean = True
    while True:
        line, lf, raw = raw.partition(b"\n")
        clean = clean and line.endswith(b"\r") and line[:1] != b" " and b"\t" not in line
        line = line.removesuffix(b"\r")
        if not lf or b"\r" in line or b"\0" in line:
            return [], b"", False
        if not line and lines:
            return lines, raw, clean
        if line[:1] not in (b" ", b"\t") or not lines:
            lines.append(line)
        elif len(lines) > 1:
            lines[-1] += b" " + line.strip(b" \t")


def read_fields(lines: list[bytes]) -> dict[str, list[str]] | None:
    """The values of each field, in order; None when a line is no field."""
    headers: dict[str, list[str]] = {}
    for line in lines:
        match = FIELD.fullmatch(line)
        if match is None:
            return None
        headers.setdefault(match[1].decode().lower(), []).append(match[2].decode("latin-1"))
    return headers


def read_body(
    rest: bytes, status: int, version: bytes, codings: list[str], lengths: list[str]
) -> tuple[bytes | None, bytes, bool, bool]:
    """The body (None when it is not whole or not readable), what is left behind it, whether its end was marked.

    And whether nobody has a reason to refuse its framing.
    """
    unreadable = None, b"", True, False
    if status == 204:  # ends with its head, whatever it says (9112, 6.3)
        return b"", rest, True, not codings and lengths in ([], ["0"])
    if codings:
        known = [coding.lower() for coding in codings] == ["chunked"] and not lengths and version == b"1"
        return read_chunks(rest) if known else unreadable
    if lengths:
        if len(lengths) > 1 or not re.fullmatch("[0-9]+", lengths[0]):
            return unreadable
        digits = lengths[0].lstrip("0") or "0"
        size = int(digits) if len(digits) < 10 else LONGEST_BODY + len(rest)
        return (rest[:size], rest[size:], True, True) if len(rest) >= size else unreadable
    return rest, b"", False, True


def read_chunks(rest: bytes) -> tuple[bytes | None, bytes, bool, bool]:
    """As read_body(), of chunks and their trailer."""
    body, clean, unreadable = b"", True, (None, b"", True, False)
    while True:
        line, end, rest = rest.partition(b"\r\n")
        match = CHUNK.fullmatch(line)
        if not end or match is None:
            return unreadable
        clean = clean and CLEAN_CHUNK.fullmatch(line) is not None
        size = int(match[1], 16)
        if size == 0:
            break
        if rest[size : size + 2] != b"\r\n":
            return unreadable
        body, rest = body + rest[:size], rest[size + 2 :]
    trailer, end, left = (b"\r\n" + rest).partition(b"\r\n\r\n")
    fields = read_fields(trailer.split(b"\r\n")[1:])
    if not end or fields is None or b"\0" in trailer or b"\n" in trailer.replace(b"\r\n", b""):
        return unreadable
    return body, left, True, clean and not {"content-length", "transfer-encoding"} & fields.keys()


def acknowledges(headers: dict[str, list[str]], body: bytes, delimited: bool) -> bool:
    """Whether a whole 2xx answer says yes: the table of docs/contract.md."""
    kinds, encodings = (set(headers.get(name, [])) for name in ("content-type", "content-encoding"))
    if not body and delimited:
        return True
    kind = kinds.pop().partition(";")[0].strip().lower() if kinds else ""
    if kinds or any(encoding.lower() not in ("", "identity") for encoding in encodings):
        return False
    if not body:
        return kind in ("", "text/plain")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return False
    start = text.lstrip("\ufeff \t\r\n")[:1]
    if start == "<" or "html" in kind:
        return False
    if kind == "application/json" or kind.endswith("+json") or start in ("{", "["):
        return says_yes(text)
    return kind in ("", "text/plain")


def says_yes(text: str) -> bool:
    """Whether JSON reports no error."""
    try:
        document = json.loads(text, parse_constant=refuse, parse_int=str)
    except (ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return True
    return (
        document.get("success") is not False
        and document.get("ok") is not False
        and document.get("error") is None
    )


def refuse(constant: str) -> None:
    """NaN and infinity are no JSON."""
    raise ValueError(constant)
