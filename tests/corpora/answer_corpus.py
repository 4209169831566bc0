"""Raw HTTP answers, by families: each one line of a table, written from the rules of RFC 9110 and 9112."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

# A row of a table is a row.
# fmt: off
CRLF = b"\r\n"
YES = b'{"success":true}'
JSON, TEXT, HTML = "Content-Type: application/json", "Content-Type: text/plain", "Content-Type: text/html"
CHUNKED = "Transfer-Encoding: chunked"


class Case(NamedTuple):
    """One raw answer; ``name`` begins with its family."""

    name: str
    raw: bytes


def http(*fields: str | bytes, body: bytes = b"", line: str | bytes = "HTTP/1.1 200 OK") -> bytes:
    """An answer with exactly these fields; text is latin-1."""
    lines = [part if isinstance(part, bytes) else part.encode("latin-1") for part in (line, *fields)]
    return CRLF.join(lines) + CRLF * 2 + body


def sized(*fields: str | bytes, body: bytes = YES, line: str | bytes = "HTTP/1.1 200 OK") -> bytes:
    """An answer with these fields and the right length."""
    return http(*fields, f"Content-Length: {len(body)}", body=body, line=line)


def chunks(*parts: bytes) -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def family(name: str, answers: Iterable[tuple[object, bytes]]) -> Iterator[Case]:
    """Cases of one family: what is special about each, and its bytes."""
    return (Case(f"{name}: {special!r}"[:120], raw) for special, raw in answers)


VERSIONS = [
    "HTTP/1.1", "HTTP/1.0", "HTTP/0.9", "HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/2", "HTTP/3.0", "HTTP/5.6",
    "HTTP/11.1", "HTTP/1.11", "HTTP/1", "HTTP/1.", "HTTP/.1", "HTTP/", "HTTP", "HTTP 1.1", "HTTP/1,1", "HTTP/-1.1",
    "HTTP/1.1.1", "HTTP/01.1", "HTTP/1.01", "HTTP/a.b", "HTTP/1.x", "HTTP/ 1.1", "HTTP\\1.1", "http/1.1",
    "Http/1.1", "hTTP/1.1", "HTTPS/1.1", "SHTTP/1.1", "XHTTP/1.1", "HTP/1.1", "HTTTP/1.1", "ICY", "RTSP/1.0",
    "ICE/1.0", "SIP/2.0", "RTSP/1.1", "FTP/1.1", "1.1", "", "\xffHTTP/1.1", "HTTP/1.\xb9", "HTTP/1.1\0",
]
CODES = [
    "20", "2", "2000", "0200", "02", "2OO", "2x0", "200.0", "+200", "-200", "2 00", "2 0 0", "", "0x200", "1e2",
    "000", "099", "600", "999", "200,", "200;", "200:", "\xb2\xb0\xb0", "2\t00", "200\x0b", "OK", "20\x00",
    "9" * 40,
]
REASONS = [
    "", " ", " OK", " OK ", " Everything is fine", " 500 Internal Server Error", " HTTP/1.1 500", " " + "k" * 150,
    " \xe9t\xe9", " \xc3\xa9", "\tOK", "  OK", " O\tK", " O\0K", " O\rK", " O\x1b[31mK", " O\x7fK",
    " " + "k" * 9000,
]
STATUSES = [
    100, 101, 102, 103, 199, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 250, 299, 300, 301, 302, 303, 304,
    305, 307, 308, 399, 400, 401, 403, 404, 405, 407, 408, 409, 411, 413, 415, 418, 422, 425, 429, 431, 451, 499,
    500, 501, 502, 503, 504, 505, 507, 511, 520, 599,
]
STARTS = [
    b" HTTP/1.1 200 OK", b"\tHTTP/1.1 200 OK", b"\r\nHTTP/1.1 200 OK", b"\nHTTP/1.1 200 OK", b"\0HTTP/1.1 200 OK",
    b"\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1  200 OK", b"HTTP/1.1\t200 OK", b"HTTP/1.1200 OK", b"200 OK", b"OK",
    b"\xef\xbb\xbfHTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK", b"+OK ready",
    b"GET / HTTP/1.1", b"220 mail ESMTP", b"SSH-2.0-OpenSSH_9.6", b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01",
    b"<html>HTTP/1.1 200 OK", b"HTTP/1.1 200 OK HTTP/1.1 200 OK", b"HTTP/1.1:200 OK",
    b"\x00\x00\x12\x04\x00\x00\x00",
]


def status_lines() -> Iterator[Case]:
    """Protocols, versions, codes, reasons, and what is no status line."""
    yield from family("protocol", ((version, sized(line=f"{version} 200 OK")) for version in VERSIONS))
    yield from family(
        "protocol, until the close",
        (
            (version, http(TEXT, body=b"accepted", line=f"{version} 200 OK"))
            for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "RTSP/1.0", "ICY", "HTTP/1.7")
        ),
    )
    yield from family("code", ((code, sized(line=f"HTTP/1.1 {code} OK")) for code in CODES))
    yield from family("reason", ((reason, sized(line=f"HTTP/1.1 200{reason}")) for reason in REASONS))
    yield from family("start", ((start, sized(line=start)) for start in STARTS))
    yield from family(
        "status", ((status, sized(JSON, line=f"HTTP/1.1 {status} Word")) for status in STATUSES)
    )
    yield from family(
        "status, empty", ((status, sized(body=b"", line=f"HTTP/1.1 {status} Word")) for status in STATUSES)
    )
    yield from family(
        "bare", ((raw, raw) for raw in (b"", CRLF, b"\n", b"\0", YES, b"accepted", b"HTTP/1.1 200 OK"))
    )


LENGTHS = [
    "16", "016", "0000000000000000000000016", "15", "17", "0", "1", "+16", "-16", "-1", "-0", "+0", "16.0", "1.6e1",
    "0x10", "16,", ",16", "16, 16", "16,16", "16, 17", "16;", "16 16", "1 6", "1_6", '"16"', "16\x00", "\xb9\xb6",
    "16L", "", " ", "\t16\t", "x", "sixteen", "NaN", "9" * 19, "18446744073709551632", "4294967312", "1e400",
    "16\x0b", "0b10",
]
TWO_LENGTHS = [
    ("16", "16"), ("16", "17"), ("17", "16"), ("0", "16"), ("16", "0"), ("16", ""), ("", "16"), ("x", "16"),
]
CODINGS = [
    "chunked", "Chunked", "CHUNKED", "identity", "gzip", "deflate", "compress", "br", "x-gzip", "cow", "xchunked",
    "chunkedx", "chunked,", ",chunked", "chunked, ", ", chunked", "chunked, chunked", "chunked,chunked",
    "chunked;q=1", '"chunked"', "chunked, identity", "identity, chunked", "gzip, chunked", "chunked, gzip",
    "chunked, deflate", "", " ", ",", "chunk ed", "\tchunked\t", "\x0bchunked", "chunked\x0b", "chunked\x00",
    "chunked\xa0", "chun\xe2\x84\xaaed", "0",
]
TWO_CODINGS = [
    ("chunked", "chunked"), ("gzip", "chunked"), ("chunked", "gzip"), ("identity", "chunked"),
    ("chunked", "identity"), ("chunked", ""), ("", "chunked"), ("cow", "chunked"),
]
CHUNKED_BODIES: list[tuple[str, bytes]] = [
    ("one chunk", chunks(YES)), ("several", chunks(YES[:1], YES[1:9], YES[9:])),
    ("of one byte", chunks(*(YES[n : n + 1] for n in range(len(YES))))), ("none", b"0\r\n\r\n"),
    ("upper-case hex", b"A\r\n[1, 2, 33]\r\n0\r\n\r\n"),
    ("lower-case hex", b"a\r\n[1, 2, 33]\r\n0\r\n\r\n"),
    ("leading zeros", b"00010\r\n" + YES + b"\r\n000\r\n\r\n"),
    ("very many zeros", b"0" * 300 + b"10\r\n" + YES + b"\r\n0\r\n\r\n"),
    *(
        (f"extension {extension!r}", b"10" + extension + CRLF + YES + b"\r\n0" + extension + b"\r\n\r\n")
        for extension in (
            b";a", b";a=b", b';a="b"', b"; a = b", b" ;a", b";a;b=c", b";", b";;", b";a=\xe9", b";a=\0", b";a\n",
        )
    ),
    ("a long extension", b"10;" + b"x" * 20_000 + CRLF + YES + b"\r\n0\r\n\r\n"),
    *(
        (f"size {size!r}", size + CRLF + YES + b"\r\n0\r\n\r\n")
        for size in (
            *(
                b"Z", b"", b" ", b"10 ", b" 10", b"\t10", b"10\t", b"+10", b"-10", b"0x10", b"1 0", b"16", b"f",
                b"11", b"10h",
            ),
            *(
                b"FFFFFFFFFFFFFFFF", b"1" + b"0" * 16, b"10000000000000010", b"7fffffffffffffff", b"\xb9\xb0",
                b"10,", b"10\0",
            ),
        )
    ),
    ("no last chunk", b"10\r\n" + YES + CRLF), ("no end of the last chunk", b"10\r\n" + YES + b"\r\n0\r\n"),
    ("only the last chunk's size", b"0"), ("no CRLF after the data", b"10\r\n" + YES + b"0\r\n\r\n"),
    ("junk after the data", b"10\r\n" + YES + b"xy\r\n0\r\n\r\n"),
    ("LF after the size", b"10\n" + YES + b"\r\n0\r\n\r\n"),
    ("LF after the data", b"10\r\n" + YES + b"\n0\r\n\r\n"), ("LF in the end", b"10\r\n" + YES + b"\r\n0\n\n"),
    ("LF at the very end", b"10\r\n" + YES + b"\r\n0\r\n\n"), ("only LF", b"10\n" + YES + b"\n0\n\n"),
    ("only CR", b"10\r" + YES + b"\r0\r\r"), ("CR CR LF", b"10\r\r\n" + YES + b"\r\n0\r\n\r\n"),
    ("a negative last chunk", b"10\r\n" + YES + b"\r\n-0\r\n\r\n"), ("not chunked at all", YES),
    ("not chunked, like text", b"accepted"), ("empty", b""), ("a second body behind", chunks(YES) + chunks(YES)),
    *(
        (f"trailer {trailer!r:.40}", b"10\r\n" + YES + b"\r\n0\r\n" + trailer + b"\r\n\r\n")
        for trailer in (
            *(
                b"X: y", b"X: y\r\nZ: w", b"X:", b"Content-Length: 3", b"Transfer-Encoding: gzip",
                b"Content-Type: text/html",
            ),
            *(
                b"broken", b": x", b" X: y", b"X : y", b"X: y\r\n folded", b"X: \0", b"X\xe9: y",
                b"X: " + b"y" * 20_000,
            ),
            b"\r\n".join(b"X-%d: y" % n for n in range(500)),
        )
    ),
]


def framings() -> Iterator[Case]:
    """Lengths, transfer codings and chunks."""
    yield from family("length", ((value, http(f"Content-Length: {value}", body=YES)) for value in LENGTHS))
    yield from family(
        "length, HTTP/1.0",
        (
            (value, http(f"Content-Length: {value}", body=YES, line="HTTP/1.0 200 OK"))
            for value in ("16", "17", "15", "+16", "x")
        ),
    )
    yield from family(
        "lengths",
        ((pair, http(*(f"Content-Length: {value}" for value in pair), body=YES)) for pair in TWO_LENGTHS),
    )
    for what, body in (("chunks", chunks(YES)), ("text", b"accepted")):
        yield from family(
            f"coding, {what}", ((value, http(f"Transfer-Encoding: {value}", TEXT, body=body)) for value in CODINGS),
        )
    yield from family(
        "codings",
        (
            (pair, http(*(f"Transfer-Encoding: {value}" for value in pair), body=chunks(YES)))
            for pair in TWO_CODINGS
        ),
    )
    yield from family(
        "coding and length",
        (
            ((coding, length, order), http(*fields[::order], body=body))
            for coding, length, body in (
                ("chunked", len(chunks(YES)), chunks(YES)), ("chunked", 16, chunks(YES)),
                ("chunked", 0, chunks(YES)), ("identity", 16, YES), ("gzip", 16, YES), ("", 16, YES),
            )
            for order in (1, -1)
            for fields in [(f"Transfer-Encoding: {coding}", f"Content-Length: {length}")]
        ),
    )
    yield from family(
        "coding, HTTP/1.0",
        (
            (value, http(f"Transfer-Encoding: {value}", body=chunks(YES), line="HTTP/1.0 200 OK"))
            for value in ("chunked", "identity", "gzip")
        ),
    )
    yield from family("chunked", ((name, http(CHUNKED, body=body)) for name, body in CHUNKED_BODIES))
    yield from family(
        "204",
        (
            (fields, http(*fields, body=body, line="HTTP/1.1 204 No Content"))
            for fields, body in (
                ((), b""), (("Content-Length: 0",), b""), (("Content-Length: 16",), YES),
                (("Content-Length: 16",), b""), ((CHUNKED,), chunks(YES)), ((CHUNKED,), b""), ((), b"left over"),
                (("Content-Length: x",), b""),
            )
        ),
    )
    yield from family(
        "until the close",
        (
            ((fields, body), http(*fields, body=body, line=line))
            for line in ("HTTP/1.1 200 OK", "HTTP/1.0 202 Accepted")
            for fields, body in (
                ((), b""), ((TEXT,), b""), ((JSON,), b""), ((HTML,), b""), (("Content-Type: image/png",), b""),
                (("Content-Encoding: gzip",), b""), ((TEXT,), b"accepted"), ((JSON,), YES), ((JSON,), YES[:-1]),
                ((JSON, "Connection: close"), YES), ((TEXT, "Connection: keep-alive"), b"accepted"),
                ((HTML,), b"accepted"), ((), b"<p>accepted"), ((JSON,), b"[]"), ((), YES), ((), YES + b"\r\n"),
                (("Connection: upgrade", TEXT), b"ok"),
            )
        ),
    )


FIELDS: list[str | bytes] = [
    "X: y", "X:y", "X:   y   ", "X:\ty", "X:", "X: ", "X: \xe9", "X: \xc3\xa9", "X: a:b", "X: (comment)",
    'X: "quoted"', "x-UPPER-lower: y", "X: " + "y" * 2000, "X: " + "y" * 9000, "X: " + "y" * 70_000,
    "X" * 9000 + ": y", "X!#$%&'*+.^_`|~: y", ": y", " : y", "X", "X y", "X : y", "X\t: y", " X: y", "\tX: y",
    "X Y: z", "X\xe9: y", "\xe9: y", "X(: y", "X/: y", "@: y", "X: \0", "X\0: y", "X: a\x0bb", "X: a\x0cb",
    "X: a\x1bb", "X: a\x7fb", "X: \x08", "X: a\rb", b"X: a\nb", b"X: a\n\n", "\0", "X: a\r\n b", "X: a\r\n\tb",
    "X: a\r\n  \r\n b", "X:\r\n y", "X: a\r\n b: c", " folded first", "Connection: close", "Connection: keep-alive",
    "Connection: close, close", "Connection: upgrade", "Connection: \xe9", "Upgrade: h2c",
    "Connection: upgrade\r\nUpgrade: websocket", "Keep-Alive: timeout=0", "Set-Cookie: a=b\r\nSet-Cookie: c=d",
    "Date: nonsense", "Content-Length : 3", " Content-Length: 3", "Content-Length", "Content Length: 3",
    "Transfer-Encoding : chunked", "Transfer-Encoding\r\n : chunked", "X: \r\n Content-Length: 3",
    "Transfer-Encoding: chunked\r\n , gzip", "Trailer: X", "Content-Encoding: identity", "Content-Encoding: gzip",
    "Content-Encoding: br", "Content-Encoding: ", "Content-MD5: x", "HTTP/1.1 500 Error", "GET / HTTP/1.1",
    "Content-Range: bytes 0-15/16", "Location: /login", "Retry-After: 120",
]


def heads() -> Iterator[Case]:
    """Oddities of header fields and line ends."""
    yield from family("field", ((field, sized(field)) for field in FIELDS))
    yield from family(
        "field at the end", ((field, http("Content-Length: 16", field, body=YES)) for field in FIELDS[17:60])
    )
    yield from family(
        "fields",
        (
            (count, sized(*(f"X-{n}: y" for n in range(count))))
            for count in (50, 99, 127, 128, 129, 1000, 5000)
        ),
    )
    plain = sized(JSON, "X: y")
    head, _, body = plain.partition(CRLF * 2)
    yield from family(
        "line ends",
        (
            (name, raw)
            for name, raw in (
                ("only LF", plain.replace(CRLF, b"\n")), ("only CR", plain.replace(CRLF, b"\r")),
                ("LF CR", plain.replace(CRLF, b"\n\r")), ("CR CR LF", plain.replace(CRLF, b"\r\r\n")),
                ("LF after the status", plain.replace(CRLF, b"\n", 1)),
                ("CR after the status", plain.replace(CRLF, b"\r", 1)), ("LF at the end", head + b"\n\n" + body),
                ("CR LF LF", head + b"\r\n\n" + body), ("LF CR LF", head + b"\n\r\n" + body),
                ("CR CR", head + b"\r\r" + body), ("no blank line", head + CRLF + body), ("no end", head),
                ("half an end", head + b"\r\n\r"), ("blank with a space", head + b"\r\n \r\n" + CRLF + body),
                ("vertical tab", plain.replace(CRLF, b"\x0b")),
                ("line separator", plain.replace(CRLF, b"\xe2\x80\xa8")), ("NEL", plain.replace(CRLF, b"\x85")),
            )
        ),
    )


def around() -> Iterator[Case]:
    """What comes before the answer, and what is left behind it."""
    yes = sized(JSON)
    interims = {
        "100": b"HTTP/1.1 100 Continue\r\n\r\n", "103": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        "102": b"HTTP/1.1 102 Processing\r\n\r\n", "199": b"HTTP/1.1 199 X\r\n\r\n",
        "101": b"HTTP/1.1 101 Switching\r\n\r\n",
        "101 upgrade": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        "100 with a length": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n",
        "100 HTTP/1.0": b"HTTP/1.0 100 X\r\n\r\n",
        "100 with a body": b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        "100 LF": b"HTTP/1.1 100 Continue\n\n",
        "100 chunked": b"HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n",
        "100 cut": b"HTTP/1.1 100 Continue\r\n", "RTSP 100": b"RTSP/1.0 100 Continue\r\n\r\n",
        "099": b"HTTP/1.1 099 X\r\n\r\n", "HTTP/2 100": b"HTTP/2.0 100 X\r\n\r\n",
    }
    yield from family("before", ((name, interim + yes) for name, interim in interims.items()))
    yield from family(
        "before 204", ((name, interims[name] + http(line="HTTP/1.1 204 Empty")) for name in ("100", "103", "101")),
    )
    yield from family(
        "before 500", ((name, interims[name] + sized(line="HTTP/1.1 500 X")) for name in ("100", "103"))
    )
    yield from family(
        "many before", ((count, interims["100"] * count + yes) for count in (2, 3, 10, 100, 2000))
    )
    yield from family(
        "only before", ((name, interims[name]) for name in ("100", "103", "101", "101 upgrade"))
    )
    left = {
        "CRLF": CRLF, "LF": b"\n", "NUL": b"\0", "text": b"left over", "an answer": yes, "two answers": yes * 2,
        "half": yes[:20], "another protocol": b"SSH-2.0-x\r\n", "an error": sized(line="HTTP/1.1 500 X"),
        "100": interims["100"], "a brace": b"}", "a page": b"<html>", "a chunk's end": b"0\r\n\r\n",
        "64 KB": b"x" * 65536,
    }
    for what, raw in (
        ("length", yes), ("empty", sized(body=b"")), ("chunks", http(CHUNKED, body=chunks(YES))),
    ):
        yield from family(f"behind, {what}", ((name, raw + more) for name, more in left.items()))
    yield from family(
        "behind 204", ((name, http(line="HTTP/1.1 204 Empty") + more) for name, more in left.items())
    )


DATES = [
    "Thu, 18 Aug 2050 02:01:18 GMT", "Thu, 18 Aug 2050 02:01:18 AEST", "Thursday, 18-Aug-50 02:01:18 GMT", "0", "1",
    "-1", "Thu Aug 18 02:01:18 2050", "Fri, 31 Dec 9999 23:59:60 GMT", "Thu, 18 Aug 1950 02:01:18 GMT",
    "0000000000005", "9" * 5000, "Thu, 18 Aug 2050 02.01.18 GMT", "25 Nov 2026 13:00", "soon", "", "1, 2", "1.5",
    "Thu, 99 Foo 2050 99:99:99 GMT", "\xb2",
]
TYPES = [
    "text/html; charset=utf-8", "text/html", "application/xhtml+xml", "application/xml", "application/json",
    "image/png", "multipart/mixed; boundary=x", "application/octet-stream", "text/plain", "text/csv", "nonsense",
    ";", "/", "text/html,", "TEXT/PLAIN", "application/problem+json", "application/vnd.x+json; v=1", "",
]
DOCUMENTS: list[bytes] = [
    YES, b"{}", b"[]", b"null", b"true", b"false", b"0", b'""', b'"<p>"', b'{"ok":true}', b'{"error":null}',
    b"[{}]", b"1e5", b'{"success":false}', b'{"ok":false}', b'{"error":"x"}', b'{"error":{}}', b'{"error":[]}',
    b'{"error":0}', b'{"error":""}', b'{"error":false}', b'{"success":true,"error":"x"}',
    b'{"ok":true,"success":false}', b'{"data":{"success":false}}', b'{"success":"false"}', b'{"success":0}',
    b'{"success":null}', b'[{"success":false}]', b'{"Success":false}', b" {} ", b"{}\n", b"", b" ", b"{", b"}",
    b"{}{}", b"{} x", b"{'a':1}", b'{"a":1,}', b"[1,]", b"nul", b"NaN", b'{"a":NaN}', b"Infinity", b"01",
    b"1" * 5000, b"[" * 5000, b"[" * 300 + b"]" * 300, b'{"a":"\\ud800"}', b'{"a":"\x01"}', b'{"a":"\xff"}',
    b"// x\n{}", b"{}\0", b"\xef\xbb\xbf{}", b"\xef\xbb\xbf", b"\xff\xfe{\0}\0", "é".encode(),
    json.dumps({"id": "é"}).encode(), b"OK", b"\xef\xbb\xbf\n", b'{"a":"' + b"x" * 60_000 + b'"}',
    b'{"a":"' + b"x" * 66_000 + b'"}', b"x" * 65_536, b"x" * 65_537, b"<", b"<html>", b" <!doctype html>",
    b"\xef\xbb\xbf<html>", b"\n\n<?xml?>", b"accepted <b>", b"\0", b"\x1b[31m", b"\xe9",
]


def contents() -> Iterator[Case]:
    """Types and bodies, and the fields that speak of time."""
    yield from family(
        "retry",
        (
            ((status, date), sized(f"Retry-After: {date}", line=f"HTTP/1.1 {status} X"))
            for status in (429, 503)
            for date in DATES
        ),
    )
    yield from family("date", ((date, sized(f"Date: {date}", f"Retry-After: {date}")) for date in DATES))
    for what, framed in (
        ("length", sized(body=b"")), ("chunks", http(CHUNKED, body=chunks())), ("204", http(line="HTTP/1.1 204 X")),
    ):
        first, _, rest = framed.partition(CRLF)
        yield from family(
            f"empty, {what}",
            (
                (kind, first + f"\r\nContent-Type: {kind}\r\nContent-Encoding: {coding}\r\n".encode() + rest)
                for kind, coding in itertools.product(TYPES, ("identity", "gzip"))
                if coding == "identity" or kind in TYPES[:5]
            ),
        )
    yield from family("type", ((kind, sized(f"Content-Type: {kind}", body=b"accepted")) for kind in TYPES))
    yield from family(
        "types",
        (
            (pair, sized(*(f"Content-Type: {kind}" for kind in pair), body=b"accepted"))
            for pair in (
                ("text/plain", "text/plain"), ("text/plain", "text/html"), ("text/html", "text/plain"),
                ("", "text/html"),
            )
        ),
    )
    for field in (JSON, TEXT, "X: no type"):
        yield from family(f"document, {field[-10:]}", ((body, sized(field, body=body)) for body in DOCUMENTS))


@cache
def corpus() -> tuple[Case, ...]:
    """All of them: each answer once, each name once."""
    cases = {case.raw: case for make in (contents, around, heads, framings, status_lines) for case in make()}
    return tuple(case._replace(name=f"{number} {case.name}") for number, case in enumerate(cases.values()))
