"""HTTP/1.1 as bytes, for a server: the head of a request, the framing of its body, an answer. No sockets, no clock.

Any request that two parsers could read differently is refused: bare line feeds, folded lines, two values for one field,
a length with a transfer coding. The limits are exact, so the segments of a request do not change its verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from cirron_spool.receiver.answers import Answer, RefusedError

# Most bytes of a request line, of a head with its empty line, and of a line between chunks.
MAX_REQUEST_LINE = 8 << 10
MAX_HEAD = 16 << 10
MAX_CHUNK_LINE = 1 << 10
# Most bytes of all chunk extensions and trailer fields of one body.
MAX_BESIDE_CHUNKS = 8 << 10

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/([0-9]\.[0-9])" % _TOKEN)
_FIELD = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)
# Control characters, a lone carriage return or line feed, or a folded line.
_NOT_A_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)|\r\n[ \t]")
_LENGTH = re.compile(r"[0-9]{1,4000}")  # Python reads no longer ones
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})([ \t]*;[\t -~\x80-\xff]*)?")
_CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:[ \t]*|[ \t]*;[\t -~\x80-\xff]*)\r?)?")
_TRAILER_LINE_START = re.compile(rb"(?:%b(?::[\t -~\x80-\xff]*\r?)?|\r)?" % _TOKEN)
_ABSOLUTE = re.compile(r"https?://[^/?#]+", re.IGNORECASE)

# Fields that must have one value. A second value or a list would make the request ambiguous.
_SINGLE = (
    "authorization",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "x-cirron-batch-id",
)


@dataclass(frozen=True, slots=True)
class Head:
    """A request without its body.

    ``path`` has neither query nor origin. ``query`` is the text behind the question mark. The names of ``fields`` are
    in lower case. ``length`` is the body's in bytes, None for one in chunks. ``keep_alive``: the client would send
    another request on this connection.
    """

    method: str
    path: str
    query: str
    fields: Mapping[str, str]
    length: int | None
    keep_alive: bool
    waits_for_continue: bool


def head_length(received: bytearray) -> int | None:
    """The length of the head at the start of ``received``; None for an incomplete head.

    Raises RefusedError as soon as the bytes cannot be a head. ``received`` has no empty lines at its start.
    """
    end = received.find(b"\r\n\r\n", 0, MAX_HEAD)
    head = bytes(received[: MAX_HEAD if end < 0 else end + 4])
    line, line_end, _ = head.partition(b"\r\n")
    if len(line) > MAX_REQUEST_LINE:
        raise RefusedError(414, f"The request line is longer than {MAX_REQUEST_LINE} bytes.")
    if _NOT_A_HEAD.search(head):
        raise RefusedError(400, "The request is not HTTP/1.1.")
    if line_end:
        _request_line(line)
    if end < 0 and len(head) == MAX_HEAD:
        raise RefusedError(431, f"The request's head is longer than {MAX_HEAD} bytes.")
    return None if end < 0 else len(head)


def parse_head(head: bytes) -> Head:
    """A complete head. Raises RefusedError: 400 (malformed, ambiguous), 417, 501 (transfer coding), 505 (version)."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    method, target, version = _request_line(first)
    values: dict[str, list[str]] = {}
    for line in lines:
        found = _FIELD.fullmatch(line)
        if found is None:
            raise RefusedError(400, "A header line is malformed.")
        values.setdefault(found[1].decode().lower(), []).append(found[2].decode("latin-1").strip(" \t"))
    for name in _SINGLE:
        given = values.get(name, [])
        if len(given) > 1 or (given and _is_list(name, given[0])):
            raise RefusedError(400, f"The request is ambiguous: {name.title()} has more than one value.")
    if "host" not in values and version == "1.1":
        raise RefusedError(400, "The Host header is missing.")
    fields = {name: ", ".join(given) for name, given in values.items()}
    length = _length(fields, version)
    expectation = fields.get("expect", "").lower()
    if expectation not in ("", "100-continue"):
        raise RefusedError(417, "Expect must be 100-continue or absent.")
    closing = "close" in (option.strip().lower() for option in fields.get("connection", "").split(","))
    path, _, query = (_ABSOLUTE.sub("", target, count=1) if target[0] != "/" else target).partition("?")
    return Head(
        method=method,
        path=path,
        query=query,
        fields=fields,
        length=length,
        keep_alive=version == "1.1" and not closing,
        waits_for_continue=version == "1.1" and bool(expectation) and length != 0,
    )


def _is_list(name: str, value: str) -> bool:
    """Whether the field has several values with commas between them."""
    if name == "authorization":  # a token may hold a comma, but no blank
        return "," in value and len(value.split()) > 2
    return "," in value and name != "content-type"


def _request_line(line: bytes) -> tuple[str, str, str]:
    """Method, target and version. Raises RefusedError."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise RefusedError(400, "The request line is not METHOD TARGET HTTP/1.1.")
    method, target, version = (part.decode() for part in found.groups())
    if version not in ("1.0", "1.1"):
        raise RefusedError(505, "Only HTTP/1.1 and HTTP/1.0 are supported.")
    return method, target, version


def _length(fields: Mapping[str, str], version: str) -> int | None:
    """The length of the body; None for chunks. Raises RefusedError."""
    length = fields.get("content-length")
    if "transfer-encoding" in fields:
        codings = [coding.strip(" \t").lower() for coding in fields["transfer-encoding"].split(",")]
        if length is not None or version == "1.0" or "" in codings or "chunked" in codings[:-1]:
            raise RefusedError(400, "Transfer-Encoding must be chunked, alone, and without Content-Length.")
        if codings != ["chunked"]:
            raise RefusedError(501, "Only the transfer coding chunked is supported.")
        return None
    if length is None:
        return 0
    if not _LENGTH.fullmatch(length):
        raise RefusedError(400, "Content-Length is not a number.")
    return int(length)


class Framing:
    """Removes the framing from a body. ``done`` is set when the body is complete."""

    def __init__(self, length: int | None) -> None:
        self.done = length == 0
        self._chunked = length is None
        self._left = length or 0  # bytes of the body, or of the chunk, that are to come
        self._in_chunk = False
        self._in_trailer = False
        self._beside = 0

    def take(self, received: bytearray) -> bytes:
        """Remove framing and body from the start of ``received``. Returns the bytes of the body.

        Raises RefusedError (400) as soon as the framing is invalid.
        """
        if not self._chunked:
            body = self._bytes(received)
            self.done = not self._left
            return body
        parts = []
        while not self.done:
            if self._left:
                part = self._bytes(received)
                if not part:
                    break
                parts.append(part)
            elif (line := self._line(received)) is None:
                break
            else:
                self._take_line(line)
        return b"".join(parts)

    def _bytes(self, received: bytearray) -> bytes:
        part = bytes(received[: self._left])
        del received[: len(part)]
        self._left -= len(part)
        return part

    def _line(self, received: bytearray) -> bytes | None:
        """The next line between chunks; None for an incomplete line."""
        end = received.find(b"\n", 0, MAX_CHUNK_LINE)
        line = bytes(received[: MAX_CHUNK_LINE if end < 0 else end])
        if end < 0:
            valid_start = (
                rb"\r?" if self._in_chunk else _TRAILER_LINE_START if self._in_trailer else _CHUNK_LINE_START
            )
            if len(line) == MAX_CHUNK_LINE or not re.fullmatch(valid_start, line):
                raise _broken()
            return None
        if not line.endswith(b"\r"):
            raise _broken()
        del received[: end + 1]
        return line[:-1]

    def _take_line(self, line: bytes) -> None:
        if self._in_chunk:
            # The empty line behind a chunk.
            if line:
                raise _broken()
            self._in_chunk = False
        elif self._in_trailer:
            self._count(line)
            if line and not _FIELD.fullmatch(line):
                raise _broken()
            self.done = not line
        else:
            found = _CHUNK_LINE.fullmatch(line)
            if found is None:
                raise _broken()
            self._count(found[2] or b"")
            self._left = int(found[1], 16)
            self._in_chunk = bool(self._left)
            self._in_trailer = not self._left

    def _count(self, beside: bytes) -> None:
        self._beside += len(beside)
        if self._beside > MAX_BESIDE_CHUNKS:
            raise _broken()


def _broken() -> RefusedError:
    return RefusedError(400, "The chunks of the body are malformed.")


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def encode(answer: Answer, *, close: bool, with_body: bool = True) -> bytes:
    """The bytes of an answer. ``close``: the connection ends. ``with_body``: False for an answer to HEAD."""
    is_page = isinstance(answer.content, str)
    body = answer.content.encode() if isinstance(answer.content, str) else json.dumps(answer.content).encode()
    fields = {
        "Date": formatdate(usegmt=True),
        "Content-Type": "text/html; charset=utf-8" if is_page else "application/json",
        "Content-Length": str(len(body)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        **answer.fields,
        **({"Connection": "close"} if close else {}),
    }
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    return "\r\n".join([*lines, "", ""]).encode() + (body if with_body else b"")
