"""The meaning of an answer to an upload.

An HTTP answer, or its absence, becomes one :class:`Verdict`. The tables below are those of docs/contract.md, Answers.
This module does not know the HTTP client, the number of the attempt, or the clock.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto
from functools import lru_cache, partial
from http import HTTPStatus

from cirron_spool.errors import EXIT_ATTENTION, EXIT_AUTH, EXIT_OK, EXIT_TEMPFAIL
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.answer_body import is_json, is_markup, media_type
from cirron_spool.protocol.retry import LONGEST_RETRY_AFTER_S, parse_retry_after
from cirron_spool.text import printable, redact

# The default ingest route.
INGEST_PATH = "/api/traces"

# Longest text of a server in a message: enough for a sentence.
_SHOWN_CHARS = 200


class Action(Enum):
    """The next step of the flush."""

    ACKNOWLEDGED = auto()  # delete the file
    RETRY = auto()  # send the same bytes again after a delay
    REFRESH = auto()  # renew the token and resend once; a stop without a renewal
    REJECTED = auto()  # the batch is refused: stop, or move it to the quarantine
    STOP = auto()  # nothing later is sent


@dataclass(frozen=True, slots=True)
class Verdict:
    """The meaning of one attempt.

    ``exit_code`` is the exit code of a flush that ends on this verdict. ``hint`` is one more line for a person.
    ``server_message`` is the server's text about a rejection. ``reason`` is the part of ``message`` after the batch's
    name. ``retry_after_s`` is the delay in seconds that the server asked for, at most LONGEST_RETRY_AFTER_S.
    ``later_s`` is a longer one: the flush ends and does not wait.
    """

    action: Action
    status: int | None
    message: str = ""
    hint: str = ""
    server_message: str = ""
    exit_code: int = EXIT_ATTENTION
    retry_after_s: float | None = None
    reason: str = ""
    later_s: float | None = None

    @property
    def is_common(self) -> bool:
        """Whether the answer is about the platform or the token: it would be the same for each batch."""
        return self.action in (Action.STOP, Action.REFRESH) or self.later_s is not None

    def retry_line(self, delay_s: float, number: int) -> str:
        """One line for a person before attempt ``number``, which follows in ``delay_s`` seconds."""
        return f"{self.message}. Attempt {number} in {delay_s:.1f} s."


_ACKNOWLEDGING = frozenset({200, 201, 202, 204})
_REJECTING = frozenset({400, 409, 413, 422})
_TRANSIENT = frozenset({408, 425, 429})
# Server errors that no retry heals: the route or the protocol version is not implemented.
_PERMANENT_5XX = frozenset({501, 505})

# Shared verdicts: most answers are acknowledgements.
_ACKNOWLEDGED = {
    status: Verdict(Action.ACKNOWLEDGED, status, exit_code=EXIT_OK) for status in sorted(_ACKNOWLEDGING)
}


def judge(
    outcome: Answer | NoAnswer,
    *,
    name: str,
    origin: str,
    path: str = INGEST_PATH,
    now: datetime,
    secrets: tuple[str, ...] = (),
) -> Verdict:
    """The verdict on an upload of batch ``name`` to ``path`` on ``origin``; ``now`` (aware) dates Retry-After.

    The texts of the verdict never show any part of ``secrets``.
    """
    if isinstance(outcome, NoAnswer):
        return _judge_no_answer(outcome, f"Network error uploading {name}", secrets)
    status = outcome.status
    if status in _ACKNOWLEDGING:
        return _judge_success(outcome, name, secrets)
    outcome = outcome._replace(secrets=secrets)
    if status in _REJECTING:
        return Verdict(
            Action.REJECTED,
            status,
            f"Rejected {name}: {_status_line(outcome)}",
            server_message=_server_message(outcome),
            hint=_with_server_message(
                outcome, "It stays in the spool. Run again with --quarantine to set rejected batches aside."
            ),
        )
    if is_temporary(status):
        return _retry(outcome, f"Upload of {name} failed", now)
    if status == 401:
        message = f"Auth rejected (401) for {name}. Run cirron auth login."
        return Verdict(Action.REFRESH, status, message, exit_code=EXIT_AUTH)
    if status == 403:
        said = _server_message(outcome) or _reason(outcome)
        return Verdict(
            Action.STOP, status, f"Permission denied (403) for {name}: {said}", exit_code=EXIT_AUTH
        )
    if status == 404:
        message = (
            f"Ingest route {path} not available on {origin} (404). "
            "Platform may not have shipped the route yet."
        )
        return Verdict(Action.STOP, status, message)
    return Verdict(
        Action.STOP, status, f"Unexpected HTTP {status} for {name}", hint=_unexpected_hint(outcome)
    )


def judge_auth(
    outcome: Answer | NoAnswer, *, failed: str, now: datetime, secrets: tuple[str, ...] = ()
) -> Verdict:
    """The verdict on an unexpected answer to a request about tokens. ``failed`` is the start of its message.

    RETRY for a temporary failure or an unreadable answer. Otherwise STOP: with EXIT_AUTH if the platform refuses, with
    EXIT_ATTENTION if something else answered.
    """
    if isinstance(outcome, NoAnswer):
        return _judge_no_answer(outcome, failed, secrets)
    outcome = outcome._replace(secrets=secrets)
    status = outcome.status
    if is_temporary(status):
        return _retry(outcome, failed, now)
    message = f"{failed}: {_status_line(outcome)}"
    if 200 <= status <= 299:
        return _temporary(status, failed, f"HTTP {status}, but the answer could not be read")
    if status < 400 or status == 407:
        return Verdict(Action.STOP, status, message, hint=_unexpected_hint(outcome))
    return Verdict(Action.STOP, status, message, hint=_with_server_message(outcome), exit_code=EXIT_AUTH)


def is_temporary(status: int) -> bool:
    """Whether a later attempt may succeed after an answer with this status."""
    return status in _TRANSIENT or (500 <= status <= 599 and status not in _PERMANENT_5XX)


def _judge_no_answer(outcome: NoAnswer, failed: str, secrets: tuple[str, ...]) -> Verdict:
    reason, hint = redact(printable(outcome.message), *secrets), redact(outcome.hint, *secrets)
    if outcome.fatal:
        return Verdict(Action.STOP, None, f"{failed}: {reason}", hint)
    return _temporary(None, failed, reason, hint)


def _temporary(
    status: int | None, failed: str, reason: str, hint: str = "", retry_after_s: float | None = None
) -> Verdict:
    """The verdict on a failure that another attempt may heal."""
    return Verdict(
        Action.RETRY,
        status,
        f"{failed}: {reason}",
        hint,
        reason=reason,
        exit_code=EXIT_TEMPFAIL,
        retry_after_s=retry_after_s,
    )


def _judge_success(answer: Answer, name: str, secrets: tuple[str, ...]) -> Verdict:
    """The verdict on a 2xx. It acknowledges if it is complete, came after the body, and reports no error."""
    if answer.early:
        return _unreadable(answer.status, name, secrets, "the answer came before the batch was sent")
    kind, encoding = answer.header("Content-Type"), answer.header("Content-Encoding")
    doubt = _doubt(kind, encoding, answer.body, answer.complete, answer.delimited)
    return _ACKNOWLEDGED[answer.status] if doubt is None else doubt(answer.status, name, secrets)


# A function of status, batch name and secrets that returns the verdict.
_Doubt = Callable[[int, str, tuple[str, ...]], Verdict]


# A platform repeats the same answer, so results are cached.
@lru_cache(maxsize=4)
def _doubt(
    content_type: str, content_encoding: str, body: bytes, complete: bool, delimited: bool
) -> _Doubt | None:
    """The objection to an acknowledgement with this type, encoding and body; None without one."""
    kind = media_type(content_type)
    is_plain_encoding = content_encoding.strip().lower() in ("", "identity")
    if not body:
        # A type without a body: if only the end of the connection delimits the answer, the body may be cut.
        no_promise = kind in ("", "text/plain") and is_plain_encoding
        is_certain = complete and (delimited or no_promise)
        return None if is_certain else partial(_unreadable, why="the answer was cut")
    if is_markup(content_type, body):
        return partial(
            _something_else,
            what="a web page",
            hint="A captive portal or a fallback page answered. Log in to the network, or check apiUrl.",
        )
    if not complete:
        return partial(_unreadable, why="the answer was cut or too long")
    if not is_plain_encoding:
        return partial(_unreadable, why="the answer is compressed, which was not asked for")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return partial(_unreadable, why="the answer is not text")
    if is_json(content_type, body):
        return _doubt_in_json(text)
    if kind in ("", "text/plain"):
        return None
    return partial(
        _something_else,
        what="an answer of type ",
        kind=content_type.partition(";")[0].strip(),  # in its original case, so that a secret is found
        hint="Something other than the platform may have answered. Check apiUrl.",
    )


def _doubt_in_json(text: str) -> _Doubt | None:
    try:
        # Python accepts NaN, which is not JSON, and refuses long integers, which are.
        document = json.loads(text, parse_int=float, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return partial(_unreadable, why="the answer is not valid JSON")
    if isinstance(document, dict):
        error = document.get("error")
        if document.get("success") is False or document.get("ok") is False or error is not None:
            return partial(_not_acknowledged, message=_message_in(document))
    return None


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _something_else(
    status: int, name: str, secrets: tuple[str, ...], what: str, hint: str, kind: str = ""
) -> Verdict:
    message = f"Unexpected HTTP {status} for {name}: {what}{_cut(kind, secrets, 80)}, not an acknowledgement"
    return Verdict(Action.STOP, status, message, hint=hint)


def _not_acknowledged(status: int, name: str, secrets: tuple[str, ...], message: str) -> Verdict:
    reason = f"HTTP {status}, but the answer reports an error"
    said = _cut(message, secrets)
    return _temporary(
        status, f"Upload of {name} was not acknowledged", f"{reason}: {said}" if said else reason
    )


def _unreadable(status: int, name: str, secrets: tuple[str, ...], why: str) -> Verdict:
    del secrets  # no text of the answer is shown
    return _temporary(status, f"Network error uploading {name}", f"HTTP {status}, but {why}")


def _retry(answer: Answer, failed: str, now: datetime) -> Verdict:
    reason = _status_line(answer)
    hint = _with_server_message(answer)
    asked_s = parse_retry_after(answer.header("Retry-After"), now, answer.header("Date"))
    if asked_s is None or asked_s <= LONGEST_RETRY_AFTER_S:
        return _temporary(answer.status, failed, reason, hint, asked_s)
    try:
        moment = (now + timedelta(seconds=asked_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        when = f"Run the flush again after {moment} (in {asked_s:.0f} s), as the server asks."
    except OverflowError:
        when = "The server asks for a wait beyond the year 9999. Ask its operators, then run the flush again."
    return Verdict(
        Action.STOP,
        answer.status,
        f"{failed}: {reason}. {when}",
        hint,
        exit_code=EXIT_TEMPFAIL,
        later_s=asked_s,
    )


def _cut(text: str, secrets: tuple[str, ...], length: int = _SHOWN_CHARS) -> str:
    """The first characters of ``text``, escaped. Secrets are redacted before the cut."""
    return redact(printable(text), *secrets)[:length]


def _reason(answer: Answer) -> str:
    if answer.reason:
        return _cut(answer.reason, answer.secrets)
    try:
        return HTTPStatus(answer.status).phrase
    except ValueError:
        return "Unknown Status"


def _status_line(answer: Answer) -> str:
    return f"HTTP {answer.status} {_reason(answer)}"


def _message_in(document: Mapping[str, object]) -> str:
    """The message in a JSON answer, under one of the usual keys."""
    for key in ("message", "error", "detail"):
        value = document.get(key)
        if isinstance(value, Mapping):
            value = value.get("message")
        if isinstance(value, str) and value:
            return value
    return ""


def _server_message(answer: Answer) -> str:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return ""
    return _cut(_message_in(document), answer.secrets) if isinstance(document, dict) else ""


def _with_server_message(answer: Answer, hint: str = "") -> str:
    """The server's message, if any, followed by ``hint``."""
    said = _server_message(answer)
    if not said:
        return hint
    stop = "" if said.endswith((".", "!", "?")) else "."
    return f"The server said: {said}{stop} {hint}".rstrip()


def _unexpected_hint(answer: Answer) -> str:
    if 300 <= answer.status <= 399:
        location = _cut(answer.header("Location"), answer.secrets)
        where = f" to {location}" if location else ""
        return f"The server redirects{where}. Redirects are never followed. Set apiUrl to the address of the platform."
    if answer.status == 407:
        proxy = f"The proxy {printable(answer.proxy)}" if answer.proxy else "A proxy"
        source = printable(answer.proxy_source) or "HTTPS_PROXY or HTTP_PROXY"
        return f"{proxy} asks for credentials. Set them in {source}, or exempt the host in NO_PROXY."
    return _with_server_message(answer, "Check apiUrl; nothing was deleted.")
