"""The scripted server where a script speaks: each answer is the one that was asked for."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import socket
import ssl
import sys
from contextlib import closing, suppress

import pytest

from support import tls
from support.answers import Answer, Gate, html, json_answer, ok
from support.background import closed_port
from support.raw import call, connected, everything, exactly
from support.scripted import ScriptedServer

HEAD = b"POST /api/traces HTTP/1.1\r\nHost: x\r\nX-Cirron-Batch-Id: 0a\r\n"
UPLOAD = HEAD + b"Content-Length: 2\r\n\r\n{}"


def test_each_cut_is_exact_and_acknowledges_nothing() -> None:
    whole = ok().render()
    with ScriptedServer() as server:
        for cut in range(len(whole) + 1):
            server.script(ok(cut_after=cut, drop=True))
            with connected(server, UPLOAD) as sock:
                assert everything(sock) == whole[:cut]
            assert len(server.deliveries) == (1 if cut == len(whole) else 0)
    assert server.unused == 0


def test_reset_instead_of_an_answer_and_in_mid_body() -> None:
    with ScriptedServer(ok(cut_after=0, reset=True), ok(read_only=1, reset=True)) as server:
        for _ in range(2):
            with connected(server, UPLOAD) as sock, pytest.raises(ConnectionResetError):
                everything(sock)
    assert [(r.complete, r.received) for r in server.uploads] == [(True, 2), (False, 1)]
    assert server.delivered == {}


def test_framings() -> None:
    script = [
        ok(chunked=True, close=True),
        ok(http10=True),
        Answer(204, close=True),
        Answer(raw=b"garbage", drop=True),
        json_answer({}, 299, reason="Fine", interim=[100, 103], close=True),
        html(drip=0.0, close=True),
    ]
    with ScriptedServer(*script) as server:
        answers = []
        for _ in script:
            with connected(server, UPLOAD) as sock:
                answers.append(everything(sock))
    assert answers[0].endswith(b'\r\n\r\n7\r\n{"succe\r\n7\r\nss": tr\r\n3\r\nue}\r\n0\r\n\r\n')
    json_type = b"Content-Type: application/json\r\n"
    assert answers[1] == b"HTTP/1.0 200 OK\r\n" + json_type + b'\r\n{"success": true}'
    assert answers[2] == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
    assert answers[3] == b"garbage"
    assert answers[4].startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 299 Fine\r\n"
    )
    assert answers[5] == script[5].render()
    assert len(server.deliveries) == 3


def test_stalls_end_with_their_gate_or_with_the_server() -> None:
    before, within = Gate(), Gate()
    script = [ok(stall_before=before), ok(stall_after_bytes=5, stall_gate=within), ok(hang=True)]
    with ScriptedServer(*script) as server, connected(server) as sock:
        for gate, count in ((before, 0), (within, 5)):
            sock.sendall(UPLOAD)
            server.wait_for(len(server.deliveries) + 1)
            assert exactly(sock, count) == b"HTTP/1.1 200"[:count]
            sock.setblocking(False)
            with pytest.raises(BlockingIOError):
                sock.recv(1)
            sock.setblocking(True)
            gate.open()
            exactly(sock, len(ok().render()) - count)
        sock.sendall(UPLOAD)
        server.wait_for(3)
        server._release.open()
        assert everything(sock) == b""
    assert len(server.deliveries) == 2


def test_an_unread_body_halts_its_sender_until_the_gate_opens() -> None:
    gate = Gate()
    body = os.urandom(12_000_000)
    head = HEAD + b"Content-Length: %d\r\n\r\n" % len(body)
    script = [ok(read_only=1000, stall_before=gate, close=True)]
    with ScriptedServer(*script, receive_buffer=4096) as server, connected(server, head) as sock:
        sent = _send_while_possible(sock, body)
        assert sent < len(body)
        server.wait_until(lambda: [r.received for r in server.requests] == [1000], "1000 bytes")
        gate.open()
        sock.sendall(body[sent:])
        assert everything(sock).startswith(b"HTTP/1.1 200 OK")
    assert server.delivered["0a"] == body


def _send_while_possible(sock: socket.socket, data: bytes) -> int:
    sent = 0
    sock.setblocking(False)
    with suppress(BlockingIOError):
        while sent < len(data):
            sent += sock.send(data[sent:])
    sock.settimeout(60)
    return sent


def test_an_answer_before_the_body_acknowledges_nothing() -> None:
    early = ok(before_body=True, close=True)
    with ScriptedServer(early, ok(before_body=True)) as server:
        with connected(server, HEAD + b"Content-Length: 2\r\n\r\n") as sock:
            assert everything(sock) == early.render()
        with connected(server, HEAD + b"Content-Length: 2\r\n\r\n") as sock:
            exactly(sock, len(ok().render()))
            sock.sendall(b"{}")
            server.wait_for(1)
    assert server.delivered == {}


def test_left_over_answers() -> None:
    gate = Gate()
    with (
        ScriptedServer(ok(extra=b"XX"), ok(extra=b"YY", extra_gate=gate)) as server,
        connected(server) as sock,
    ):
        sock.sendall(UPLOAD)
        size = len(ok().render())
        assert exactly(sock, size + 2).endswith(b"}XX")
        sock.sendall(UPLOAD)
        assert exactly(sock, size).endswith(b"}")
        gate.open()
        assert exactly(sock, 2) == b"YY"


def test_answers_may_be_chosen_by_head_and_by_body() -> None:
    def by_id(request: object) -> Answer:
        return Answer(503) if server.requests[-1].batch_id == "0a" else ok()

    with ScriptedServer() as server:
        server.on("POST", "/api/traces", default=by_id)
        server.on("PUT", "/echo", Answer(late=lambda request: json_answer(request.body.decode())))
        assert call(server, "PUT", "/echo", b"hello") == (200, "hello")
        assert call(server, "POST", "/api/traces", b"{}", X_Cirron_Batch_Id="0b")[0] == 200
        with connected(server, UPLOAD) as sock:
            assert exactly(sock, 12) == b"HTTP/1.1 503"
    assert [r.answered for r in server.attempts("0a")] == [True]
    assert list(server.delivered) == ["0b"]


@pytest.mark.parametrize(
    ("answer", "says_yes"),
    [
        (ok(), True),
        (Answer(200), True),
        (Answer(202, body=b"accepted"), True),
        (Answer(204), True),
        (html(), False),
        (Answer(200, body=b" <html>"), False),
        (json_answer({"success": False}), False),
        (json_answer({"ok": False}), False),
        (json_answer({"error": "full"}), False),
        (json_answer({"error": None}), True),
        (Answer(200, headers=[("Content-Type", "application/json")], body=b'{"succ'), False),
        (Answer(200, headers=[("Content-Length", "9")], body=b"{}"), False),
        (Answer(203), False),
        (Answer(raw=b"HTTP/1.1 204 No Content\r\n\r\n"), False),
        (Answer(raw=b"HTTP/1.1 204 No Content\r\n\r\n", acknowledges=True), True),
    ],
)
def test_what_an_acknowledgement_is(answer: Answer, says_yes: bool) -> None:
    assert answer.acknowledged is says_yes


def test_waiting_from_a_coroutine_and_peak_in_flight() -> None:
    gate = Gate()

    async def two_at_once(server: ScriptedServer) -> None:
        _, one = await asyncio.open_connection("127.0.0.1", server.port)
        _, two = await asyncio.open_connection("127.0.0.1", server.port)
        one.write(UPLOAD)
        two.write(UPLOAD)
        await server.arrived(2)
        gate.open()
        await server.arrived(lambda s: len(s.deliveries) == 2)
        for writer in (one, two):
            writer.close()
            await writer.wait_closed()

    with ScriptedServer(ok(stall_before=gate), ok(stall_before=gate)) as server:
        asyncio.run(two_at_once(server))
    assert server.peak_in_flight == 2


def test_a_closed_port_refuses() -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", closed_port()))


def test_tls() -> None:
    with ScriptedServer(tls=tls.server_context()) as server:
        assert server.url.startswith("https://")
        client = http.client.HTTPSConnection("127.0.0.1", server.port, context=tls.client_context())
        with closing(client):
            client.request("POST", "/api/traces", b"{}", {"X-Cirron-Batch-Id": "0a"})
            assert client.getresponse().status == 200
    assert server.delivered == {"0a": b"{}"}


@pytest.mark.parametrize("certificate", ["elsewhere", "expired"])
def test_tls_that_must_be_refused(certificate: str) -> None:
    context = tls.server_context("elsewhere" if certificate == "elsewhere" else "expired")
    with (
        ScriptedServer(tls=context) as server,
        closing(
            http.client.HTTPSConnection("127.0.0.1", server.port, context=tls.client_context())
        ) as client,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        client.request("GET", "/")
    assert server.requests == []


@pytest.mark.parametrize("context", [None, tls.server_context()], ids=["tcp", "tls"])
def test_a_connection_at_the_very_end_leaves_no_socket_behind(
    context: ssl.SSLContext | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: left.append(found.exc_value))
    for _ in range(20):  # it may come before the end, while it is prepared, and after it
        with ScriptedServer(tls=context) as server:
            late = socket.create_connection(("127.0.0.1", server.port))
        late.close()
        gc.collect()
    assert left == []
