"""What a scripted server says, and how badly it says it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .wire import Request


class Gate:
    """Shut until somebody opens it, from any thread; it stays open. For stalls that end when a test says so."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._lock = threading.Lock()

    def open(self) -> None:
        """Let everybody through, now and later."""
        with self._lock:
            if not self._future.done():
                self._future.set_result(None)

    def when_open(self, call: Callable[[], None]) -> None:
        """Call `call` once the gate is open: at once, or later in the thread that opens it."""
        self._future.add_done_callback(lambda _: call())


@dataclass(frozen=True, kw_only=True)
class _Behaviour:
    """The ways of an answer; see ``Answer``. Apart so that only the answer's own parts are positional."""

    raw: bytes | None = None  # sent verbatim in place of everything rendered
    interim: Sequence[int] = ()  # 1xx answers sent as soon as the head is there
    before_body: bool = False  # the answer goes out before the body is read
    read_only: int | None = None  # body bytes read; then stall_before stalls, else reset or close ends it
    stall_before: bool | Gate = False  # silence before the answer: until the gate opens, True for ever
    stall_after_bytes: int | None = None  # silence after so many bytes of the answer
    stall_gate: Gate | None = None  # ends the silence of stall_after_bytes; None for ever
    drip: float | None = None  # seconds between single bytes
    cut_after: int | None = None  # bytes of the answer, then the connection ends
    reset: bool = False  # the connection ends with RST instead of FIN
    close: bool = False  # Connection: close, and it does
    drop: bool = False  # closes after the answer without having said so
    hang: bool = False  # no answer at all until the server ends
    http10: bool = False  # HTTP/1.0, the body delimited by the close
    chunked: bool = False  # the body in chunks of `chunk` bytes
    chunk: int = 7
    extra: bytes = b""  # a left-over after the answer, in the same segment unless extra_gate is given
    extra_gate: Gate | None = None  # the left-over goes out when this opens
    acknowledges: bool | None = None  # None: judged from status and body; `raw` then never does
    late: Callable[[Request], Answer] | None = None  # once the body is there, gives the answer in this place


@dataclass(frozen=True)
class Answer(_Behaviour):
    """One answer: `status`, `reason` (None for the usual one), `headers` as sent, `body`, and its behaviour.

    Content-Length is added unless `headers` has one (it may lie) or the framing excludes it. "For ever" means
    until the server's block ends: nothing that stalls outlives its test.
    """

    status: int = 200
    reason: str | None = None
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""

    def render(self) -> bytes:
        """The bytes of the whole answer, whatever of them will be sent."""
        if self.raw is not None:
            return self.raw
        bodiless = self.status in (204, 304) or self.status < 200
        fields = list(self.headers)
        given = {name.lower() for name, _ in fields}
        body = self.body
        if self.chunked:
            fields.append(("Transfer-Encoding", "chunked"))
            pieces = [body[i : i + self.chunk] for i in range(0, len(body), self.chunk)]
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        elif not (bodiless or self.http10 or "content-length" in given):
            fields.append(("Content-Length", str(len(body))))
        if self.close:
            fields.append(("Connection", "close"))
        head = [f"HTTP/1.{0 if self.http10 else 1} {self.status} {self.phrase}"]
        head += [f"{name}: {value}" for name, value in fields]
        return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body

    @property
    def phrase(self) -> str:
        """The reason phrase."""
        if self.reason is not None:
            return self.reason
        try:
            return HTTPStatus(self.status).phrase
        except ValueError:
            return ""

    @property
    def acknowledged(self) -> bool:
        """Whether this answer, sent whole, is the platform's word that it has the batch.

        Judged here on its own, from the contract, so that the uploader's verdict has something to differ from.
        """
        if self.acknowledges is not None:
            return self.acknowledges
        if self.raw is not None or self.status not in (200, 201, 202, 204):
            return False
        fields = {name.lower(): value for name, value in self.headers}
        if fields.get("content-length", str(len(self.body))) != str(len(self.body)):
            return False
        kind, text = fields.get("content-type", "").lower(), self.body.strip()
        if "html" in kind or text.startswith(b"<"):
            return False
        if "json" not in kind and not text.startswith((b"{", b"[")):
            return True
        try:
            said = json.loads(text) if text else None
        except ValueError:
            return False
        if not isinstance(said, dict):
            return True
        return not (said.get("success") is False or said.get("ok") is False or said.get("error") is not None)


JSON = ("Content-Type", "application/json")
HTML = ("Content-Type", "text/html; charset=utf-8")


def ok(**behaviour: Any) -> Answer:
    """200 with the platform's JSON success."""
    return json_answer({"success": True}, **behaviour)


def json_answer(document: object, status: int = 200, **more: Any) -> Answer:
    """`document` as JSON with its content type; `more` are further fields of ``Answer``."""
    headers = [JSON, *more.pop("headers", ())]
    return Answer(status, headers=headers, body=json.dumps(document).encode(), **more)


def html(status: int = 200, text: str = "<!doctype html><title>Welcome</title>", **more: Any) -> Answer:
    """A web page, as a captive portal or a fallback route gives it."""
    headers = [HTML, *more.pop("headers", ())]
    return Answer(status, headers=headers, body=text.encode(), **more)
