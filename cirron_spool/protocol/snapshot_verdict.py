"""The meaning of an answer to the upload of a snapshot: that of a batch, but for the rows of docs/contract.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import Action, Verdict, judge
from cirron_spool.text import hide, printable

# The answers of a platform that has no route for snapshots.
WITHOUT_ROUTE = frozenset({404, 405, 501})

_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
_PAGE_STARTS = (b"<!doctype html", b"<html")
# A longer body, or one of several lines, is no address.
_LONGEST_URI = 1024


def judge_snapshot(
    outcome: Answer | NoAnswer, *, key: str, origin: str, now: datetime, secrets: tuple[str, ...] = ()
) -> Verdict:
    """The verdict on an upload of the snapshot ``key`` to ``origin``; ``now`` (aware) dates Retry-After.

    Each 2xx acknowledges: a blob store answers as it likes. A web page, a cut answer, an answer before the body was
    sent, and JSON that reports an error do not. ``said`` of an acknowledgement is the platform's address of the
    snapshot, or empty.
    """
    if isinstance(outcome, Answer) and 200 <= outcome.status <= 299:
        said, status = _uri_in(outcome, secrets), outcome.status
        if not (_is_page(outcome) or _is_json(outcome)):
            outcome = outcome._replace(headers=None, body=b"")  # the type says nothing
        verdict = judge(outcome._replace(status=200), name=key, origin=origin, now=now, secrets=secrets)
        return replace(verdict, status=status, said=said if verdict.action is Action.ACKNOWLEDGED else "")
    verdict = judge(outcome, name=key, origin=origin, now=now, secrets=secrets)
    if verdict.status in WITHOUT_ROUTE:
        message = f"{origin} takes no snapshots yet (HTTP {verdict.status}). They stay on disk."
        return Verdict(Action.STOP, verdict.status, message)
    if verdict.action is Action.REJECTED:
        said = f"The server said: {verdict.said.removesuffix('.')}. " if verdict.said else ""
        return replace(verdict, hint=f"{said}The snapshot stays on disk.")
    return verdict


def _kind(answer: Answer) -> str:
    return answer.header("Content-Type").partition(";")[0].strip().lower()


def _is_page(answer: Answer) -> bool:
    start = answer.body.lstrip(b"\xef\xbb\xbf \t\r\n")[:16].lower()
    return bool(answer.body) and (_kind(answer) in _PAGE_TYPES or start.startswith(_PAGE_STARTS))


def _is_json(answer: Answer) -> bool:
    kind = _kind(answer)
    return kind == "application/json" or kind.endswith("+json") or answer.body.lstrip()[:1] == b"{"


def _uri_in(answer: Answer, secrets: tuple[str, ...]) -> str:
    """The address that the platform gives a snapshot: the header Location, or a short line of text."""
    text = answer.header("Location")
    if not text and _kind(answer) in ("", "text/plain") and not _is_json(answer):
        text = answer.body[: _LONGEST_URI + 1].decode("utf-8", "replace").strip()
    if len(text) > _LONGEST_URI or "\n" in text:
        return ""
    return hide(printable(text), *secrets)
