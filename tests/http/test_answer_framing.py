"""Only answers in HTTP/1.0 and 1.1 with a known framing are read. Run with both of aiohttp's parsers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cirron_spool.http.transport import Transport
from cirron_spool.http.upload_body import Upload
from cirron_spool.protocol.answer import Answer as Heard
from cirron_spool.protocol.answer import NoAnswer
from support.answers import Answer
from support.scripted import ScriptedServer

pytestmark = pytest.mark.anyio

TEXT = "Content-Type: text/plain"
CHUNKS = "8\r\naccepted\r\n0\r\n\r\n"


def raw(status: str, *fields: str, body: str = "accepted") -> bytes:
    return ("\r\n".join([status, TEXT, *fields]) + "\r\n\r\n" + body).encode("latin-1")


OK = "HTTP/1.1 200 OK"
LENGTH = "Content-Length: 8"
CODED = "Transfer-Encoding: "

READ = {
    "a length": raw(OK, LENGTH),
    "HTTP/1.0": raw("HTTP/1.0 200 OK", LENGTH),
    "no reason": raw("HTTP/1.1 200 ", LENGTH),
    "no blank": raw("HTTP/1.1 200", LENGTH),
    "chunks": raw(OK, CODED + "chunked", body=CHUNKS),
    "CHUNKS": raw(OK, CODED + "CHUNKED", body=CHUNKS),
    "blanks around": raw(OK, "Transfer-Encoding:   chunked ", body=CHUNKS),
    "after interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 X\r\nA: b\r\n\r\n" + raw(OK, LENGTH),
    "204": raw("HTTP/1.1 204 No Content", body=""),
    "204 with a length": raw("HTTP/1.1 204 No Content", "Content-Length: 0", body=""),
    "a folded field": raw(OK, "X-Note: one\r\n two", LENGTH),
}
NOT_HTTP = {
    name: raw(line, LENGTH)
    for name, line in {
        "RTSP": "RTSP/1.0 200 OK",
        "ICE": "ICE/1.0 200 OK",
        "0.9": "HTTP/0.9 200 OK",
        "2.0": "HTTP/2.0 200 OK",
        "1.2": "HTTP/1.2 200 OK",
        "5.6": "HTTP/5.6 200 OK",
        "1.10": "HTTP/1.10 200 OK",
        "01.1": "HTTP/01.1 200 OK",
        "lower case": "http/1.1 200 OK",
        "a tabulator": "HTTP/1.1\t200 OK",
        "two blanks": "HTTP/1.1  200 OK",
        "a blank before": " HTTP/1.1 200 OK",
        "a no-break space": "HTTP/1.1\xa0200 OK",
        "an empty line before": "\r\nHTTP/1.1 200 OK",
        "two digits": "HTTP/1.1 20 OK",
        "four digits": "HTTP/1.1 2000 OK",
        "a letter": "HTTP/1.1 20O OK",
        "a sign": "HTTP/1.1 +20 OK",
        "status 0": "HTTP/1.1 000 OK",
        "status 99": "HTTP/1.1 099 OK",
        "no status": "HTTP/1.1 OK",
    }.items()
} | {
    "RTSP after an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n" + raw("RTSP/1.0 200 OK", LENGTH),
    "SIP after two": b"HTTP/1.1 102 X\nA: b\n\nHTTP/1.1 103 X\r\n\r\n" + raw("SIP/2.0 200 OK", LENGTH),
}
UNREADABLE = {
    name: raw(OK, *fields, body=body)
    for name, fields, body in [
        *(
            (coding or "empty", [CODED + coding], "accepted")
            for coding in ("identity", "gzip", "deflate", "compress", "xchunked", "chunked-x", "", "br, zstd")
        ),
        *(
            (coding, [CODED + coding], CHUNKS)
            for coding in (
                "gzip, chunked",
                "chunked, gzip",
                "chunked, identity",
                "chunked, chunked",
                "chunked,",
                ",chunked",
                "chunked;x",
                "chunked ;x=1",
                '"chunked"',
                "\x0bchunked",
            )
        ),
        ("two lines", [CODED + "chunked", CODED + "chunked"], CHUNKS),
        ("two lines, one other", [CODED + "gzip", CODED + "chunked"], CHUNKS),
        ("a length as well", [LENGTH, CODED + "chunked"], CHUNKS),
        ("a length as well, behind", [CODED + "chunked", LENGTH], CHUNKS),
        ("two lengths", [LENGTH, "Content-Length: 3"], "accepted"),
        ("the same length twice", [LENGTH, LENGTH], "accepted"),
        ("a list of lengths", ["Content-Length: 8, 8"], "accepted"),
        ("a signed length", ["Content-Length: +8"], "accepted"),
        ("a negative length", ["Content-Length: -8"], "accepted"),
        ("a length in letters", ["Content-Length: x"], "accepted"),
        ("no length", ["Content-Length:"], "accepted"),
        ("a length in hexadecimal", ["Content-Length: 0x8"], "accepted"),
        ("a length with a blank inside", ["Content-Length: 0 8"], "accepted"),
        ("a blank before the colon", ["Content-Length : 8"], "accepted"),
        ("a blank before the colon, chunked", ["Transfer-Encoding : chunked"], CHUNKS),
    ]
} | {
    "chunks in HTTP/1.0": raw("HTTP/1.0 200 OK", CODED + "chunked", body=CHUNKS),
    "204, compressed": raw("HTTP/1.1 204 No Content", CODED + "gzip", body=""),
    "a K that is none": raw(OK, CODED + "chun\xe2\x84\xaaed", body=CHUNKS),
}


async def heard(answer: bytes, ending: str) -> Heard | NoAnswer:
    script = Answer(raw=answer, drop=ending == "close", reset=ending == "reset", acknowledges=False)
    with ScriptedServer(script) as server:
        async with Transport(timeout_ms=10_000) as transport:
            upload = Upload((b"{}",), 2)
            return await transport.post(f"{server.url}/api/traces", {"X-Cirron-Batch-Id": "0a"}, upload)


@pytest.mark.parametrize("name", READ)
async def test_a_known_framing_is_read(name: str) -> None:
    answer = await heard(READ[name], "close")
    assert isinstance(answer, Heard)
    assert (answer.complete, answer.delimited) == (True, True)
    assert answer.body == (b"" if answer.status == 204 else b"accepted")


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("name", NOT_HTTP)
async def test_an_answer_that_is_not_http_is_no_answer(name: str, ending: str) -> None:
    answer = await heard(NOT_HTTP[name], ending)
    assert isinstance(answer, NoAnswer)
    assert not answer.fatal
    if ending == "close":
        assert answer.message.startswith("the answer is not HTTP")


@pytest.mark.parametrize("ending", ["close", "reset"])
@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_unknown_framing_is_no_answer(name: str, ending: str) -> None:
    answer = await heard(UNREADABLE[name], ending)
    assert isinstance(answer, NoAnswer)
    assert not answer.fatal


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_an_answer_that_only_the_close_ends_is_not_delimited(ending: str) -> None:
    """A cut is not visible in it, and a reset is no orderly close."""
    answer = await heard(raw(OK), ending)
    if ending == "close":
        assert isinstance(answer, Heard)
        assert (answer.body, answer.complete, answer.delimited) == (b"accepted", True, False)
    else:
        assert isinstance(answer, NoAnswer) or not answer.complete


@pytest.mark.thorough
@pytest.mark.skipif("AIOHTTP_NO_EXTENSIONS" in os.environ, reason="this is that run")
def test_the_parser_in_python_gives_the_same_results() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", __file__],
        cwd=Path(__file__).parent.parent,
        env={**os.environ, "AIOHTTP_NO_EXTENSIONS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
