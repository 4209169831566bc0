from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.receiver.answers import RefusedError
from cirron_spool.receiver.body import PIECE_BYTES, BodyReader, is_gzip

LIMIT = 10_000_000


def read(data: bytes, *, gzipped: bool = True, limit: int = LIMIT, step: int = 1 << 20) -> bytes:
    reader = BodyReader(gzipped=gzipped, limit=limit)
    pieces: list[bytes] = []
    for start in range(0, len(data), step):
        pieces += reader.feed(data[start : start + step])
    pieces += reader.finish()
    assert all(len(piece) <= 2 * PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


def refused(data: bytes, *, gzipped: bool = True, limit: int = LIMIT) -> tuple[int, str]:
    with pytest.raises(RefusedError) as caught:
        read(data, gzipped=gzipped, limit=limit)
    return caught.value.status, caught.value.message


def document(size: int) -> bytes:
    return b'{"spans":["' + b'abc","' * (size // 6) + b'"]}'


@pytest.mark.parametrize("size", [0, 100, 131_072, 2_000_000])
@pytest.mark.parametrize("step", [1, 4_096, 1 << 20])
def test_what_went_in_comes_out(size: int, step: int) -> None:
    text = document(size)
    if size <= 100 or step > 1:
        assert read(gzip.compress(text), step=step) == text
        assert read(text, gzipped=False, step=step) == text


def test_members_in_a_row_are_one_body() -> None:
    text = document(300)
    members = b"".join(gzip.compress(text[place : place + 1]) for place in range(len(text)))
    assert read(members + gzip.compress(b"")) == text


def test_thousands_of_empty_members() -> None:
    assert read(gzip.compress(b"") * 20_000 + gzip.compress(b"{}")) == b"{}"


def test_every_cut_is_refused() -> None:
    packed = gzip.compress(document(500))
    for length in range(len(packed)):
        status, message = refused(packed[:length])
        assert (status, message) == (400, "The gzip body ends too early.")


@pytest.mark.parametrize(
    "rest", [b"x", b"\0x", b"garbage behind the end", gzip.compress(b"", mtime=0)[:-1], b"\x1f"]
)
def test_what_follows_the_last_member_is_refused(rest: bytes) -> None:
    status, message = refused(gzip.compress(document(500)) + rest)
    assert status == 400
    assert "behind its end" in message


def test_damage_is_refused() -> None:
    packed = bytearray(gzip.compress(document(500)))
    packed[-5] ^= 1  # the checksum
    assert refused(bytes(packed)) == (400, "The body is not valid gzip.")
    assert refused(document(500)) == (400, "The body is not valid gzip.")
    assert refused(zlib.compress(document(500))) == (400, "The body is not valid gzip.")


def test_not_json_is_refused_early_and_at_the_end() -> None:
    assert refused(gzip.compress(b'{"a":' + b"x" * 1_000_000))[1].startswith(
        "The body is not JSON: unexpected"
    )
    assert refused(b"{", gzipped=False) == (400, "The body is not JSON: it ends too early.")
    assert refused(b"", gzipped=False) == (400, "The body is not JSON: it is empty.")


def test_the_limit_is_exact() -> None:
    text = document(1_000)
    packed = gzip.compress(text)
    assert read(packed, limit=len(text)) == text
    assert read(text, gzipped=False, limit=len(text)) == text
    too_large = (413, f"The batch is larger than {len(text) - 1} bytes.")
    assert refused(packed, limit=len(text) - 1) == too_large
    assert refused(text, gzipped=False, limit=len(text) - 1) == too_large


def test_a_bomb_yields_no_more_than_the_limit() -> None:
    bomb = gzip.compress(b'{"a":"' + b"x" * 50_000_000)
    reader = BodyReader(gzipped=True, limit=1_000_000)
    seen = 0
    with pytest.raises(RefusedError) as caught:
        for piece in reader.feed(bomb):
            seen += len(piece)
    assert caught.value.status == 413
    assert seen <= 1_000_000


@given(st.binary(max_size=200))
def test_noise_is_only_ever_refused(noise: bytes) -> None:
    for gzipped in (True, False):
        with contextlib.suppress(RefusedError):
            read(noise, gzipped=gzipped)


@given(st.text(), st.lists(st.integers(0, 200), max_size=4), st.integers(1, 9), st.integers(1, 300))
def test_any_member_boundaries_and_steps(text: str, cuts: list[int], level: int, step: int) -> None:
    raw = b'{"a":"' + text.encode("utf-8", "ignore").hex().encode() + b'"}'
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    packed = b"".join(gzip.compress(raw[begin:end], level) for begin, end in itertools.pairwise(edges))
    assert read(packed, step=step) == raw


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("", False), ("identity", False), ("gzip", True), ("GZIP", True), (" x-gzip ", True)],
)
def test_content_encodings(encoding: str, expected: bool) -> None:
    assert is_gzip(encoding) is expected


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "gzip;q=1"])
def test_other_content_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(RefusedError) as caught:
        is_gzip(encoding)
    assert caught.value.status == 415
