"""JSON documents at the receiver's check: one verdict for one document, wherever its pieces are cut.

The oracle is the standard library's ``json``, with what the receiver adds and takes away: numbers of any length pass,
a batch is an object in UTF-8 without a byte order mark, and it nests at most `MAX_DEPTH` levels.

``PROTOCOL_FULL=1 pytest tests/corpora/test_documents.py`` tries every pair of cuts and every piece size.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Iterable, Iterator, Sequence

import pytest

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.body import PIECE_BYTES, BodyReader
from cirron_spool.receiver.jsontext import MAX_DEPTH, JsonCheck, NotABatchError

FULL = bool(os.environ.get("PROTOCOL_FULL"))


def oracle(document: bytes) -> bool:
    """Whether this is a batch."""
    try:
        text = document.decode()
        found = json.loads(text, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and levels(found) <= MAX_DEPTH


def levels(value: object) -> int:
    """How deep arrays and objects nest, without recursion."""
    level, count = [value], 0
    while True:
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in members(outer)]
        count += 1
        if not any(isinstance(inner, (dict, list)) for inner in level):
            return count


def members(container: dict[str, object] | list[object]) -> Iterable[object]:
    return container.values() if isinstance(container, dict) else container


def verdict(pieces: Iterable[bytes]) -> tuple[bool, str | None]:
    """What the receiver says of a document in these pieces, and the created_ns that it reads."""
    check = JsonCheck()
    try:
        for piece in pieces:
            check.feed(piece)
        check.finish()
    except NotABatchError:
        return False, None
    return True, check.created_ns


def pieces(document: bytes, *cuts: int) -> list[bytes]:
    edges = [0, *cuts, len(document)]
    return [document[begin:end] for begin, end in itertools.pairwise(edges)]


def steps(document: bytes, size: int) -> Iterator[bytes]:
    return (document[place : place + size] for place in range(0, len(document), size))


# One a line; the first line of each block is valid.
VALUES = [*r"""
0 -0 7 -12 10 1.5 -0.25 1e5 1E5 1e+5 1e-05 0e0 12.5E-7 1.0 123456789012345678901234567890
01 -01 00 1. .5 -.5 +1 -- - 1e 1e+ 1.e5 1.5.5 1e5.5 0x10 1_000 1-1 0-0 2e5e5 --1 1+1 1e5e
true false null NaN Infinity -Infinity
True tru truee nul nulll nan -NaN +Infinity infinity Infinit -Infinit -infinity undefined
"" "a" "\"" "\\" "\/" "\b\f\n\r\t" "\u0000" "\ud834\udd1e" "\ud834" "\udd1e" "\\u12" "ü€𝄞"
"\x41" "\u12" "\u12g4" "\U0041" "\" "\\\" "\' "a""b" "\u+123" "a a" 'a'
"[{,:]}" [] [1] [1,2] [[]] [[],[]] [{}] {} {"a":1} {"a":1,"b":2} {"":{}} {"a":1,"a":2}
[,] [1,] [,1] [1,,2] [1}] [1:2] [ ] [{}{}] ["a":1] [[1,],2] [}
{1} {a:1} {"a"} {"a":} {:1} {"a":1,} {,"a":1} {"a":1] {"a""b":1} {"a"1} {"a"::1} {"a":1:2} {"a",1}
{"a":[}]} {"a":{"b":1,}} {"a":{}}} {"a":[[[]] {{}} {[]} {"a":1"b":2} {"a":1,"b"}
[1//2] [1/**/] #1 (1) <1> 1;2 \u0031 1\n
""".split(),  # noqa: SIM905  # as a block it can be read
    "", " ", "1 2", '"a', 'a"', "[1 2]", '{"a" 1}', "[1 ,\t2\r\n, 3 ]", '{ "a" : 1 , "b" : [ ] }', "[ , ]",
    "[1\x0c]", "[1\xa0]", "[1\ufeff]", '"\t"', '"\n"', '"\x00"', '"\x1f"', '"\x7f"', '"\u2028"', "\u0661", "\uff11",
]  # fmt: skip


def inside(frame: str) -> list[str]:
    """Each value in a document: $ is where it stands."""
    return [frame.replace("$", value) for value in VALUES]


DOCUMENTS = [
    *inside('{"a":$}'),
    *inside('{"a":[$,1]}'),
    *inside('{"created_ns":$,"spans":[[{"a":$}]]}'),
    *VALUES,
    # the document's ends
    *("{}x", "{}{}", "{},", "{}]", "{}}", "{}\x00", "\x00{}", "\ufeff{}", "{}\ufeff", " \t\r\n{}\n\n", "{", "}"),
    *('{"a":1}{', '{"a":1}"', '{"a":1} 7', '{"a":1}//', "#{}", '"{}"', "[{}]", "{}\n\n{}", "x{}"),
    # created_ns where it counts, and where it does not
    '{"created_ns":1,"created_ns":2}', r'{"created\u005fns":3}', '{"a":{"created_ns":4}}', '{"created_n":5}',
    '{"created_ns ":6}', '{"a":"created_ns","created_ns":7}', '{"a":[{"created_ns":8}],"created_ns":9,"b":1}',
    '{"' + "".join(rf"\u{ord(c):04x}" for c in "created_ns") + '":1}',
]  # fmt: skip

BYTES = [
    *(document.encode("utf-8", "surrogatepass") for document in dict.fromkeys(DOCUMENTS)),
    # what is not UTF-8: overlong, surrogates, above the last character, cut, continued without a beginning
    *(b'{"a":"%b"}' % wrong for wrong in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")),
    *(b'{"a":"%b"}' % wrong for wrong in (b"\xe2\x82", b"\x80")),
    *(b"{}" + cut for cut in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xff")),
    '{"a":1}'.encode("utf-16"), '{"a":1}'.encode("utf-16-le"), '{"a":1}'.encode("utf-32"),
]  # fmt: skip


def created_ns(document: bytes) -> str | None:
    """The document's created_ns as it stands there, if it is a number or literal."""
    pairs = json.loads(document.decode(), object_pairs_hook=list, parse_int=_Written, parse_float=_Written)
    found = [value for key, value in pairs if key == "created_ns"]
    return str(found[-1]) if found and isinstance(found[-1], _Written) else None


class _Written(str):
    """A number as it is written."""

    __slots__ = ()


@pytest.mark.parametrize("document", BYTES)
def test_each_document_at_each_cut(document: bytes) -> None:
    expected = oracle(document)
    whole = verdict([document])
    assert whole[0] == expected
    if expected and (written := created_ns(document)) is not None:
        assert whole[1] == written[:32]
    assert verdict(steps(document, 1)) == whole
    for cut in range(len(document) + 1):
        assert verdict(pieces(document, cut)) == whole, cut
    for cuts in itertools.combinations(range(len(document) + 1), 2) if FULL else ():
        assert verdict(pieces(document, *cuts)) == whole, cuts


# Where the check changes what it does: the length of what it holds back, of the first call for many values, of a piece.
BOUNDS = (32, 128, 256, 1024, PIECE_BYTES)


def long_ones(length: int) -> Iterator[bytes]:
    """Documents with a token, or a run of them, of about this many characters, right and wrong."""
    digits, text = b"1" * length, b"x" * length
    for number in (
        b"%b",
        b"-%b",
        b"0.%b",
        b"%b.5",
        b"1e%b",
        b"1.5E-%b",
        b"%b.",
        b"0%b",
        b"-",
        b"%be",
        b"%b-1",
        b"%bx",
    ):
        yield b'{"a":[' + (number % digits if b"%b" in number else number) + b"]}"
    yield b'{"a":' + digits + b"." + digits + b"e+" + digits + b',"created_ns":7}'
    yield b'{"created_ns":' + digits + b"}"
    yield b'{"created_ns":' + b" " * length + b"7" + b"\n" * length + b"}" + b"\t" * length
    for end in (
        b"",
        b"\\",
        b"\\u12",
        b"\\n",
        b"\\ud834\\udd1e",
        b"\n",
        b"\\x",
        b"\\u12g4",
        "ü".encode(),
        "𝄞".encode(),
        b"\xc3",
    ):
        yield b'{"a":"' + text + end + b'","created_ns":7}'
        yield b'{"' + text + end + b'":[7]}'
    yield b'{"a":"' + text
    yield b'{"a":' + b"t" * length + b"}"
    yield b"z" * length
    for item in (
        b"1",
        b"-0.5",
        b'"a"',
        b'"a,"',
        b"[]",
        b"[1,[2]]",
        b'{"k":1}',
        b'{"k":{"l":"},{"},"m":[1]}',
        b"NaN",
    ):
        items = [item] * (1 + length // (len(item) + 1))
        for comma in (b",", b", ", b" ,\n"):
            yield b'{"a":[[' + comma.join(items) + b"]]}"
        yield b'{"a":[' + b",".join(items) + b",]}"
        yield b'{"a":[' + b",".join(items) + b"," + b" " * 64 + b"," + item + b"]}"
        yield b'{"a":[' + b",".join([*items, b"01"]) + b"]}"
        yield b'{"a":{' + b",".join(b'"k":' + item for item in items) + b"}}"
        yield b'{"a":{' + b",".join(b'"k":' + item for item in items) + b',"l"}}'
        yield b"{" + b",".join(b'"k":' + item for item in items) + b',"created_ns":7}'
        yield (
            b'{"created_ns":7,'
            + b",".join(b'"k":' + item for item in items)
            + b',"created\\u005fns":8,"z":9}'
        )
    # A string whose text looks like values, with and without what a string must not have.
    yield b'{"a":["' + b",1" * (length // 2) + b'"]}'
    yield b'{"a":["' + b",\n1" * (length // 3) + b',1"]}'
    # A run that only the wrong bracket ends: two arrays where one is open.
    yield b'{"a":[' + b"[1]," * (length // 4) + b'1],[1],"b":2}'


@pytest.mark.parametrize("bound", BOUNDS)
def test_long_tokens_around_each_bound(bound: int) -> None:
    lengths = (bound - 1, bound, bound + 1) if FULL or bound < 1024 else (bound,)
    for length in lengths:
        for document in long_ones(length):
            whole = verdict([document])
            assert whole[0] == oracle(document), document[:60]
            if bound < 1024:
                cuts: Sequence[int] = range(len(document)) if FULL else range(0, len(document), 13)
                sizes = [1, 2, 3, 7, 31, 32, 33, 127, 128, 129] if FULL else [1, 7, 32, 33, 127, 128]
            else:
                cuts = range(bound - 10, bound + 10) if FULL else (bound - 1, bound, bound + 9)
                sizes = [127, 1000, 4096, PIECE_BYTES] if FULL or bound == 1024 else [65_537]
            for cut in cuts:
                assert verdict(pieces(document, cut)) == whole, (document[:60], cut)
            for size in sizes:
                assert verdict(steps(document, size)) == whole, (document[:60], size)


@pytest.mark.parametrize("deep", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, MAX_DEPTH + 300, 5_000])
@pytest.mark.parametrize("brackets", ["[]", "{}", "both"])
def test_depth(deep: int, brackets: str) -> None:
    opening = {"[]": b"[", "{}": b'{"a":', "both": b'[{"]":'}[brackets]
    per = 2 if brackets == "both" else 1
    inner = (deep - 1) // per
    closing = {"[]": b"]", "{}": b"}", "both": b"}]"}[brackets]
    rest = b"[]" if (deep - 1) % per else b"7"
    flat = b'[{"}": []}, "[[[{{{", "\\"[["],' * 300
    for document in (
        b'{"x":' + opening * inner + rest + closing * inner + b"}",
        b'{"flat":[' + flat + b'1],"x":' + opening * inner + rest + closing * inner + b',"created_ns":7}',
    ):
        assert verdict([document]) == verdict(steps(document, 1)) == verdict(steps(document, 1000))
        assert verdict([document])[0] == (deep <= MAX_DEPTH)
        assert oracle(document) == (deep <= MAX_DEPTH)


@pytest.mark.parametrize("at", [0, PIECE_BYTES - 5, PIECE_BYTES, 2 * PIECE_BYTES + 77])
def test_a_body_is_cut_anywhere_on_its_way(at: int) -> None:
    """A document whose difficult part lies at a piece's end, in chunks and in gzip members of all sizes."""
    for part in (
        b"[1.5e+10,-0.25]",
        b'"\\ud834\\udd1e"',
        '{"ü":"€𝄞"}'.encode(),
        b"NaN",
        b"9" * 9000,
        b"[1,]",
        b"[01]",
        b'"\xc3"',
    ):
        document = b'{"a":"' + b"x" * at + b'","b":' + part + b',"created_ns":12345}'
        expected = oracle(document)
        packed = gzip.compress(document, 1)
        for gzipped, body in ((False, document), (True, packed), (True, members_of(document))):
            for size in (997, 32 << 10, PIECE_BYTES - 1, PIECE_BYTES + 1, 1 << 20):
                reader = BodyReader(gzipped=gzipped, limit=1 << 30)
                try:
                    out = b"".join(piece for data in steps(body, size) for piece in reader.feed(data))
                    out += b"".join(reader.finish())
                except RefusedError:
                    out = None
                assert out == (document if expected else None), (part, size)
                assert not expected or reader.created_ns == "12345"


def members_of(document: bytes) -> bytes:
    return b"".join(gzip.compress(part, 1) for part in steps(document, 1 + len(document) // 5))
