"""The ends of heads and chunks, read from bytes."""

from __future__ import annotations

import pytest

from cirron_spool.protocol.framing import are_whole_chunks, find_body


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 204\r\n\r\n",
        b"HTTP/1.1 503 Busy\nRetry-After: 1\n\n",
        b"HTTP/1.1 200 \xe9\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_where_the_body_begins(head: bytes) -> None:
    assert find_body(head + b"{}\r\n\r\n") == len(head)
    assert all(find_body(head[:length]) is None for length in range(len(head)))


@pytest.mark.parametrize(
    "head",
    [
        b"RTSP/1.0 200 OK\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 O\0K\r\n\r\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n",
        b"HTTP/1.1 200 OK\rA: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\r\n\r\r\n",
        b"\r\nHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nICE/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_what_is_no_head(head: bytes) -> None:
    assert find_body(head) is None


@pytest.mark.parametrize(
    "body",
    [
        b"0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n\r\n",
        b"12\r\n{'eighteen bytes'}\r\n0\r\n\r\n",
        b"0002;a=b \r\n{}\r\n00\r\nX: y\r\nZ:\r\n\r\n",
        b"A\r\n0123456789\r\na\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n",
    ],
)
def test_whole_chunks(body: bytes) -> None:
    assert are_whole_chunks(b"head" + body, 4) is True
    assert not any(are_whole_chunks(body[:length], 0) for length in range(len(body)))


@pytest.mark.parametrize(
    "body",
    [
        b"3\r\n{}\r\n0\r\n\r\n",
        b"1\r\n{}\r\n0\r\n\r\n",
        b"2\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\n0\r\n\r\n",
        b"2\r\n{}0\r\n\r\n",
        b"2\r\n{}\r\n0\n\n",
        b"2\r\n{}\r\n0\r\n\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
        b"+2\r\n{}\r\n0\r\n\r\n",
        b"2\r\r\n{}\r\n0\r\n\r\n",
        b"2;\0\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n-0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nbroken\r\n\r\n",
        b"2\r\n{}\r\n0\r\nX: \0\r\n\r\n",
        b"2\r\n{}\r\n0\r\n folded: y\r\n\r\n",
        b"2\r\n{}\r\n\r\n",
        b"{}",
    ],
)
def test_broken_chunks(body: bytes) -> None:
    assert are_whole_chunks(body, 0) is False
