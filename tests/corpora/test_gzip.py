"""gzip streams at the receiver's decompressor: one verdict for one stream, wherever it is cut.

The oracle is `gzip.decompress`, but for two rules of RFC 1952 that it does not check: reserved flags must be zero, and
a header's checksum must be right.

``PROTOCOL_FULL=1 pytest tests/corpora/test_gzip.py`` tries every cut of every stream.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator

import pytest

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.body import BodyReader

FULL = bool(os.environ.get("PROTOCOL_FULL"))

FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16

DOCUMENT = b'{"created_ns":7,"spans":["' + b"abcdefgh" * 20 + b'"]}'
SLICE = 32 << 10


def header(
    flags: int, *, name: bytes = b"batch.json", comment: bytes = b"of a run", extra: bytes = b"AB\4\0data"
) -> bytes:
    """A member's header with the fields that `flags` name."""
    head = b"\x1f\x8b\x08" + bytes([flags]) + b"\1\2\3\4\0\xff"
    if flags & FEXTRA:
        head += len(extra).to_bytes(2, "little") + extra
    if flags & FNAME:
        head += name + b"\0"
    if flags & FCOMMENT:
        head += comment + b"\0"
    if flags & FHCRC:
        head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    return head


def member(
    text: bytes, head: bytes | None = None, level: int = 6, strategy: int = zlib.Z_DEFAULT_STRATEGY
) -> bytes:
    """`text` as one member, behind a header of its own."""
    packer = zlib.compressobj(level, zlib.DEFLATED, -15, 9, strategy)
    checksum = zlib.crc32(text).to_bytes(4, "little") + len(text).to_bytes(4, "little")
    return (header(0) if head is None else head) + packer.compress(text) + packer.flush() + checksum


def members(text: bytes, *sizes: int) -> bytes:
    edges = [0, *itertools.accumulate(sizes), len(text)]
    return b"".join(member(text[begin:end]) for begin, end in itertools.pairwise(edges))


def oracle(stream: bytes) -> bytes | None:
    """The batch that the stream holds, or None where it is to be refused."""
    try:
        found = gzip.decompress(stream)
        batch = json.loads(found)
    except (EOFError, OSError, ValueError, zlib.error):
        return None
    return found if isinstance(batch, dict) and not stream[3] & 0xE0 else None


def outcome(pieces: Iterable[bytes]) -> bytes | None:
    """The body that the receiver takes out of these pieces; None where it refuses it."""
    reader = BodyReader(gzipped=True, limit=1 << 26)
    try:
        found = b"".join(out for piece in pieces for out in reader.feed(piece))
        return found + b"".join(reader.finish())
    except RefusedError:
        return None


def steps(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[place : place + size] for place in range(0, len(stream), size))


FLAGS = range(0, 32, 2)

STREAMS: dict[str, bytes] = {
    **{f"flags {flags}": member(DOCUMENT, header(flags)) for flags in FLAGS},
    **{
        f"flags {flags}, then the others": member(DOCUMENT[:50], header(flags))
        + member(DOCUMENT[50:], header(30 ^ flags))
        for flags in FLAGS
    },
    "text flag": member(DOCUMENT, header(1)),
    **{f"reserved flag {bit}": member(DOCUMENT, header(bit)) for bit in (32, 64, 128)},
    **{f"level {level}": member(DOCUMENT, level=level) for level in range(10)},
    "fixed codes": member(DOCUMENT, strategy=zlib.Z_FIXED),
    "Huffman only": member(DOCUMENT, strategy=zlib.Z_HUFFMAN_ONLY),
    "empty name, comment and field": member(DOCUMENT, header(30, name=b"", comment=b"", extra=b"")),
    "fields that look like headers": member(
        DOCUMENT, header(30, name=b"\x1f\x8b\x08", comment=b"\x1f\x8b\x08\xff", extra=header(31))
    ),
    "two members": members(DOCUMENT, 50),
    "a member a byte": members(DOCUMENT, *[1] * len(DOCUMENT)),
    "empty members": member(b"") * 3 + members(DOCUMENT, 0, 20, 0) + member(b"") * 3,
    "zeros behind": member(DOCUMENT) + bytes(3),
    "many zeros behind": member(DOCUMENT) + bytes(100_000),
    "zeros between": member(DOCUMENT[:50]) + bytes(512) + member(DOCUMENT[50:]) + bytes(512),
    "zeros, then something": member(DOCUMENT) + bytes(512) + b"x",
    "zeros, then half a member": member(DOCUMENT) + bytes(512) + member(b"")[:5],
    "zeros before": b"\0" + member(DOCUMENT),
    "nothing": b"", "only zeros": bytes(20), "only an empty member": member(b""),
    "something behind": member(DOCUMENT) + b"x", "the plain text behind": member(DOCUMENT) + b"\n",
    "plain": DOCUMENT, "zlib": zlib.compress(DOCUMENT), "raw": member(DOCUMENT)[10:-8],
    "another method": member(DOCUMENT, b"\x1f\x8b\x07" + header(0)[3:]),
    "another magic": member(DOCUMENT, b"\x1f\x8a\x08" + header(0)[3:]),
    "wrong checksum": member(DOCUMENT)[:-8] + b"\0\0\0\0" + member(DOCUMENT)[-4:],
    "wrong size": member(DOCUMENT)[:-4] + b"\0\0\0\0",
    "wrong checksum of the first member": member(b"{}")[:-8] + b"\0\0\0\0\2\0\0\0" + member(b"  "),
    "a block of no known type": header(0) + b"\7" + member(DOCUMENT)[10:],
    "a distance too far back": header(0) + b"\x4b\x04\x62\x00" + member(DOCUMENT)[-8:],
    "a damaged block": member(DOCUMENT)[:40] + b"\xff\xff\xff" + member(DOCUMENT)[43:],
    "a stored block with wrong lengths": header(0) + b"\1\2\0\0\0{}" + member(b"{}")[-8:],
    "a stored block": header(0) + b"\1\2\0\xfd\xff{}" + member(b"{}")[-8:],
    "two documents": member(b"{}") + member(b"{}"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
def test_each_stream_at_each_cut(name: str) -> None:
    stream = STREAMS[name]
    expected = oracle(stream)
    assert outcome([stream]) == expected
    assert outcome(steps(stream, 1)) == expected
    if len(stream) < 10_000:
        for cut in range(0, len(stream), 1 if FULL or len(stream) < 500 else 17):
            assert outcome([stream[:cut], stream[cut:]]) == expected, cut


@pytest.mark.parametrize("name", [name for name, stream in STREAMS.items() if oracle(stream) == DOCUMENT])
def test_each_valid_stream_cut_short_and_damaged(name: str) -> None:
    stream = STREAMS[name]
    for length in range(
        0, len(stream) if len(stream) < 10_000 else 500, 1 if FULL or len(stream) < 500 else 17
    ):
        assert outcome([stream[:length]]) == oracle(stream[:length]), length
        damaged = bytearray(stream)
        damaged[length] ^= 0x55
        found = outcome([bytes(damaged)])
        # Damage to a header's checksum, or under one, is seen by the receiver and not by the oracle.
        assert found == oracle(bytes(damaged)) or found is None, length
        assert found in (None, DOCUMENT), length


def test_damage_to_a_header_under_a_checksum_is_refused() -> None:
    for flags in (FHCRC, FHCRC | FNAME, FHCRC | FEXTRA | FCOMMENT | FNAME):
        head = header(flags)
        for place in range(4, len(head)):
            damaged = bytearray(head)
            damaged[place] ^= 1
            if place not in (10, 11) or not flags & FEXTRA:  # a field of another length is another header
                assert outcome([member(DOCUMENT, bytes(damaged))]) is None, (flags, place)


@pytest.mark.parametrize(
    "flags", [FLAGS[-1], FHCRC | FNAME, FNAME | FCOMMENT, FHCRC | FEXTRA, FEXTRA | FCOMMENT]
)
@pytest.mark.parametrize(
    "length", [SLICE - 40, SLICE - 11, SLICE - 10, SLICE - 1, SLICE, SLICE + 1, 65_535, 200_000]
)
def test_fields_across_a_slice_and_longer_than_one(flags: int, length: int) -> None:
    long = b"n" * length
    heads = [header(flags, name=long), header(flags, comment=long), header(flags, extra=long[:65_535])]
    for stream in (*(member(DOCUMENT, head) for head in heads), members(DOCUMENT, 20)[:-1] + b"\0"):
        expected = oracle(stream)
        for size in (1 << 20, SLICE, SLICE - 1, 1000, 17):
            assert outcome(steps(stream, size)) == expected
        if stream[-1]:
            assert expected == DOCUMENT
            # Behind another member, so that the header does not begin with a slice.
            assert outcome([member(b" "), stream]) == b" " + DOCUMENT


def test_a_header_is_not_held_however_long_it_is() -> None:
    reader = BodyReader(gzipped=True, limit=1 << 20)
    part = b"n" * (1 << 20)
    tracemalloc.start()
    try:
        assert list(reader.feed(header(FNAME)[:10])) == []
        for _ in range(64):
            assert list(reader.feed(part)) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
    assert b"".join([*reader.feed(b"\0" + member(b"{}")[10:]), *reader.finish()]) == b"{}"


def test_what_swells_is_cut_at_the_limit() -> None:
    bomb = member(b'{"a":"' + b"x" * 5_000_000 + b'"}', level=9)
    for stream in (bomb, member(b"") * 50 + bomb, member(b" " * 100_000, level=9) * 60 + bomb):
        for size in (1, 100, 1 << 20) if len(stream) < 10_000 else (100, 1 << 20):
            reader = BodyReader(gzipped=True, limit=1_000_000)
            with pytest.raises(RefusedError) as caught:
                for piece in steps(stream, size):
                    list(reader.feed(piece))
            assert caught.value.status == 413
