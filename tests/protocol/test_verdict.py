"""What an answer means: every row of docs/contract.md and of the failure cases that an answer decides."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from cirron_spool.protocol import verdict as verdict_module
from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.verdict import Action, Verdict, judge, judge_auth

NAME = "01776486598051509000-446a507b2456443f923f85774a0854e3.json"
ORIGIN = "https://app.cirron.com"
NOW = datetime(2026, 4, 18, 4, 29, 58, tzinfo=UTC)

ACKNOWLEDGED, RETRY, REFRESH, REJECTED, STOP = (
    Action.ACKNOWLEDGED,
    Action.RETRY,
    Action.REFRESH,
    Action.REJECTED,
    Action.STOP,
)
JSON = "application/json"
HTML = "text/html; charset=utf-8"
SUCCESS = b'{"success":true}'


def judged(outcome: Answer | NoAnswer) -> Verdict:
    return judge(outcome, name=NAME, origin=ORIGIN, now=NOW)


def answer(
    status: int,
    body: bytes = b"",
    kind: str | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    reason: str = "",
    complete: bool = True,
    delimited: bool = True,
    early: bool = False,
    proxy: str = "",
) -> Answer:
    fields: CIMultiDict[str] = CIMultiDict(headers or {})
    if kind is not None:
        fields["Content-Type"] = kind
    return Answer(status, reason, fields, body, complete, delimited, early, proxy, sent=100)


# -- what was read before ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"body": b'{"success":false}'},
        {"body": b""},
        {"kind": HTML},
        {"kind": "image/png", "body": b"success"},
        {"complete": False},
        {"headers": {"Content-Encoding": "gzip"}},
        {"body": b"", "delimited": False},
        {"status": 202},
    ],
    ids=str,
)
def test_an_answer_is_not_taken_for_one_that_was_read_before(other: dict[str, Any]) -> None:
    usual: dict[str, Any] = {"status": 200, "body": SUCCESS, "kind": JSON}
    verdict_module._doubt.cache_clear()
    alone = judged(answer(**{**usual, **other}))
    for _ in range(3):
        assert judged(answer(**usual)).action is ACKNOWLEDGED
        assert judged(answer(**{**usual, **other})) == alone
    assert verdict_module._doubt.cache_info().hits >= 3


def test_a_doubt_that_was_read_before_speaks_of_the_batch_at_hand() -> None:
    failing = answer(200, b'{"error":"disk full"}', JSON)
    for name in ("first.json", "second.json"):
        verdict = judge(failing, name=name, origin=ORIGIN, now=NOW)
        assert verdict.action is RETRY
        assert verdict.message == (
            f"Upload of {name} was not acknowledged: HTTP 200, but the answer reports an error: disk full"
        )


# -- statuses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", SUCCESS], ids=["empty", "JSON"])
@pytest.mark.parametrize(
    ("status", "action", "exit_code"),
    [
        *[(status, ACKNOWLEDGED, 0) for status in (200, 201, 202, 204)],
        *[(status, STOP, 1) for status in (203, 205, 206, 207, 208, 226, 299)],
        *[(status, STOP, 1) for status in (300, 301, 302, 303, 304, 305, 307, 308, 399)],
        *[(status, REJECTED, 1) for status in (400, 409, 413, 422)],
        (401, REFRESH, 3),
        (403, STOP, 3),
        *[(status, STOP, 1) for status in (402, 404, 405, 406, 407, 410, 411, 412, 414, 415, 416, 418)],
        *[(status, STOP, 1) for status in (421, 423, 424, 426, 428, 431, 451, 499)],
        *[(status, RETRY, 4) for status in (408, 425, 429)],
        *[(status, RETRY, 4) for status in (500, 502, 503, 504, 507, 508, 511, 520, 529, 599)],
        *[(status, STOP, 1) for status in (501, 505)],
        *[(status, STOP, 1) for status in (0, 99, 100, 101, 102, 103, 199, 600, 999)],
    ],
)
def test_every_status(status: int, action: Action, exit_code: int, body: bytes) -> None:
    verdict = judged(answer(status, body, JSON if body else None))
    assert (verdict.action, verdict.status, verdict.exit_code) == (action, status, exit_code)
    assert verdict.retry_after_s is None


@given(st.integers(-10, 1000).filter(lambda status: status not in (200, 201, 202, 204)), st.binary())
def test_no_other_status_ever_deletes(status: int, body: bytes) -> None:
    assert judged(answer(status, body, JSON)).action is not ACKNOWLEDGED


# -- what a success looks like, and what only looks like one ---------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"", None, id="empty"),
        pytest.param(b"", JSON, id="empty JSON, its length given"),
        pytest.param(b"", "text/plain", id="empty text"),
        pytest.param(SUCCESS, JSON, id="JSON"),
        pytest.param(SUCCESS, "Application/JSON; charset=UTF-8", id="JSON, other case and a parameter"),
        pytest.param(SUCCESS, "application/problem+json", id="+json"),
        pytest.param(b"\xef\xbb\xbf" + SUCCESS, JSON, id="JSON with a byte order mark"),
        pytest.param(b" \r\n" + SUCCESS + b"\n", JSON, id="JSON with white space around"),
        pytest.param(SUCCESS, None, id="JSON without a type"),
        pytest.param(SUCCESS, "text/plain", id="JSON as text"),
        pytest.param(b"{}", JSON, id="empty object"),
        pytest.param(b"[]", JSON, id="list"),
        pytest.param(b"null", JSON, id="null"),
        pytest.param(b'{"success":true,"ok":true,"error":null}', JSON, id="null error"),
        pytest.param(b'{"success":null,"ok":0}', JSON, id="nothing said of success"),
        pytest.param(b'{"data":{"success":false}}', JSON, id="a false deeper down"),
        pytest.param(b"1" * 5000, JSON, id="a long number"),
        pytest.param(b"OK", "text/plain", id="text"),
        pytest.param(b" \r\n", "text/plain", id="blank text"),
        pytest.param(b"\xef\xbb\xbf", None, id="only a byte order mark"),
        pytest.param(b"OK", None, id="text without a type"),
        pytest.param("übernommen ✓".encode(), "text/plain; charset=utf-8", id="text in UTF-8"),
    ],
)
def test_acknowledged(status: int, body: bytes, kind: str | None) -> None:
    verdict = judged(answer(status, body, kind))
    assert verdict == Verdict(ACKNOWLEDGED, status, exit_code=0)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize("encoding", [None, "gzip", "br", "nonsense"])
@pytest.mark.parametrize(
    "kind",
    [
        None,
        HTML,
        "TEXT/HTML",
        "application/xhtml+xml",
        "application/xml",
        JSON,
        "image/png",
        "multipart/mixed; boundary=x",
        "text/html, text/plain",
        ";",
        "no type at all",
        "\x1b",
    ],
)
def test_an_empty_answer_that_its_framing_ends_is_acknowledged_whatever_its_type(
    status: int, kind: str | None, encoding: str | None
) -> None:
    headers = None if encoding is None else {"Content-Encoding": encoding}
    assert judged(answer(status, b"", kind, headers=headers)).action is ACKNOWLEDGED
    assert judged(answer(status, b"", kind, headers=headers, complete=False)).action is RETRY


@pytest.mark.parametrize(
    ("name", "values", "action"),
    [
        ("Content-Type", ["text/plain", "text/html"], STOP),
        ("Content-Type", ["text/plain", "text/plain"], ACKNOWLEDGED),
        ("Content-Encoding", ["identity", "gzip"], RETRY),
    ],
)
def test_header_lines_that_differ_are_read_together(name: str, values: list[str], action: Action) -> None:
    headers = CIMultiDict([(name, value) for value in values])
    assert judged(Answer(200, headers=headers, body=b"hello")).action is action


def test_acknowledged_without_headers() -> None:
    assert judged(Answer(204)).action is ACKNOWLEDGED


@pytest.mark.parametrize("complete", [True, False], ids=["whole", "cut"])
@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        pytest.param(b"<p>hi</p>", HTML, id="declared"),
        pytest.param(b" \n", "text/html", id="declared, blank"),
        pytest.param(b"\xef\xbb\xbf", "text/html", id="declared, only a byte order mark"),
        pytest.param(b"hello", "TEXT/HTML", id="declared, other case"),
        pytest.param(SUCCESS, "text/html", id="declared, though it is JSON"),
        pytest.param(b"<html/>", "application/xhtml+xml", id="XHTML"),
        pytest.param(b"<!DOCTYPE html><html></html>", None, id="undeclared doctype"),
        pytest.param(b"<!doctype HTML>", "text/plain", id="doctype as text"),
        pytest.param(b"<HTML><BODY>login", JSON, id="as JSON"),
        pytest.param(b"\xef\xbb\xbf\r\n\t <html lang=en>", None, id="after a byte order mark and blanks"),
        pytest.param(b"<html>\xff", None, id="not UTF-8"),
    ],
)
def test_a_web_page_is_no_acknowledgement(status: int, body: bytes, kind: str | None, complete: bool) -> None:
    verdict = judged(answer(status, body, kind, complete=complete))
    assert (verdict.action, verdict.status, verdict.exit_code) == (STOP, status, 1)
    assert verdict.message == f"Unexpected HTTP {status} for {NAME}: a web page, not an acknowledgement"
    assert "captive portal" in verdict.hint


@pytest.mark.parametrize("kind", [None, "text/plain"], ids=["undeclared", "as text"])
@pytest.mark.parametrize(
    "body",
    [
        b"<head><title>Log in</title></head>",
        b"<!-- portal --><html><body>Log in</body></html>",
        b'<?xml version="1.0"?><!DOCTYPE html><html></html>',
        b"<body>Log in</body>",
        b"<script>location='https://portal.example/'</script>",
        b"<meta http-equiv=refresh content='0; url=https://portal.example/'>",
        b"<title>Log in</title>",
        b"\n" * 600 + b"<html>Log in</html>",
    ],
    ids=lambda body: body.decode()[-40:].strip(),
)
def test_a_web_page_that_does_not_begin_like_one_is_no_acknowledgement(body: bytes, kind: str | None) -> None:
    assert judged(answer(200, body, kind)).action is STOP


@pytest.mark.parametrize(
    "kind", ["text/xml", "application/octet-stream", "image/png", "multipart/mixed", "nonsense"]
)
def test_an_answer_of_another_type_is_no_acknowledgement(kind: str) -> None:
    verdict = judged(answer(200, b"\x01\x02", kind))
    assert verdict.action is STOP
    assert kind in verdict.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"success":false}',
        b'{"ok":false}',
        b'{"error":"quota"}',
        b'{"error":{"message":"quota"}}',
        b'{"error":{}}',
        b'{"error":[]}',
        b'{"error":""}',
        b'{"error":false}',
        b'{"error":0}',
        b'{"success":true,"error":"quota"}',
        b'{"success":true,"ok":false}',
    ],
)
@pytest.mark.parametrize("kind", [JSON, "text/plain", None], ids=["JSON", "text", "undeclared"])
def test_json_that_says_no(body: bytes, kind: str | None) -> None:
    verdict = judged(answer(200, body, kind))
    assert (verdict.action, verdict.status, verdict.exit_code) == (RETRY, 200, 4)
    assert verdict.message.startswith(f"Upload of {NAME} was not acknowledged: HTTP 200, ")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"success":false,"message":"try later"}', "try later"),
        (b'{"error":"quota"}', "quota"),
        (b'{"error":{"message":"quota"}}', "quota"),
        (b'{"ok":false,"detail":"why"}', "why"),
        (b'{"ok":false,"message":"","detail":"why"}', "why"),
        (b'{"ok":false,"message":7,"error":null,"detail":"why"}', "why"),
        (b'{"error":"\\u001b[31mred\\n"}', r"\x1b[31mred\n"),
        (json.dumps({"error": "x" * 5000}).encode(), "x" * 200),
    ],
)
def test_the_servers_words_are_shown_escaped_and_cut(body: bytes, said: str) -> None:
    message = f"Upload of {NAME} was not acknowledged: HTTP 200, but the answer reports an error: {said}"
    assert judged(answer(200, body, JSON)).message == message


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(answer(0, SUCCESS, JSON, complete=False), id="cut, though the JSON is whole"),
        pytest.param(answer(0, complete=False), id="cut before its first byte"),
        pytest.param(answer(0, b"", HTML, complete=False), id="a page cut before its first byte"),
        pytest.param(answer(0, b"", HTML, delimited=False), id="a page ended by the close, nothing of it"),
        pytest.param(answer(0, b"", "image/png", delimited=False), id="an image, nothing of it"),
        pytest.param(
            answer(0, headers={"Content-Encoding": "gzip"}, delimited=False), id="compressed, nothing of it"
        ),
        pytest.param(answer(0, b"O", "text/plain", complete=False), id="text cut"),
        pytest.param(answer(0, SUCCESS[:-1], JSON, delimited=False), id="JSON ended by the close, cut"),
        pytest.param(answer(0, b"", JSON, delimited=False), id="JSON ended by the close, nothing of it"),
        pytest.param(answer(0, b"OK", JSON), id="JSON that is none"),
        pytest.param(answer(0, b"  \n", JSON), id="blank JSON"),
        pytest.param(answer(0, SUCCESS + b"}", JSON), id="JSON and more"),
        pytest.param(answer(0, SUCCESS * 2, JSON), id="two answers in one"),
        pytest.param(answer(0, b"{'success': true}", None), id="undeclared, begins like JSON"),
        pytest.param(answer(0, b"[" * 50_000, JSON), id="too deep"),
        pytest.param(answer(0, b'{"stored":NaN}', JSON), id="NaN, which is no JSON"),
        pytest.param(answer(0, b"-Infinity", JSON), id="infinity, which is no JSON"),
        pytest.param(answer(0, b"\xef\xbb\xbf", JSON), id="JSON that is only a byte order mark"),
        pytest.param(answer(0, b"\xff\xfe", JSON), id="JSON not UTF-8"),
        pytest.param(answer(0, b"caf\xe9", "text/plain"), id="text not UTF-8"),
        pytest.param(answer(0, SUCCESS.decode().encode("utf-16"), JSON), id="UTF-16"),
        pytest.param(
            answer(0, gzip.compress(SUCCESS), JSON, headers={"Content-Encoding": "gzip"}), id="compressed"
        ),
        pytest.param(
            answer(0, SUCCESS, JSON, headers={"Content-Encoding": "br"}), id="said to be compressed"
        ),
        pytest.param(
            answer(0, b"OK", "text/plain", headers={"content-encoding": "GZIP"}), id="compressed text"
        ),
        pytest.param(answer(0, SUCCESS, JSON, early=True), id="before the batch was sent"),
        pytest.param(answer(0, early=True), id="before the batch was sent, empty"),
    ],
)
def test_unreadable_success_is_retried(said: Answer, status: int) -> None:
    verdict = judged(said._replace(status=status))
    assert (verdict.action, verdict.status, verdict.exit_code) == (RETRY, status, 4)
    assert verdict.message.startswith(f"Network error uploading {NAME}: HTTP {status}, but ")


@pytest.mark.parametrize("encoding", ["identity", " Identity ", ""])
def test_an_answer_that_is_not_compressed_may_say_so(encoding: str) -> None:
    said = answer(200, SUCCESS, JSON, headers={"Content-Encoding": encoding})
    assert judged(said).action is ACKNOWLEDGED


def test_a_close_delimited_answer_that_is_whole_is_acknowledged() -> None:
    assert judged(answer(200, SUCCESS, JSON, delimited=False)).action is ACKNOWLEDGED
    assert judged(answer(200, b"OK", "text/plain", delimited=False)).action is ACKNOWLEDGED


@pytest.mark.parametrize("body", [SUCCESS, b'[{"stored":"0a"}]'])
def test_json_cut_at_every_byte_is_never_acknowledged(body: bytes) -> None:
    # Ended by the close, where a cut looks like an end.
    for length in range(len(body)):
        assert judged(answer(200, body[:length], JSON, delimited=False)).action is RETRY, length
    assert judged(answer(200, body, JSON, delimited=False)).action is ACKNOWLEDGED


# -- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "message"),
    [
        pytest.param(answer(302), f"Unexpected HTTP 302 for {NAME}", id="302"),
        pytest.param(answer(405), f"Unexpected HTTP 405 for {NAME}", id="405"),
        pytest.param(answer(206), f"Unexpected HTTP 206 for {NAME}", id="206"),
        pytest.param(answer(501), f"Unexpected HTTP 501 for {NAME}", id="501"),
        pytest.param(answer(999), f"Unexpected HTTP 999 for {NAME}", id="999"),
        pytest.param(answer(401), f"Auth rejected (401) for {NAME}. Run cirron auth login.", id="401"),
        pytest.param(
            answer(403, reason="Forbidden"), f"Permission denied (403) for {NAME}: Forbidden", id="403"
        ),
        pytest.param(
            answer(403), f"Permission denied (403) for {NAME}: Forbidden", id="403 without a reason"
        ),
        pytest.param(
            answer(403, b'{"error":"not your project"}', JSON, reason="Forbidden"),
            f"Permission denied (403) for {NAME}: not your project",
            id="403 with the server's word",
        ),
        pytest.param(
            answer(404),
            f"Ingest route /api/traces not available on {ORIGIN} (404). "
            "Platform may not have shipped the route yet.",
            id="404",
        ),
        pytest.param(
            answer(400, reason="Bad Batch"), f"Rejected {NAME}: HTTP 400 Bad Batch", id="400 and its reason"
        ),
        pytest.param(answer(409), f"Rejected {NAME}: HTTP 409 Conflict", id="409"),
        pytest.param(
            answer(422, reason="\x1b[2Jgone\x07"), rf"Rejected {NAME}: HTTP 422 \x1b[2Jgone\x07", id="escapes"
        ),
        pytest.param(
            answer(400, reason="x" * 9000), f"Rejected {NAME}: HTTP 400 {'x' * 200}", id="a long reason"
        ),
        pytest.param(
            answer(503, reason="Busy"), f"Upload of {NAME} failed: HTTP 503 Busy", id="503 and its reason"
        ),
        pytest.param(answer(599), f"Upload of {NAME} failed: HTTP 599 Unknown Status", id="599"),
        pytest.param(
            NoAnswer("timed out after 30000ms"),
            f"Network error uploading {NAME}: timed out after 30000ms",
            id="timeout",
        ),
        pytest.param(
            NoAnswer("cannot resolve \x1b]0;x\x07"),
            rf"Network error uploading {NAME}: cannot resolve \x1b]0;x\x07",
            id="network, escapes",
        ),
    ],
)
def test_messages(said: Answer | NoAnswer, message: str) -> None:
    assert judged(said).message == message


def test_no_answer_is_retried_unless_no_retry_can_help() -> None:
    lost, hopeless = judged(NoAnswer("reset")), judged(NoAnswer("TLS failed", fatal=True))
    assert (lost.action, lost.status, lost.exit_code) == (RETRY, None, 4)
    assert (hopeless.action, hopeless.status, hopeless.exit_code) == (STOP, None, 1)


def test_redirects_show_where_they_lead() -> None:
    where = "https://evil.example/\x1b[2J" + "a" * 9000
    hint = judged(answer(302, headers={"Location": where})).hint
    assert hint.startswith(r"The server redirects to https://evil.example/\x1b[2Jaaa")
    assert len(hint) < 400
    assert "apiUrl" in hint
    assert judged(answer(307)).hint.startswith("The server redirects. ")


def test_a_proxy_that_asks_for_credentials_is_named() -> None:
    assert judged(answer(407, proxy="http://proxy.example:3128\x1b")).hint.startswith(
        r"The proxy http://proxy.example:3128\x1b asks for credentials."
    )
    assert judged(answer(407)).hint.startswith("A proxy asks for credentials.")


def test_a_rejection_names_the_way_out_and_the_servers_word() -> None:
    hint = judged(answer(400, b'{"detail":"no\\u001bspans"}', JSON)).hint
    assert hint.startswith(r"The server said: no\x1bspans. It stays in the spool.")
    assert "--quarantine" in hint
    assert judged(answer(400, b"[1]", JSON)).hint.startswith("It stays in the spool.")


def test_an_unexpected_status_shows_the_servers_word() -> None:
    hint = judged(answer(415, b'{"message":"send JSON"}', JSON)).hint
    assert hint == "The server said: send JSON. Check apiUrl; nothing was deleted."
    assert judged(answer(415, b"\xff")).hint == "Check apiUrl; nothing was deleted."


# -- Retry-After -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        ("120", 120.0),
        (format_datetime(NOW + timedelta(seconds=119), usegmt=True), 119.0),
        (format_datetime(NOW + timedelta(seconds=120), usegmt=True), 120.0),
        (format_datetime(NOW - timedelta(seconds=1), usegmt=True), None),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after(status: int, value: str, seconds: float | None) -> None:
    verdict = judged(answer(status, headers={"retry-after": value}))
    assert (verdict.action, verdict.exit_code, verdict.retry_after_s) == (RETRY, 4, seconds)


@pytest.mark.parametrize("date", [NOW + timedelta(hours=1), NOW - timedelta(days=400)])
def test_a_retry_after_date_counts_from_the_answers_own_date(date: datetime) -> None:
    def said(seconds: float) -> Verdict:
        asked = format_datetime(date + timedelta(seconds=seconds), usegmt=True)
        headers = {"Date": format_datetime(date, usegmt=True), "Retry-After": asked}
        return judged(answer(503, headers=headers))

    assert said(3).retry_after_s == 3.0
    assert said(0).retry_after_s is None
    assert said(-3).retry_after_s is None
    # When to come back is told by our own clock, which is the one that a person reads.
    assert "after 2026-04-18T04:34:58Z (in 300 s)" in said(300).message


@pytest.mark.parametrize("date", ["", "now", "Sat, 18 Apr 2026 04:29:58 +0000", "9" * 400])
def test_without_a_valid_date_of_its_own_our_clock_counts(date: str) -> None:
    headers = {"Date": date, "Retry-After": format_datetime(NOW + timedelta(seconds=9), usegmt=True)}
    assert judged(answer(503, headers=headers)).retry_after_s == 9.0


@pytest.mark.parametrize(
    ("value", "when"),
    [
        ("121", "Run the flush again after 2026-04-18T04:31:59Z (in 121 s), as the server asks."),
        (
            "1000000000",
            "Run the flush again after 2057-12-25T06:16:38Z (in 1000000000 s), as the server asks.",
        ),
        (
            format_datetime(NOW + timedelta(seconds=121), usegmt=True),
            "Run the flush again after 2026-04-18T04:31:59Z (in 121 s), as the server asks.",
        ),
        (
            "9" * 17,
            "The server asks for a wait beyond the year 9999. Ask its operators, then run the flush again.",
        ),
        (
            "9" * 40,
            "The server asks for a wait beyond the year 9999. Ask its operators, then run the flush again.",
        ),
    ],
)
def test_beyond_two_minutes_the_flush_ends_and_says_when(value: str, when: str) -> None:
    verdict = judged(answer(429, headers={"Retry-After": value}))
    assert (verdict.action, verdict.status, verdict.exit_code, verdict.retry_after_s) == (STOP, 429, 4, None)
    assert verdict.message == f"Upload of {NAME} failed: HTTP 429 Too Many Requests. {when}"


def test_retry_after_counts_only_where_a_retry_is_due() -> None:
    for status in (200, 202, 302, 400, 401, 403, 404, 501):
        verdict = judged(answer(status, headers={"Retry-After": "9"}))
        assert verdict.retry_after_s is None
        assert verdict.action is not RETRY


# -- anything at all -------------------------------------------------------------------------------------------------

TEXT = st.text(st.characters()) | st.sampled_from(
    [JSON, HTML, "text/plain", "gzip", "identity", "120", "9" * 30]
)
ANSWERS = st.builds(
    Answer,
    status=st.integers(-1, 1000) | st.sampled_from([200, 201, 202, 204, 400, 401, 403, 429, 503]),
    reason=TEXT,
    headers=st.none()
    | st.dictionaries(
        st.sampled_from(
            ["Content-Type", "Content-Encoding", "Date", "Retry-After", "Location", "Set-Cookie"]
        ),
        TEXT,
    ).map(CIMultiDict),
    body=st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.floats() | TEXT,
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["success", "ok", "error", "message", "detail"]) | TEXT, inner)
        ),
    ).map(lambda document: json.dumps(document).encode()),
    complete=st.booleans(),
    delimited=st.booleans(),
    early=st.booleans(),
    proxy=TEXT,
)


@given(ANSWERS | st.builds(NoAnswer, TEXT, st.booleans()))
@example(Answer(200, body=b"[" * 100_000))
@example(Answer(400, body=b"[" * 100_000))
@example(Answer(429, headers=CIMultiDict({"Retry-After": "9" * 5000})))
@example(Answer(429, headers=CIMultiDict({"Retry-After": "Fri, 31 Dec 9999 23:59:60 GMT"})))
@example(Answer(407, proxy_source="\x1f"))
def test_judge_never_raises_and_says_something_that_can_be_printed(outcome: Answer | NoAnswer) -> None:
    verdict = judged(outcome)
    for text in (verdict.message, verdict.hint):
        text.encode()
        assert text.isprintable() or all(char.isprintable() or ord(char) > 0x9F for char in text)
    assert (verdict.action is ACKNOWLEDGED) == (verdict.exit_code == 0)
    assert (verdict.message == "") == (verdict.action is ACKNOWLEDGED)
    assert verdict.status == (outcome.status if isinstance(outcome, Answer) else None)
    if verdict.retry_after_s is not None:
        assert 0 <= verdict.retry_after_s <= 120
        assert verdict.action is RETRY


@given(ANSWERS)
def test_only_a_whole_and_timely_success_is_ever_acknowledged(outcome: Answer) -> None:
    if judged(outcome).action is ACKNOWLEDGED:
        assert outcome.status in (200, 201, 202, 204)
        assert outcome.complete
        assert not outcome.early
        assert not outcome.body or "html" not in outcome.header("Content-Type").lower()


STAYS = "It stays in the spool. Run again with --quarantine to set rejected batches aside."


# -- to the letter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "action", "message", "hint"),
    [
        (
            answer(400, b'{"error":"schema"}', JSON),
            REJECTED,
            f"Rejected {NAME}: HTTP 400 Bad Request",
            f"The server said: schema. {STAYS}",
        ),
        (
            answer(200, SUCCESS, JSON, early=True),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer came before the batch was sent",
            "",
        ),
        (
            answer(200, b"hello", "application/xhtml+xml"),
            STOP,
            f"Unexpected HTTP 200 for {NAME}: a web page, not an acknowledgement",
            "A captive portal or a fallback page answered. Log in to the network, or check apiUrl.",
        ),
        (
            answer(200, SUCCESS, JSON, complete=False),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer was cut or too long",
            "",
        ),
        (
            answer(200, b"", JSON, delimited=False),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer was cut",
            "",
        ),
        (
            answer(200, b"", "application/problem+json", delimited=False),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer was cut",
            "",
        ),
        (
            answer(200, SUCCESS, JSON, headers={"Content-Encoding": "gzip"}),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer is compressed, which was not asked for",
            "",
        ),
        (
            answer(200, b"\xff", JSON),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer is not text",
            "",
        ),
        (
            answer(200, b"fine", "application/problem+json"),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer is not valid JSON",
            "",
        ),
        (
            answer(200, b"[", "text/plain"),
            RETRY,
            f"Network error uploading {NAME}: HTTP 200, but the answer is not valid JSON",
            "",
        ),
        (
            answer(200, b"ok", "image/" + "x" * 100),
            STOP,
            f"Unexpected HTTP 200 for {NAME}: an answer of type image/{'x' * 74}, not an acknowledgement",
            "Something other than the platform may have answered. Check apiUrl.",
        ),
        (
            answer(503, b'{"error":{"message":"back at noon"}}', JSON),
            RETRY,
            f"Upload of {NAME} failed: HTTP 503 Service Unavailable",
            "The server said: back at noon.",
        ),
        (
            answer(429, b'{"detail":"quota\\u001b!"}', JSON),
            RETRY,
            f"Upload of {NAME} failed: HTTP 429 Too Many Requests",
            r"The server said: quota\x1b!",
        ),
        (
            answer(500, b"<html>", "text/html"),
            RETRY,
            f"Upload of {NAME} failed: HTTP 500 Internal Server Error",
            "",
        ),
        # What looks a little like the above, and acknowledges.
        (answer(200, b"", "text/plain", delimited=False), ACKNOWLEDGED, "", ""),
        (answer(200, b"~<b>", "text/plain"), ACKNOWLEDGED, "", ""),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 20 else "",
)
def test_each_line_to_the_letter(outcome: Answer, action: Action, message: str, hint: str) -> None:
    verdict = judged(outcome)
    assert (verdict.action, verdict.message, verdict.hint) == (action, message, hint)


def test_what_an_answer_and_a_verdict_are_unless_it_is_said() -> None:
    assert Answer(200) == Answer(200, "", None, b"", True, True, False, "", 0)
    assert Answer(200).header("Content-Type") == ""
    assert answer(200).header("Content-Type") == ""
    assert Verdict(STOP, 404) == Verdict(STOP, 404, "", "", "", 1, None)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"no JSON", b'{"message":""}', b'{"error":{"message":7}}']
)
def test_a_rejection_that_says_nothing(body: bytes) -> None:
    verdict = judged(answer(400, body, JSON))
    assert (verdict.server_message, verdict.hint) == ("", STAYS)


@pytest.mark.parametrize(
    ("said", "shown"), [("no", "no. "), ("no.", "no. "), ("no!", "no! "), ("no?", "no? "), ("no,", "no,. ")]
)
def test_what_the_server_said_ends_as_a_sentence(said: str, shown: str) -> None:
    verdict = judged(answer(400, json.dumps({"message": said}).encode(), JSON))
    assert (verdict.server_message, verdict.hint) == (said, f"The server said: {shown}{STAYS}")


@pytest.mark.parametrize("status", [299, 300, 301, 398, 399, 402])
def test_what_is_called_a_redirect(status: int) -> None:
    verdict = judged(answer(status, headers={"Location": "https://elsewhere.example/"}))
    redirect = (
        "The server redirects to https://elsewhere.example/. "
        "Redirects are never followed. Set apiUrl to the address of the platform."
    )
    assert verdict.hint == (redirect if 300 <= status < 400 else "Check apiUrl; nothing was deleted.")


@pytest.mark.parametrize(
    ("proxy", "who"), [("", "A proxy"), ("proxy.example:3128", "The proxy proxy.example:3128")]
)
def test_the_line_about_a_proxy_that_asks_for_credentials(proxy: str, who: str) -> None:
    assert judged(answer(407, proxy=proxy)).hint == (
        f"{who} asks for credentials. Set them in HTTPS_PROXY or HTTP_PROXY, or exempt the host in NO_PROXY."
    )


TOKEN = "sk-S3cretS3cretS3cretS3cretS3cretS3cretS3cretS3cretS3"
CUT = "x" * 170 + " " + TOKEN


@pytest.mark.parametrize(
    "answer",
    [
        Answer(422, body=json.dumps({"message": CUT}).encode()),
        Answer(422, CUT),
        Answer(403, body=json.dumps({"error": {"message": CUT}}).encode()),
        Answer(503, body=json.dumps({"detail": CUT}).encode()),
        Answer(503, CUT),
        Answer(302, headers=CIMultiDict({"Location": f"https://a/{CUT}"})),
        Answer(200, headers=CIMultiDict({"Content-Type": f"a/{'x' * 60}{TOKEN}"}), body=b"?"),
        Answer(200, body=json.dumps({"success": False, "message": CUT}).encode()),
    ],
    ids=lambda answer: str(answer.status),
)
def test_a_cut_shows_no_part_of_a_secret(answer: Answer) -> None:
    verdicts = [
        judge(answer, name=NAME, origin="https://a", now=NOW, secrets=(TOKEN,)),
        judge_auth(answer, failed="The token could not be renewed", now=NOW, secrets=(TOKEN,)),
    ]
    for verdict in verdicts:
        assert "s3cret" not in f"{verdict.message} {verdict.hint} {verdict.server_message}".lower()
    assert verdicts[0].action is judge(answer, name=NAME, origin="https://a", now=NOW).action
