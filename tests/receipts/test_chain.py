"""The lines of a receipts file: which are receipts, and which a crash may have left."""

from __future__ import annotations

import json

import pytest

from cirron_spool.receipts.chain import Receipt, hash_of, is_torn, last_receipt, parse

RECEIPT = Receipt(
    None, "2026-04-18T04:29:58.051Z", "/sp\udcffol", "1-ab.json", "ab", 3, "00" * 32, 200, "http://x"
)
LINE = RECEIPT.line()
OBJECT = json.loads(LINE)


def test_a_receipt_is_one_line_of_ascii_and_comes_back() -> None:
    assert b"\n" not in LINE
    assert LINE.isascii()
    assert parse(LINE) == RECEIPT
    later = RECEIPT._replace(previous=hash_of(LINE))
    assert parse(json.dumps({**json.loads(later.line()), "more": 1}).encode()) == later


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[1]",
        b"print(1)",
        LINE[:-1],
        LINE[1:],
        LINE + LINE,
        b"\0" * 50,
        json.dumps({**OBJECT, "bytes": "3"}).encode(),
        json.dumps({**OBJECT, "previous": 1}).encode(),
        json.dumps({key: value for key, value in OBJECT.items() if key != "sha256"}).encode(),
        b'{"previous": ' + b"[" * 100_000,
        b'{"previous": "\xff"}',
    ],
    ids=lambda line: repr(line[:12]),
)
def test_another_line_is_no_receipt(line: bytes) -> None:
    assert parse(line) is None
    assert last_receipt([LINE, line, b""]) == LINE


@pytest.mark.parametrize(
    ("line", "torn"),
    [
        *((LINE[:length], True) for length in (0, 1, 5, 13, 14, 100, len(LINE))),
        (LINE[:40] + b"\0" * 9, True),
        (b"\0" * 9, True),
        (b"import os", False),
        (b'{"time": 1}', False),
        (LINE[1:], False),
    ],
)
def test_a_torn_line_is_the_beginning_of_a_receipt(line: bytes, torn: bool) -> None:  # a column
    assert is_torn(line) is torn
