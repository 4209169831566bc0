"""Raw requests at the receiver, over real sockets: what may be stored, what each one is answered, in whatever segments.

Each case has the statuses that RFC 9110 and 9112 allow it. Beside them stands an oracle that reads requests by the
RFC's grammar and knows nothing of the receiver: what it finds plainly valid is stored byte for byte, and nothing else.

``PROTOCOL_FULL=1 pytest tests/corpora/test_requests.py`` sends every case cut in two at every byte.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cirron_spool.receiver.app import ReceiverOptions, running

pytestmark = pytest.mark.anyio

FULL = bool(os.environ.get("PROTOCOL_FULL"))
SAFETY_NET_S = 60.0

TOKEN = "sk-corpus"
BODY = b'{"created_ns":1,"spans":[]}'
LINE = "POST /api/traces HTTP/1.1"
HOST, AUTH, ID = "Host: x", f"Authorization: Bearer {TOKEN}", "X-Cirron-Batch-Id: ab"
LENGTH, CHUNKED = f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
PACKED = gzip.compress(BODY, mtime=0)


@dataclass(frozen=True)
class Case:
    name: str
    raw: bytes
    statuses: frozenset[int]
    ends: bool  # whether the client closes its sending side behind it, because more could come


CASES: dict[str, Case] = {}


def case(name: str, raw: bytes, *statuses: int, ends: bool = False) -> None:
    assert name not in CASES, name
    CASES[name] = Case(name, raw, frozenset(statuses), ends)


def head(*fields: str, line: str = LINE, common: tuple[str, ...] = (HOST, AUTH, ID)) -> bytes:
    return "\r\n".join([line, *common, *fields, "", ""]).encode("latin-1")


def plain(*fields: str, line: str = LINE, common: tuple[str, ...] = (HOST, AUTH, ID)) -> bytes:
    """A request with a length, and these further fields."""
    return head(LENGTH, *fields, line=line, common=common) + BODY


def chunked(chunks: bytes, *fields: str) -> bytes:
    return head(CHUNKED, *fields) + chunks


# --- request lines
case("plain", plain(), 200)
case("HTTP/1.0", plain(line="POST /api/traces HTTP/1.0"), 200)
case("HTTP/1.0 without a Host", plain(line="POST /api/traces HTTP/1.0", common=(AUTH, ID)), 200)
case("a query", plain(line="POST /api/traces?a=b HTTP/1.1"), 200)
case("the absolute form", plain(line="POST http://x:80/api/traces HTTP/1.1"), 200)
case("the absolute form of https", plain(line="POST HTTPS://x/api/traces?q HTTP/1.1"), 200)
case("an empty line before it", b"\r\n" + plain(), 200)
for version in ("HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/9.9"):
    case(f"version {version}", plain(line=f"POST /api/traces {version}"), 505)
for version in (
    "HTTP/2", "HTTP/1", "HTTP/1.10", "HTTP/01.1", "HTTP/1.1.1", "HTTP/1,1", "HTTP/-1.1", "HTTP/1.x",
    "HTTP/", "http/1.1", "Http/1.1", "HTTPS/1.1", "RTSP/1.0", "SIP/2.0", "ICY", "HTTP 1.1", "HTTP/ 1.1",
    "1.1",
):  # fmt: skip
    case(f"version {version}", plain(line=f"POST /api/traces {version}"), 400)
case("no version", plain(line="POST /api/traces"), 400)
case("no version, and a blank", plain(line="POST /api/traces "), 400)
case("only a method", plain(line="POST"), 400)
case("two blanks", plain(line="POST  /api/traces HTTP/1.1"), 400)
case("two blanks before the version", plain(line="POST /api/traces  HTTP/1.1"), 400)
case("a tab", plain(line="POST\t/api/traces HTTP/1.1"), 400)
case("a blank before it", plain(line=" POST /api/traces HTTP/1.1"), 400)
case("a blank behind it", plain(line="POST /api/traces HTTP/1.1 "), 400)
case("a blank in the target", plain(line="POST /api/tra ces HTTP/1.1"), 400)
case("a target beyond ASCII", plain(line="POST /api/tr\xe4ces HTTP/1.1"), 400)
case("a NUL in the target", plain(line="POST /api/traces\0 HTTP/1.1"), 400)
case("a method that is no token", plain(line="PO(ST /api/traces HTTP/1.1"), 400)
case("an empty method", plain(line=" /api/traces HTTP/1.1"), 400)
for method in ("post", "Post", "PUT", "PATCH", "GET", "DELETE", "OPTIONS", "TRACE", "X-POST", "POSTT"):
    case(f"method {method}", plain(line=f"{method} /api/traces HTTP/1.1"), 405)
for target in (
    "/", "*", "x", "/api/traces/", "//api/traces", "/API/traces", "/api/traces/../traces", "/api/./traces",
    "/api/traces;a", "/api%2Ftraces", "x:443", "http://x", "http:///api/traces", "ftp://x/api/traces",
):  # fmt: skip
    case(f"target {target}", plain(line=f"POST {target} HTTP/1.1"), 400, 404)
case("a target of 8 KB", plain(line=f"POST /api/traces?{'q' * 9_000} HTTP/1.1"), 414)
case("a target without an end", b"POST /" + b"a" * 20_000, 414)
case("the preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 505)
case("a TLS greeting", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(32)), 400)
case("an SSH greeting", b"SSH-2.0-OpenSSH_9.2\r\n", 400)
case("zeros", bytes(100), 400)
case("a simple request of HTTP/0.9", b"GET /api/traces\r\n", 400)
case("a PROXY line", b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + plain(), 400)
case("nothing but a word", b"hello", 400, ends=True)
case("half a head", head(LENGTH)[:60], 400, ends=True)

# --- fields
case("no Host", plain(common=(AUTH, ID)), 400)
case("an empty Host", plain(common=("Host:", AUTH, ID)), 200)
case(
    "no blank behind the colon",
    plain(common=("Host:x", f"Authorization:Bearer {TOKEN}", "X-Cirron-Batch-Id:ab")),
    200,
)
case(
    "blanks and tabs around values",
    plain(common=("Host: \t x \t", AUTH + " \t", "X-Cirron-Batch-Id:\tab ")),
    200,
)
case(
    "names in capitals",
    plain(common=(HOST.upper(), "AUTHORIZATION: Bearer " + TOKEN, "x-cirron-batch-id: ab")),
    200,
)
case("an empty field", plain("X-Empty:", "X-Blank:   "), 200)
case("bytes beyond ASCII in a value", plain("X-Name: M\xfcller"), 200)
case("a hundred fields", plain(*(f"X-{number}: {number}" for number in range(100))), 200)
case("a field without meaning twice", plain("X-A: 1", "X-A: 2", "Accept: a", "Accept: b"), 200)
for twice in (
    HOST, AUTH, ID, LENGTH, "Content-Encoding: identity", "Content-Type: application/json",
    "Expect: 100-continue",
):  # fmt: skip
    name = twice.partition(":")[0]
    rest = () if twice in (HOST, AUTH, ID, LENGTH) else (twice,)
    case(f"{name} twice", plain(twice, *rest), 400)
    case(f"{name} twice, in lower case", plain(twice.lower().replace("bearer", "Bearer"), *rest), 400)
    case(f"{name} with another value before", plain(*rest, common=(f"{name}: 1", HOST, AUTH, ID)), 400)
case("an identifier with a comma", plain(common=(HOST, AUTH, ID + ", cd")), 400)
case("the same identifier with a comma", plain(common=(HOST, AUTH, ID + ",ab")), 400)
case("two bearers in a line", plain(common=(HOST, f"{AUTH}, Bearer other", ID)), 400)
case("two bearers without a blank between them", plain(common=(HOST, f"{AUTH},Bearer other", ID)), 400)
case("two hosts in a line", plain(common=("Host: x, y", AUTH, ID)), 400)
case("two lengths in a line", head(f"{LENGTH}, {len(BODY)}") + BODY, 400)
case("two encodings in a line", plain("Content-Encoding: gzip, identity"), 400)
for wrong in (
    "X-A : 1", " X-A: 1", "\tX-A: 1", "X A: 1", "X-A", ": 1", "X-A\t: 1", "X-\xe4: 1", "X-(A): 1",
    "X-A: a\0b", "X-A: a\x07b", "X-A: a\x7fb", "X-A: a\x0bb", "X-A: a\rb", "X-A: a\nb",
    "X-A: 1\r\n folded", "X-A: 1\r\n\tfolded", "X@A: 1", "{}",
):  # fmt: skip
    case(f"field {wrong!r}", plain(wrong), 400)
case("a folded first field", plain(common=(" Host: x", HOST, AUTH, ID)), 400)
case("a folded identifier", plain(common=(HOST, AUTH, "X-Cirron-Batch-Id: a\r\n b")), 400)
case("line feeds alone", plain().replace(b"\r\n", b"\n"), 400)
case("one line feed alone", plain().replace(b"x\r\n", b"x\n"), 400)
case("carriage returns alone", plain().replace(b"\r\n", b"\r"), 400)
case("an empty line of a line feed", head(LENGTH)[:-2] + b"\n" + BODY, 400)
case("two carriage returns", plain().replace(b"x\r\n", b"x\r\r\n"), 400)
case("a head of 20 KB", plain("X-A: " + "a" * 20_000), 431)
case("a head of 20 KB in many fields", plain(*(f"X-{number}: {'a' * 100}" for number in range(200))), 431)
case("a head of just 16 KB", plain("X-A: " + "a" * (16_384 - 6 - len(head(LENGTH)) - 1)), 200)
case("a head of 16 KB and a byte", plain("X-A: " + "a" * (16_384 - 6 - len(head(LENGTH)))), 431)
case("a head without an end", head(LENGTH)[:-2] + b"X-A: " + b"a" * 40_000, 431)
case("Connection: close", plain("Connection: close"), 200)
case("Connection: keep-alive, x", plain("Connection: keep-alive, x"), 200)
case(
    "Upgrade to h2c",
    plain("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
    200,
)

# --- identifiers, tokens, encodings, expectations
case("no identifier", plain(common=(HOST, AUTH)), 400)
for wrong in ("", "AB", "a b", "../ab", "ab\xfc", "0x1", "a" * 129, '"ab"', "ab;q=1"):
    case(f"identifier {wrong[:20]!r}", plain(common=(HOST, AUTH, f"X-Cirron-Batch-Id: {wrong}")), 400)
case("a long identifier", plain(common=(HOST, AUTH, "X-Cirron-Batch-Id: " + "a" * 128)), 200)
case("no token", plain(common=(HOST, ID)), 401)
for wrong in (
    "", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer{TOKEN}", f"Bearer {TOKEN}x", "Bearer \xfc",
    f'Bearer "{TOKEN}"',
):  # fmt: skip
    case(f"authorization {wrong!r}", plain(common=(HOST, f"Authorization: {wrong}", ID)), 401)
case("bearer in lower case", plain(common=(HOST, f"authorization: bearer {TOKEN}", ID)), 200)
case("gzip", head(f"Content-Length: {len(PACKED)}", "Content-Encoding: gzip") + PACKED, 200)
case("GZIP", head(f"Content-Length: {len(PACKED)}", "Content-Encoding: GZIP") + PACKED, 200)
case(
    "x-gzip in chunks",
    head(CHUNKED, "Content-Encoding: x-gzip") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(PACKED), PACKED),
    200,
)
case("identity", plain("Content-Encoding: identity"), 200)
case("an empty encoding", plain("Content-Encoding:"), 200)
case("gzip that does not say so", head(f"Content-Length: {len(PACKED)}") + PACKED, 400)
case("plain that says gzip", plain("Content-Encoding: gzip"), 400)
for wrong in ("br", "deflate", "zstd", "gzip;q=1", "compress", "aes128gcm", "gzip gzip"):
    case(f"encoding {wrong}", plain(f"Content-Encoding: {wrong}"), 415)
for wrong in ("200-ok", "100", "100-continue;a", "100-continue 100-continue"):
    case(f"expect {wrong}", plain(f"Expect: {wrong}"), 417)
case("expect two", plain("Expect: 100-continue, 100-continue"), 400)

# --- lengths
for length in (
    "-1", "+27", "27.0", "0x1b", "1b", "27a", "a", '"27"', "27 27", "2 7", "", "\u00b2\u00b7", "27;",
    "1e1", "_27", "2_7",
):  # fmt: skip
    case(f"length {length!r}", head(f"Content-Length: {length}") + BODY, 400)
case("a length with zeros before", head(f"Content-Length: 000{len(BODY)}") + BODY, 200)
case("a huge length", head("Content-Length: 99999999999999999999") + BODY, 413)
case("an absurd length", head("Content-Length: " + "9" * 5_000) + BODY, 400, 413)
case("a length of zero", head("Content-Length: 0"), 400)
case("no length", head(), 400)
case("a body without a length", head() + BODY, 400)
case("a body shorter than its length", head(f"Content-Length: {len(BODY) + 1}") + BODY, 400, ends=True)
case("a body that stops at once", head(LENGTH), 400, ends=True)
case("a body longer than its length", head(f"Content-Length: {len(BODY) - 1}") + BODY, 400)

# --- transfer codings
for coding in (
    "cow", "gzip", "identity", "deflate", "xchunked", "chunkedx", "cow, chunked", "gzip, chunked",
    "identity, chunked", "gzip;q=1", "chunked;a=b", '"chunked"', "chunk", "chunked gzip", "compress, gzip",
):  # fmt: skip
    case(f"coding {coding}", head(f"Transfer-Encoding: {coding}") + CHUNKS, 501)
for coding in (
    "", "chunked, chunked", "chunked, gzip", "chunked, identity", ", chunked", "chunked,",
    "chunked,,chunked", ",",
):  # fmt: skip
    case(f"coding {coding!r}", head(f"Transfer-Encoding: {coding}") + CHUNKS, 400)
for coding in ("CHUNKED", "Chunked", "  chunked\t"):
    case(f"coding {coding!r}", head(f"Transfer-Encoding: {coding}") + CHUNKS, 200)
case("chunked twice", head(CHUNKED, CHUNKED) + CHUNKS, 400)
case("chunked in another line", head(CHUNKED, "Transfer-Encoding: gzip") + CHUNKS, 400)
case("chunked last in another line", head("Transfer-Encoding: gzip", CHUNKED) + CHUNKS, 501)
case("a coding with a vertical tab", head("Transfer-Encoding: \x0bchunked") + CHUNKS, 400)
case("a length beside chunks", head(CHUNKED, LENGTH) + CHUNKS, 400)
case("a length before chunks", head("Content-Length: 5", CHUNKED) + CHUNKS, 400)
case("a length beside another coding", head("Transfer-Encoding: identity", LENGTH) + BODY, 400, 501)
case("chunks of HTTP/1.0", head(CHUNKED, line="POST /api/traces HTTP/1.0") + CHUNKS, 400)
case(
    "a coding that only looks like one", plain("Transfer_Encoding: chunked", "Transfer-Encodin: chunked"), 200
)
case("a blank before the colon", head("Transfer-Encoding : chunked") + CHUNKS, 400)

# --- chunks
HALF = b"5\r\n" + BODY[:5] + b"\r\n"
REST = b"%x\r\n%b\r\n" % (len(BODY) - 5, BODY[5:])
END = b"0\r\n\r\n"
case("chunks", chunked(HALF + REST + END), 200)
case("a chunk a byte", chunked(b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + END), 200)
case("a size in capitals", chunked(b"%X\r\n%b\r\n" % (len(BODY), BODY) + END), 200)
case("a size with zeros before", chunked(b"00005\r\n" + BODY[:5] + b"\r\n" + REST + END), 200)
case("many zeros at the end", chunked(HALF + REST + b"0000\r\n\r\n"), 200)
for extension in (b";a", b";a=b", b' ;a="b"', b";a=b;c=d", b";", b";a=\xfc", b"; a = b"):
    case(f"extension {extension!r}", chunked(b"5%b\r\n" % extension + BODY[:5] + b"\r\n" + REST + END), 200)
    case(f"last extension {extension!r}", chunked(HALF + REST + b"0%b\r\n\r\n" % extension), 200)
for size in (
    b"Z", b"zz", b"", b"-5", b"+5", b"0x5", b" 5", b"\t5", b"5 ", b"5\t", b"5g", b"5,5", b"5:a", b"5 a",
    b"\xb5", b"5\0", b"5\r", b"G;a", b";a", b"5;a\0", b"5;a\x01", b"11111111111111111",
    b"FFFFFFFFFFFFFFFFF", b"5.0", b"_5", b"5_0",
):  # fmt: skip
    case(f"size {size!r}", chunked(size + b"\r\n" + BODY[:5] + b"\r\n" + REST + END), 400)
    case(f"later size {size!r}", chunked(HALF + size + b"\r\n" + BODY[5:] + b"\r\n" + END), 400)
case("a size with a line feed alone", chunked(b"5\n" + BODY[:5] + b"\r\n" + REST + END), 400)
case("an extension with a line feed alone", chunked(b"5;a\n" + BODY[:5] + b"\r\n" + REST + END), 400)
case("a chunk that ends in a line feed alone", chunked(b"5\r\n" + BODY[:5] + b"\n" + REST + END), 400)
case("a chunk that ends in nothing", chunked(b"5\r\n" + BODY[:5] + REST + END), 400)
case("a chunk longer than it says", chunked(b"4\r\n" + BODY[:5] + b"\r\n" + REST + END), 400)
case("a chunk shorter than it says", chunked(b"6\r\n" + BODY[:5] + b"\r\n" + REST + END), 400)
case("a huge chunk", chunked(b"FFFFFFFFFFFFFFFF\r\n" + BODY), 400, ends=True)
case("a size without an end", chunked(b"0" * 5_000), 400)
case("an extension without an end", chunked(b"5;" + b"a" * 5_000), 400)
case("an extension of 2 KB", chunked(b"5;" + b"a" * 2_000 + b"\r\n" + BODY[:5] + b"\r\n" + REST + END), 400)
case(
    "extensions of 20 KB together",
    chunked(b"".join(b"1;%b\r\n%c\r\n" % (b"a" * 900, byte) for byte in BODY) + END),
    400,
)
case("no last chunk", chunked(HALF + REST), 400, ends=True)
case("no end behind the last chunk", chunked(HALF + REST + b"0\r\n"), 400, ends=True)
case("half a last chunk", chunked(HALF + REST + b"0"), 400, ends=True)
case("half a chunk", chunked(HALF + REST[:10]), 400, ends=True)
case("no chunks", chunked(b""), 400, ends=True)
case("only the last chunk", chunked(END), 400)
case("the body without chunks", chunked(BODY), 400)

# --- trailers
for trailer in (
    b"X-A: 1", b"X-A:1\r\nX-B: 2", b"X-A:", b"X-A: \xfc", b"Content-Length: 5", b"Transfer-Encoding: gzip",
    b"X-Cirron-Batch-Id: cd",
):  # fmt: skip
    case(f"trailer {trailer!r}", chunked(HALF + REST + b"0\r\n" + trailer + b"\r\n\r\n"), 200)
for trailer in (
    b"X-A", b"X-A : 1", b" X-A: 1", b"X-A: 1\r\n folded", b": 1", b"X-A: a\0b", b"X-A: 1\nX-B: 2",
    b"X A: 1", b"\r", b"{}", b"X-A: \x01",
):  # fmt: skip
    case(f"trailer {trailer!r}", chunked(HALF + REST + b"0\r\n" + trailer + b"\r\n\r\n"), 400)
case("a trailer that ends in a line feed", chunked(HALF + REST + b"0\r\nX-A: 1\n\n"), 400)
case("the end in a line feed", chunked(HALF + REST + b"0\r\n\n"), 400)
case("a trailer of 20 KB", chunked(HALF + REST + b"0\r\nX-A: " + b"a" * 20_000 + b"\r\n\r\n"), 400)
case(
    "a trailer of 20 KB in many fields",
    chunked(HALF + REST + b"0\r\n" + b"X-A: %b\r\n" % (b"a" * 90) * 200 + b"\r\n"),
    400,
)
case("a trailer without an end", chunked(HALF + REST + b"0\r\nX-A: 1\r\n"), 400, ends=True)


TOKEN_CHARACTERS = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"


def oracle(raw: bytes) -> bytes | None:
    """The JSON that a plainly valid upload carries; None for anything else."""
    text = raw.decode("latin-1").removeprefix("\r\n")
    top, found, rest = text.partition("\r\n\r\n")
    first, *lines = top.split("\r\n")
    line = re.fullmatch(r"POST (?:(?i:https?)://[^/ ]+)?/api/traces(?:\?[!-~]*)? HTTP/1\.([01])", first)
    if not found or not line or len(first) > 8_192 or len(top) + 4 > 16_384:
        return None
    fields: dict[str, list[str]] = {}
    for one in lines:
        if not re.fullmatch(rf"{TOKEN_CHARACTERS}:[\t -~\x80-\xff]*", one):
            return None
        name, _, value = one.partition(":")
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    one_each = {name: values[0] for name, values in fields.items() if len(values) == 1}
    deciding = (
        "host",
        "authorization",
        "x-cirron-batch-id",
        "content-length",
        "transfer-encoding",
        "content-encoding",
    )
    if any(len(fields.get(name, [])) > 1 for name in (*deciding, "content-type", "expect")):
        return None
    if ("host" not in one_each and line[1] == "1") or "," in one_each.get("host", ""):
        return None
    if one_each.get("authorization", "").lower() != f"bearer {TOKEN}" or "expect" in fields:
        return None
    if not re.fullmatch("[0-9a-f]{1,128}", one_each.get("x-cirron-batch-id", "")):
        return None
    body = unframed(one_each, rest, line[1] == "1")
    encoding = one_each.get("content-encoding", "").lower()
    if body is None or encoding not in ("", "identity", "gzip", "x-gzip"):
        return None
    try:
        body = gzip.decompress(body) if "gzip" in encoding else body
        return body if isinstance(json.loads(body), dict) else None
    except (ValueError, OSError, EOFError):
        return None


def unframed(fields: dict[str, str], rest: str, chunks: bool) -> bytes | None:
    """The body without its framing; None where that is not plainly right."""
    length, coding = fields.get("content-length"), fields.get("transfer-encoding")
    if coding is None:
        whole = length is not None and re.fullmatch(r"[0-9]{1,18}", length) and int(length) <= len(rest)
        return rest[: int(length)].encode("latin-1") if whole and length is not None else None
    if coding.lower() != "chunked" or length is not None or not chunks:
        return None
    body, beside = "", 0
    while True:
        chunk = re.match(r"([0-9A-Fa-f]{1,16})((?:[ \t]*;[\t -~\x80-\xff]*)?)\r\n", rest)
        if chunk is None or len(chunk[0]) > 1024:
            return None
        rest, size, beside = rest[chunk.end() :], int(chunk[1], 16), beside + len(chunk[2])
        if not size:
            break
        if rest[size : size + 2] != "\r\n":
            return None
        body, rest = body + rest[:size], rest[size + 2 :]
    trailer = re.match(rf"(?:{TOKEN_CHARACTERS}:[\t -~\x80-\xff]*\r\n)*\r\n", rest)
    return body.encode("latin-1") if trailer and beside + trailer.end() <= 8192 else None


def test_the_corpus_is_what_it_says() -> None:
    assert len(CASES) >= 300
    for name, each in CASES.items():
        assert (oracle(each.raw) is not None) == (each.statuses == {200}), name
        assert each.statuses == {200} or 200 not in each.statuses, name


@dataclass(frozen=True)
class Place:
    port: int
    folder: Path


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """A receiver whose limits no case should meet: a case that waits for one hangs."""
    options = ReceiverOptions(
        store=tmp_path / "store", token=TOKEN, header_timeout_s=3600, body_timeout_s=3600, max_bytes=1_000_000
    )
    async with running(options) as receiver:
        yield Place(int(receiver.url.rpartition(":")[2]), receiver.store.directory)


async def exchange(place: Place, segments: list[bytes], *, ends: bool) -> bytes:
    """Send these segments, each read by itself; everything that comes back until an answer is whole or the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    try:
        async with asyncio.timeout(SAFETY_NET_S):
            for segment in segments:
                writer.write(segment)
                # The receiver is in the same loop: two rounds let it read.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            if ends:
                writer.write_eof()
            top = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\nContent-Length: (\d+)\r\n", top)
            assert length is not None
            answer = top + await reader.readexactly(int(length[1]))
            if b"\r\nConnection: close\r\n" in top:
                if writer.can_write_eof():
                    writer.write_eof()
                assert await reader.read() == b""
            return answer
    finally:
        writer.close()


def ways(raw: bytes) -> list[list[bytes]]:
    """The same bytes in different segments."""
    body = raw.find(b"\r\n\r\n") + 4
    cuts = (
        range(1, len(raw))
        if FULL and len(raw) < 2_000
        else sorted({body, body + 1, len(raw) // 2, len(raw) - 1})
    )
    single = [raw[at : at + 1] for at in range(len(raw))] if len(raw) < 1_000 else []
    return [
        [raw],
        *([raw[:cut], raw[cut:]] for cut in cuts if 0 < cut < len(raw)),
        *([single] if single else []),
    ]


@pytest.mark.parametrize("name", CASES)
async def test_each_request_in_all_segments(place: Place, name: str) -> None:
    each = CASES[name]
    expected = oracle(each.raw)
    for segments in ways(each.raw):
        # A byte at a time is slow: with the end alone.
        for ends in (True,) if each.ends or (len(segments) > 2 and not FULL) else (False, True):
            answer = await exchange(place, segments, ends=ends)
            top, _, content = answer.partition(b"\r\n\r\n")
            status = int(top.split(b" ")[1])
            said = json.loads(content)
            assert status in each.statuses, (status, said, [len(segment) for segment in segments], ends)
            assert top.startswith(b"HTTP/1.1 ")
            assert b"\r\nContent-Type: application/json" in top
            assert said["success"] is (status == 200)
            assert status == 200 or said["error"].endswith(".")
            assert TOKEN not in said.get("error", "")
            stored = [path for path in place.folder.iterdir() if path.suffix == ".json"]
            assert [path.read_bytes() for path in stored] == ([] if expected is None else [expected])
            for path in stored:
                path.unlink()
            assert not list(place.folder.glob("*.part"))


async def test_requests_that_follow_each_other_in_one_segment(place: Place) -> None:
    """Each has its own answer, in order, and what is broken ends the connection."""
    raw = b"".join(
        [
            plain(),
            plain().replace(b"Id: ab", b"Id: ac"),
            chunked(HALF + REST + END).replace(b"Id: ab", b"Id: ad"),
            b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
            b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
            plain(common=(HOST, AUTH, "X-Cirron-Batch-Id: no")),
            plain().replace(b"Id: ab", b"Id: ae"),
        ]
    )
    for size in (len(raw), 1, 37):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        for at in range(0, len(raw), size):
            writer.write(raw[at : at + size])
            await asyncio.sleep(0)
        writer.write_eof()
        async with asyncio.timeout(SAFETY_NET_S):
            answers = await reader.read()
        writer.close()
        # The refused identifier's body is not read, so nothing is believed that stands behind it.
        assert re.findall(rb"HTTP/1\.1 (\d+) ", answers) == [
            b"200",
            b"200",
            b"200",
            b"200",
            b"200",
            b"404",
            b"400",
        ]
        assert len(list(place.folder.glob("*.json"))) == 3


async def test_a_body_is_asked_for_only_when_it_is_wanted(place: Place) -> None:
    for common, asked in (
        ((HOST, AUTH, ID), True),
        ((HOST, "Authorization: Bearer x", ID), False),
        ((HOST, AUTH), False),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(head(LENGTH, "Expect: 100-continue", common=common))
        async with asyncio.timeout(SAFETY_NET_S):
            first = await reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 100 ") == asked
            if asked:
                writer.write(BODY)
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_client_that_leaves_at_any_byte_leaves_nothing(place: Place) -> None:
    for raw in (plain(), chunked(HALF + REST + END)):
        for at in range(len(raw)):
            _, writer = await asyncio.open_connection("127.0.0.1", place.port)
            writer.write(raw[:at])
            await asyncio.sleep(0)
            if at % 2:
                writer.transport.abort()
            else:
                writer.close()
        # In order of arrival: this one is answered after all of them.
        answer = await exchange(place, [plain(common=(HOST, AUTH, "X-Cirron-Batch-Id: cd"))], ends=True)
        assert b" 200 " in answer.splitlines()[0]
    assert [path.name[-8:] for path in place.folder.glob("*.json")] == ["-cd.json"]
