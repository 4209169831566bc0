"""Request bodies: whatever library, level and pieces, any gzip gives back exactly the file's bytes."""

from __future__ import annotations

import gzip
import importlib
import itertools
import random
import sys
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.errors import ConfigError
from cirron_spool.pipeline import encoding as room
from cirron_spool.pipeline.encoding import GZIP_LIBRARIES, Compressor, Encoder
from support.background import SAFETY_NET

LIBRARIES = [name for name in GZIP_LIBRARIES if name != "auto"]
MODULES = {"isal": "isal.isal_zlib", "zlib-ng": "zlib_ng.zlib_ng", "zlib": "zlib"}
LEVELS = {"isal": range(4), "zlib-ng": range(1, 10), "zlib": range(1, 10)}
SETTINGS = [(library, level) for library in LIBRARIES for level in LEVELS[library]]


def available(library: str) -> None:
    """Skip where the library has no wheel for this platform."""
    pytest.importorskip(MODULES[library])


def packed(encoder: Encoder, data: bytes, cuts: list[int]) -> bytes:
    """The gzip stream of `data`, fed in the pieces between `cuts`."""
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = list(encoder.gzip_parts(data[a:b] for a, b in itertools.pairwise(edges)))
    assert all(parts)
    return b"".join(parts)


def json_like(size: int, seed: int) -> bytes:
    rng = random.Random(seed)
    words = [b'"id":', b'"name":"forward",', b'"cpu_ns":', b"NaN,", b"null,", b"}{", b"0."]
    text = b"".join(rng.choice(words) + str(rng.getrandbits(50)).encode() for _ in range(size // 12 + 1))
    return text[:size]


DATA = st.binary(max_size=5000) | st.builds(json_like, st.integers(0, 200_000), st.integers(0, 9))


@pytest.mark.parametrize("library", LIBRARIES)
@given(data=DATA, level=st.integers(0, 8), cuts=st.lists(st.integers(0, 200_000), max_size=6))
def test_what_is_packed_comes_out_whole(library: str, data: bytes, level: int, cuts: list[int]) -> None:
    available(library)
    levels = LEVELS[library]
    encoder = Encoder(library, levels[level % len(levels)])
    body = packed(encoder, data, cuts)
    assert gzip.decompress(body) == data
    for module in MODULES.values():  # the receiving side may use any of them
        if module != "zlib":
            pytest.importorskip(module)
        assert importlib.import_module(module).decompress(body, wbits=31) == data
    whole = encoder.gzip(data)
    assert gzip.decompress(whole) == data
    assert encoder.gzip(data) == whole
    assert packed(encoder, data, cuts) == body  # a retry that packs again sends the same bytes


@pytest.mark.thorough
@pytest.mark.parametrize(("library", "level"), SETTINGS)
@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 65_535, 65_536, 300_007])
def test_every_level_and_size(library: str, level: int, size: int) -> None:
    available(library)
    for data in (json_like(size, level), bytes(size), random.Random(size).randbytes(size)):
        encoder = Encoder(library, level)
        assert gzip.decompress(packed(encoder, data, [size // 3, size // 2])) == data
        assert gzip.decompress(encoder.gzip(data)) == data


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(
    "make", [Encoder.gzip, lambda encoder, data: packed(encoder, data, [100])], ids=["whole", "in parts"]
)
def test_one_member_with_a_checksum_and_no_time(
    library: str, make: Callable[[Encoder, bytes], bytes]
) -> None:
    available(library)
    encoder = Encoder(library)
    body = make(encoder, b"x" * 5000)
    assert body[:3] == b"\x1f\x8b\x08"
    assert body[4:8] == bytes(4)
    assert body[-8:] == zlib.crc32(b"x" * 5000).to_bytes(4, "little") + (5000).to_bytes(4, "little")
    decompressor = zlib.decompressobj(31)
    decompressor.decompress(body)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    broken = bytearray(body)
    broken[-6] ^= 1
    with pytest.raises(gzip.BadGzipFile):
        gzip.decompress(bytes(broken))


@pytest.mark.parametrize("library", LIBRARIES)
def test_it_does_compress(library: str) -> None:
    available(library)
    data = json_like(100_000, 1)
    for level in LEVELS[library]:
        assert len(packed(Encoder(library, level), data, [])) < len(data) * 0.7


@pytest.mark.parametrize(("library", "default"), [("isal", 1), ("zlib-ng", 2), ("zlib", 1)])
def test_the_default_level_is_the_fast_one(library: str, default: int) -> None:
    available(library)
    assert Encoder(library).level == default
    assert Encoder(library).library.name == library


@pytest.mark.parametrize(
    ("library", "level", "words"),
    [
        ("isal", 4, r"There is no gzip level 4 in isal\. Choose one from 0 to 3"),
        ("isal", -1, r"There is no gzip level -1 in isal\. Choose one from 0 to 3"),
        ("zlib-ng", 0, r"There is no gzip level 0 in zlib-ng\. Choose one from 1 to 9"),
        ("zlib", 10, r"There is no gzip level 10 in zlib\. Choose one from 1 to 9"),
        ("zlib", 0, r"There is no gzip level 0 in zlib\. Choose one from 1 to 9"),
    ],
)
def test_a_level_that_the_library_does_not_know(library: str, level: int, words: str) -> None:
    available(library)
    with pytest.raises(ConfigError, match=words):
        Encoder(library, level)


@pytest.mark.parametrize("library", ["", "gzip", "AUTO", "../zlib"])
def test_a_library_that_does_not_exist(library: str) -> None:
    with pytest.raises(
        ConfigError, match=r"There is no gzip library .* Choose one of: auto, isal, zlib-ng, zlib"
    ):
        Encoder(library)


@pytest.mark.parametrize(
    ("missing", "chosen"),
    [
        pytest.param([], "isal", id="all installed"),
        pytest.param(["isal"], "zlib-ng", id="no isal"),
        pytest.param(["isal", "zlib_ng"], "zlib", id="neither"),
    ],
)
def test_auto_takes_the_fastest_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, missing: list[str], chosen: str
) -> None:
    for library in LIBRARIES:
        available(library)
    for module in missing:
        monkeypatch.setitem(sys.modules, module, None)  # as on a platform without a wheel
    encoder = Encoder()
    assert encoder.library.name == chosen
    assert gzip.decompress(packed(encoder, b"x" * 5000, [])) == b"x" * 5000


@pytest.mark.parametrize(("library", "module"), [("isal", "isal"), ("zlib-ng", "zlib_ng")])
def test_a_named_library_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, library: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"The gzip library {library} is not installed"):
        Encoder(library)


# -- blocks that are compressed beside each other ----------------------------------------------------------------------

# How far back a library is asked to look, in bytes.
WINDOWS = {"isal": 4096, "zlib-ng": 8192, "zlib": 32_768}
SIZES = (
    st.sampled_from([1, 100, 5000, 70_000])
    | st.builds(int.__add__, st.sampled_from([*WINDOWS.values(), 16_384]), st.integers(-1, 1))
    | st.integers(0, 3000)
)


def periodic(size: int, period: int, seed: int) -> bytes:
    """Noise that comes again after `period` bytes: it packs only where a block knows what was so far before it."""
    return (random.Random(seed).randbytes(period) * (size // period + 1))[:size]


def in_blocks(encoder: Encoder, data: bytes, sizes: list[int]) -> bytes:
    edges = list(itertools.accumulate(sizes, initial=0))
    assert edges[-1] == len(data)
    parts = list(encoder.gzip_parts(data[a:b] for a, b in itertools.pairwise(edges)))
    assert all(parts)
    return b"".join(parts)


def one_member(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(31)
    data = decompressor.decompress(body)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    return data


@pytest.mark.thorough
@pytest.mark.parametrize("library", LIBRARIES)
@given(
    level=st.integers(0, 8),
    sizes=st.lists(SIZES, max_size=12)
    | st.builds(lambda size, count: [size] * count, SIZES, st.integers(0, 12)),
    period=st.sampled_from([3, 1000])
    | st.builds(int.__add__, st.sampled_from(list(WINDOWS.values())), st.sampled_from([-300, 0, 300])),
    seed=st.integers(0, 3),
)
def test_blocks_make_one_member_and_always_the_same(
    library: str, level: int, sizes: list[int], period: int, seed: int
) -> None:
    available(library)
    data = periodic(sum(sizes), period, seed)
    level = LEVELS[library][level % len(LEVELS[library])]
    body = in_blocks(Encoder(library, level), data, sizes)
    assert gzip.decompress(body) == data
    assert one_member(body) == data
    assert in_blocks(Encoder(library, level), data, sizes) == body
    with pytest.MonkeyPatch.context() as patch:
        for cores in (1, 64):
            patch.setattr(room, "_cores", lambda cores=cores: cores)
            assert in_blocks(Encoder(library, level), data, sizes) == body


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("blocks", [1, 3, 8], ids=lambda blocks: f"{blocks} blocks a period")
def test_a_block_knows_what_was_before_it(library: str, blocks: int) -> None:
    """Also where that is several blocks: what came before costs next to nothing when it comes again."""
    available(library)
    period = WINDOWS[library] * 3 // 4
    size = period // blocks
    data = periodic(period * 10, period, 1)
    body = in_blocks(Encoder(library), data, [size] * (10 * blocks))
    assert one_member(body) == data
    # Alone, or knowing the one before it only, most of the blocks would be noise: ten periods.
    assert len(body) < 2 * period + 20 * 10 * blocks


def test_no_blocks_are_an_empty_member() -> None:
    assert one_member(b"".join(Encoder("zlib").gzip_parts(iter(())))) == b""


def test_no_more_is_read_than_is_compressed() -> None:
    read: list[int] = []

    def blocks() -> Iterator[bytes]:
        for number in range(50):
            read.append(number)
            yield json_like(5000, number)

    for taken, _ in enumerate(Encoder("zlib").gzip_parts(blocks()), 1):
        assert len(read) <= taken + room._HELPERS_BLOCKS + room._PARTS_BEHIND
    assert len(read) == 50


class Held:
    """Makes an encoder's helper wait: before its first block until ``first``, before its second until ``gate``.

    What the helper began is in ``started``.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.first = threading.Event()
        self.gate = threading.Event()
        self.waits = threading.Event()
        self.started: list[bytes] = []
        self._deflater = encoder.library.deflater
        self._streams = threading.get_ident()
        encoder.library = replace(encoder.library, deflater=self._wait)

    def _wait(self, level: int, before: bytes) -> Compressor:
        if threading.get_ident() != self._streams:
            self.started.append(before)
            assert self.first.wait(SAFETY_NET)
            if len(self.started) > 1:
                self.waits.set()
                assert self.gate.wait(SAFETY_NET)
        return self._deflater(level, before)


def begun_and_held(monkeypatch: pytest.MonkeyPatch) -> tuple[Encoder, Held, Generator[bytes, None, None]]:
    """An encoder whose helper waits, and a stream of twelve blocks of which the first part was taken.

    The helper is at the second block, the third was the stream's own thread's, and the fourth waits for the helper.
    """
    monkeypatch.setattr(room, "_cores", lambda: 2)
    encoder = Encoder("zlib")
    held = Held(encoder)

    def blocks() -> Iterator[bytes]:
        for number in range(12):
            if number == 3:
                held.first.set()
                assert held.waits.wait(SAFETY_NET)
            yield bytes([number]) * 100

    parts = encoder.gzip_parts(blocks())
    assert next(parts)
    return encoder, held, parts


def left_alone(encoder: Encoder) -> bool:
    """Whether the encoder's threads end."""
    assert encoder._helper is not None
    threads = list(encoder._helper._threads)
    for thread in threads:
        thread.join(SAFETY_NET)
    return bool(threads) and not any(thread.is_alive() for thread in threads)


def test_a_stream_that_is_left_midway_is_not_compressed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, held, parts = begun_and_held(monkeypatch)
    parts.close()
    held.gate.set()
    # The helper goes on: what it is given next is done, and what the stream still wanted is not.
    assert encoder._helper is not None
    assert encoder._helper.submit(gzip.decompress, encoder.gzip(b"z")).result(SAFETY_NET) == b"z"
    assert held.started == [b"", b"\0" * 100]
    encoder.close()
    assert left_alone(encoder)


def test_what_the_helper_has_not_begun_when_a_stream_ends_is_done_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_cores", lambda: 2)
    encoder = Encoder("zlib")
    held = Held(encoder)
    deflater = encoder.library.deflater

    def released_by_the_second(level: int, before: bytes) -> Compressor:
        if before == b"0" * 100:
            held.first.set()
        return deflater(level, before)

    encoder.library = replace(encoder.library, deflater=released_by_the_second)
    data = [number * 100 for number in (b"0", b"1", b"2", b"3")]
    # The helper is at the first, the second waits for it, the others are the stream's own thread's.
    assert one_member(b"".join(encoder.gzip_parts(iter(data)))) == b"".join(data)
    assert held.started == [b""]
    encoder.close()


def test_after_close_nothing_is_compressed_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, held, _ = begun_and_held(monkeypatch)
    encoder.close()
    held.gate.set()
    assert left_alone(encoder)
    assert held.started == [b"", b"\0" * 100]  # one that was under way, none that waited
    blocks = [b"x" * 100] * 3
    assert one_member(b"".join(encoder.gzip_parts(iter(blocks)))) == b"".join(blocks)
    assert left_alone(encoder)
    encoder.close()  # again
    assert gzip.decompress(encoder.gzip(b"x" * 2000)) == b"x" * 2000  # needs no threads


@pytest.mark.parametrize(("cores", "helped"), [(1, False), (2, True), (64, True)])
def test_one_thread_helps_where_there_is_a_core_for_it(
    cores: int, helped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_cores", lambda: cores)
    encoder = Encoder("zlib")
    data = [json_like(5000, number) for number in range(20)]
    assert one_member(b"".join(encoder.gzip_parts(iter(data)))) == b"".join(data)
    assert (encoder._helper is not None) == helped
    encoder.close()


def test_an_encoder_that_is_closed_before_its_first_stream_makes_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "_cores", lambda: 2)
    encoder = Encoder("zlib")
    encoder.close()
    data = [json_like(5000, number) for number in range(4)]
    assert one_member(b"".join(encoder.gzip_parts(iter(data)))) == b"".join(data)
    assert encoder._helper is None


def test_an_error_of_the_blocks_is_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_cores", lambda: 2)

    def blocks() -> Iterator[bytes]:
        yield b"x" * 100
        raise OSError("disk")

    encoder = Encoder("zlib")
    with pytest.raises(OSError, match="disk"):
        list(encoder.gzip_parts(blocks()))
    encoder.close()
    assert left_alone(encoder)
