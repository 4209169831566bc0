"""The verdict on an answer to a snapshot upload. It differs from that of a batch as docs/contract.md says."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.answer_body import is_json, is_page, media_type
from cirron_spool.protocol.verdict import Action, Verdict, judge
from cirron_spool.text import printable, redact

# The answers of a platform that has no route for snapshots.
WITHOUT_ROUTE = frozenset({404, 405, 501})

# A longer body, or one with several lines, is not an address.
_LONGEST_URI = 1024


def judge_snapshot(
    outcome: Answer | NoAnswer, *, key: str, origin: str, now: datetime, secrets: tuple[str, ...] = ()
) -> Verdict:
    """The verdict on an upload of the snapshot ``key`` to ``origin``; ``now`` (aware) dates Retry-After.

    Every 2xx acknowledges, since blob stores answer differently. The exceptions are a web page, a cut answer, an answer
    before the end of the body, and JSON with an error. ``server_message`` of an acknowledgement is the snapshot's
    address on the platform, or empty.
    """
    if isinstance(outcome, Answer) and 200 <= outcome.status <= 299:
        uri, status = _uri_in(outcome, secrets), outcome.status
        kind, body = outcome.header("Content-Type"), outcome.body
        if not (is_page(kind, body) or is_json(kind, body)):
            outcome = outcome._replace(headers=None, body=b"")  # the type does not matter
        verdict = judge(outcome._replace(status=200), name=key, origin=origin, now=now, secrets=secrets)
        is_acknowledged = verdict.action is Action.ACKNOWLEDGED
        return replace(verdict, status=status, server_message=uri if is_acknowledged else "")
    verdict = judge(outcome, name=key, origin=origin, now=now, secrets=secrets)
    if verdict.status in WITHOUT_ROUTE:
        message = f"{origin} takes no snapshots yet (HTTP {verdict.status}). They stay on disk."
        return Verdict(Action.STOP, verdict.status, message)
    if verdict.action is Action.REJECTED:
        message = verdict.server_message.removesuffix(".")
        said = f"The server said: {message}. " if message else ""
        return replace(verdict, hint=f"{said}The snapshot stays on disk.")
    return verdict


def _uri_in(answer: Answer, secrets: tuple[str, ...]) -> str:
    """The snapshot's address on the platform: the header Location, or a short line of text."""
    text, kind = answer.header("Location"), answer.header("Content-Type")
    if not text and media_type(kind) in ("", "text/plain") and not is_json(kind, answer.body):
        text = answer.body[: _LONGEST_URI + 1].decode("utf-8", "replace").strip()
    if len(text) > _LONGEST_URI or "\n" in text:
        return ""
    return redact(printable(text), *secrets)
