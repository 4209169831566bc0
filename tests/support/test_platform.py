"""The scripted server where no script speaks, its strictness, TLS, and the proxy."""

from __future__ import annotations

import gzip
import json

import pytest

from support.raw import call, connected, exactly
from support.scripted import ScriptedServer

HEAD = b"POST /api/traces HTTP/1.1\r\nHost: x\r\nX-Cirron-Batch-Id: 0a\r\n"
UPLOAD = HEAD + b"Content-Length: 2\r\n\r\n{}"


def test_platform_by_default() -> None:
    with ScriptedServer() as server:
        status, who = call(server, "GET", "/api/cli/status", Authorization="Bearer t")
        packed = gzip.compress(b'{"spans":[]}')
        post = {"X_Cirron_Batch_Id": "0a", "Content_Encoding": "gzip"}
        assert call(server, "POST", "/api/traces?x=1", packed, **post) == (200, {"success": True})
        assert call(server, "GET", "/elsewhere")[0] == 404
        assert call(server, "POST", "/api/traces", b"not gzip", **post)[0] == 400
    assert status == 200
    assert isinstance(who, dict)
    assert who["valid"] is True
    assert server.delivered == {"0a": b'{"spans":[]}'}
    seen = server.requests[1]
    assert (seen.body, seen.decoded, seen.complete, seen.chunked) == (packed, b'{"spans":[]}', True, False)
    assert (seen.path, seen.query, seen.headers["CONTENT-encoding"], seen.connection) == (
        "/api/traces",
        "x=1",
        "gzip",
        2,
    )
    assert server.requests[0].token == "t"
    assert server.connections == 4
    assert server.peak_in_flight == 1


def test_tokens_are_demanded_and_rotate() -> None:
    with ScriptedServer(check_auth=True) as server:
        assert call(server, "GET", "/api/cli/status", Authorization="Bearer wrong")[0] == 401
        assert call(server, "POST", "/api/traces", b"{}", X_Cirron_Batch_Id="0a")[0] == 401
        body = json.dumps({"refresh_token": "refresh-0"}).encode()
        status, tokens = call(server, "POST", "/api/cli/auth/refresh", body)
        assert status == 200
        assert isinstance(tokens, dict)
        assert (tokens["access_token"], tokens["refresh_token"]) == ("access-1", "refresh-1")
        assert call(server, "POST", "/api/cli/auth/refresh", body)[0] == 401
        right = {"X_Cirron_Batch_Id": "0a", "Authorization": "Bearer access-1"}
        assert call(server, "POST", "/api/traces", b"{}", **right)[0] == 200
    assert server.delivered == {"0a": b"{}"}


def test_chunked_bodies_are_put_together() -> None:
    with ScriptedServer() as server, connected(server, HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as sock:
        sock.sendall(b"1\r\n{\r\n1;x=y\r\n}\r\n0\r\n\r\n")
        assert exactly(sock, 15) == b"HTTP/1.1 200 OK"
    assert server.uploads[0].chunked
    assert server.delivered == {"0a": b"{}"}


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /api/traces HTTP/1.1\nHost: x\n\n\r\n\r\n",
        b"POST /api/traces HTTP/1.1\r\n\r\n",
        b"POST /api/traces HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"POST /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b" folded: 1\r\n\r\n",
        HEAD + b"Space : 1\r\n\r\n",
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: +2\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n",
        HEAD + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_malformed_requests_fail_the_test(sent: bytes) -> None:
    with (
        pytest.raises(AssertionError, match="connection 1"),
        ScriptedServer() as server,
        connected(server, sent),
    ):
        server.wait_until(lambda: bool(server.errors), "error")
    assert server.delivered == {}


def test_a_cut_request_is_recorded_as_such() -> None:
    with ScriptedServer() as server:
        with connected(server, HEAD + b"Content-Length: 5\r\n\r\nab"):
            server.wait_until(lambda: bool(server.requests) and server.requests[0].received == 2, "body")
        server.wait_until(lambda: server.requests[0].body == b"ab", "end")
    assert not server.requests[0].complete
    assert not server.requests[0].answered
    assert server.delivered == {}
