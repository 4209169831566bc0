"""The verdicts on snapshots, where they differ from those on batches."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from cirron_spool.protocol.answer import Answer, NoAnswer
from cirron_spool.protocol.snapshot_verdict import judge_snapshot
from cirron_spool.protocol.verdict import Action, Verdict

KEY = "snapshots/ab/weights.safetensors"
ORIGIN = "https://app.example.com"
NOW = datetime(2026, 4, 18, tzinfo=UTC)


def judged(
    status: int, body: bytes = b"", kind: str | None = None, *, location: str = "", early: bool = False
) -> Verdict:
    fields = {"Content-Type": kind, "Location": location or None}
    headers = CIMultiDictProxy(CIMultiDict({name: value for name, value in fields.items() if value}))
    answer = Answer(status, headers=headers, body=body, early=early)
    return judge_snapshot(answer, key=KEY, origin=ORIGIN, now=NOW, secrets=("sk-secret",))


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 206, 299])
@pytest.mark.parametrize("kind", [None, "text/plain", "application/xml", "application/octet-stream"])
def test_each_2xx_acknowledges(status: int, kind: str | None) -> None:
    verdict = judged(status, b"" if status == 204 else b"<ok/>", kind)
    assert (verdict.action, verdict.status, verdict.exit_code) == (Action.ACKNOWLEDGED, status, 0)


@pytest.mark.parametrize(
    ("body", "kind", "location", "uri"),
    [
        (b"", None, "/blobs/1", "/blobs/1"),
        (b" s3://bucket/1\n", "text/plain", "", "s3://bucket/1"),
        (b"s3://bucket/1", None, "", "s3://bucket/1"),
        (b'{"success": true}', "application/json", "", ""),
        (b"two\nlines", "text/plain", "", ""),
        (b"x" * 2000, "text/plain", "", ""),
        (b"", None, "/\x1b[31m/sk-secret", "/\\x1b[31m/"),
    ],
)
def test_its_address(body: bytes, kind: str | None, location: str, uri: str) -> None:
    said = judged(201, body, kind, location=location).server_message
    assert said == uri or (uri.endswith("m/") and said.startswith(uri) and "sk-secret" not in said)


@pytest.mark.parametrize(
    ("body", "kind", "action"),
    [
        (b"<!DOCTYPE html><p>Log in", "text/html", Action.STOP),
        (b"\xef\xbb\xbf\n<html>", "text/plain", Action.STOP),
        (b"Log in", "text/html", Action.STOP),
        (b"<!-- portal --><p>Log in", None, Action.STOP),
        (b"<SCRIPT >location='/login'", "text/plain", Action.STOP),
        (b"<head><title>Log in", "application/octet-stream", Action.STOP),
        (b'\xef\xbb\xbf {"ok": false}', None, Action.RETRY),
        (b'{"success": false}', "application/json", Action.RETRY),
        (b'{"error": "full"}', None, Action.RETRY),
        (b'{"succ', "application/json", Action.RETRY),
    ],
)
def test_a_page_or_an_error_does_not(body: bytes, kind: str | None, action: Action) -> None:
    assert judged(200, body, kind).action is action


def test_an_answer_before_the_body_or_a_cut_one_does_not() -> None:
    assert judged(201, early=True).action is Action.RETRY
    cut = Answer(201, body=b"s3:/", complete=False)
    assert judge_snapshot(cut, key=KEY, origin=ORIGIN, now=NOW).action is Action.RETRY
    lost = judge_snapshot(NoAnswer("reset"), key=KEY, origin=ORIGIN, now=NOW)
    assert (lost.action, lost.message) == (Action.RETRY, f"Network error uploading {KEY}: reset")


@pytest.mark.parametrize(
    ("status", "action", "exit_code"),
    [
        (400, Action.REJECTED, 1),
        (401, Action.REFRESH, 3),
        (403, Action.STOP, 3),
        (404, Action.STOP, 1),
        (405, Action.STOP, 1),
        (409, Action.REJECTED, 1),
        (429, Action.RETRY, 4),
        (500, Action.RETRY, 4),
        (501, Action.STOP, 1),
        (302, Action.STOP, 1),
    ],
)
def test_the_others(status: int, action: Action, exit_code: int) -> None:
    verdict = judged(status)
    assert (verdict.action, verdict.status, verdict.exit_code) == (action, status, exit_code)
    assert "quarantine" not in verdict.hint
