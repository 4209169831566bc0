"""Batches as they are read: their bodies, and the files that cannot be sent."""

from __future__ import annotations

import errno
import gzip
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.pipeline import batch_reader as room
from cirron_spool.pipeline.batch import Cause, Prepared, Unsendable
from cirron_spool.pipeline.batch_reader import BatchReader
from cirron_spool.pipeline.encoding import GZIP_LIBRARIES
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from support.spools import TINY, sdk_batches

NAME = "00000000000000000001-0a.json"
NOBODY = 65534  # a user other than the one who runs the tests; it owns nothing here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "spool"
    place.mkdir()
    return place


@pytest.fixture
def spool(folder: Path) -> Iterator[SpoolDirectory]:
    with SpoolDirectory(folder) as opened:
        assert opened.open()
        yield opened


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def prepared(item: Prepared | Unsendable) -> Prepared:
    assert isinstance(item, Prepared), item
    return item


def sent(batch: Prepared) -> bytes:
    """What the server makes of a held body."""
    body = b"".join(batch.parts)
    assert batch.length == len(body)
    return gzip.decompress(body) if batch.gzip else body


async def streamed(reader: BatchReader, batch: Prepared) -> bytes:
    async with reader.stream(batch) as parts:
        return b"".join([part async for part in parts])


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 4096, 262_143, 262_144, 262_145, 600_000])
@pytest.mark.parametrize("make", [noise, lambda size: b"[" * size], ids=["noise", "monotone"])
def test_bodies_are_the_files_bytes(
    spool: SpoolDirectory, folder: Path, size: int, make: Callable[[int], bytes]
) -> None:
    (folder / NAME).write_bytes(make(size))
    before = descriptors()
    batch = prepared(BatchReader(spool, Tuning()).read(NAME))
    assert descriptors() == before
    assert sent(batch) == make(size)
    assert batch.gzip == (size > 1024)
    assert (batch.name, batch.size) == (NAME, size)
    assert batch.fingerprint.inode == (folder / NAME).stat().st_ino


def test_what_the_sdk_wrote(folder: Path, spool: SpoolDirectory) -> None:
    batches = [*sdk_batches(folder, 3), *sdk_batches(folder, 3, spans=TINY, seed=1)]
    reader = BatchReader(spool, Tuning())
    assert {len(batch.data) > 1024 for batch in batches} == {True, False}
    for batch in batches:
        ready = prepared(reader.read(batch.name))
        assert sent(ready) == batch.data
        assert ready.gzip == (len(batch.data) > 1024)


@pytest.mark.thorough
@pytest.mark.parametrize("library", [name for name in GZIP_LIBRARIES if name != "auto"])
@given(
    size=st.integers(1, 3000) | st.integers(1, 100_000),
    chunk_bytes=st.sampled_from([1, 7, 1000, 65_536, 262_144, 1_000_000]),
    level=st.sampled_from([None, 1, 2, 3]),
    held=st.sampled_from([0, 100, 20_000, room.HELD_BYTES]),
    seed=st.integers(0, 3),
)
def test_held_or_streamed_any_gzip_gives_back_the_file(
    library: str, size: int, chunk_bytes: int, level: int | None, held: int, seed: int
) -> None:
    size = min(size, chunk_bytes * 500)  # a byte at a time is slow
    data = noise(size // 2, seed) + b"[0,1]" * (size // 10 + 1)
    with (
        tempfile.TemporaryDirectory() as name,
        SpoolDirectory(Path(name)) as spool,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(name) / NAME).write_bytes(data)
        assert spool.open()
        patch.setattr(room, "HELD_BYTES", held)
        reader = BatchReader(spool, Tuning(gzip_library=library, gzip_level=level, chunk_bytes=chunk_bytes))
        batch = prepared(reader.read(NAME))
        if batch.length is None:
            assert batch.gzip
            assert batch.parts == ()
            first, again = (anyio.run(streamed, reader, batch) for _ in range(2))
            assert gzip.decompress(first) == data
            assert again == first
        else:
            assert sent(batch) == data
            assert b"".join(prepared(reader.read(NAME)).parts) == b"".join(batch.parts)


@pytest.mark.anyio
async def test_a_body_too_large_to_hold_is_streamed(spool: SpoolDirectory, folder: Path) -> None:
    data = noise(room.HELD_BYTES + 300_000)
    (folder / NAME).write_bytes(data)
    reader = BatchReader(spool, Tuning())
    batch = prepared(reader.read(NAME))
    assert (batch.length, batch.parts, batch.size) == (None, (), len(data))
    first, again = await streamed(reader, batch), await streamed(reader, batch)
    assert gzip.decompress(first) == data
    assert again == first


def test_a_large_file_that_packs_well_is_held(spool: SpoolDirectory, folder: Path) -> None:
    data = b'{"spans": [NaN]}' * (room.HELD_BYTES // 16 * 2)
    (folder / NAME).write_bytes(data)
    batch = prepared(BatchReader(spool, Tuning()).read(NAME))
    assert batch.length is not None
    assert sent(batch) == data


# -- what cannot be sent -----------------------------------------------------------------------------------------------


def test_vanished(spool: SpoolDirectory) -> None:
    assert BatchReader(spool, Tuning()).read(NAME) == Unsendable(NAME, Cause.VANISHED)


def test_empty(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).touch()
    assert BatchReader(spool, Tuning()).read(NAME) == Unsendable(NAME, Cause.EMPTY)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "a named pipe"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/null"), "a symbolic link"),
    ],
    ids=["pipe", "folder", "link"],
)
def test_no_file(spool: SpoolDirectory, folder: Path, make: Callable[[Path], None], words: str) -> None:
    make(folder / NAME)
    before = descriptors()
    assert BatchReader(spool, Tuning()).read(NAME) == Unsendable(NAME, Cause.NOT_A_FILE, words)
    assert descriptors() == before


@pytest.mark.skipif(
    not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root can act as two users"
)
def test_unreadable() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / NAME).write_bytes(b"{}")
        (Path(name) / NAME).chmod(0o600)
        with SpoolDirectory(Path(name)) as spool:
            assert spool.open()
            reader = BatchReader(spool, Tuning())
            os.setresuid(NOBODY, NOBODY, 0)
            try:
                item = reader.read(NAME)
            finally:
                os.setresuid(0, 0, 0)
    assert item == Unsendable(NAME, Cause.UNREADABLE, "Permission denied")


@contextmanager
def reading(monkeypatch: pytest.MonkeyPatch, read: Callable[[int, int], bytes]) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        yield


@pytest.mark.parametrize("size", [10, 5000])
def test_a_disk_that_fails(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    def broken(fd: int, count: int) -> bytes:
        raise OSError(errno.EIO, "Input/output error")  # cannot be had here

    (folder / NAME).write_bytes(noise(size))
    before = descriptors()
    with reading(monkeypatch, broken):
        item = BatchReader(spool, Tuning()).read(NAME)
    assert item == Unsendable(NAME, Cause.UNREADABLE, "Input/output error")
    assert descriptors() == before


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [_grow, _shrink])
@pytest.mark.parametrize("size", [500, 5000, 600_000])
def test_a_file_that_changes_while_it_is_read(
    spool: SpoolDirectory,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    change: Callable[[Path], None],
) -> None:
    (folder / NAME).write_bytes(noise(size))
    real = os.read
    changed: list[bool] = []

    def read(fd: int, count: int) -> bytes:
        if not changed:
            changed.append(True)
            change(folder / NAME)  # between its fstat and its first byte
        return real(fd, count)

    with reading(monkeypatch, read):
        item = BatchReader(spool, Tuning()).read(NAME)
    assert item == Unsendable(NAME, Cause.UNREADABLE, "it changes while it is read")


# -- small files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 1024, 1025, 131_072, 1_048_577])
@pytest.mark.parametrize("more", [-1, 0, 1, 100_000])
def test_a_file_is_small_up_to_the_limit(spool: SpoolDirectory, folder: Path, limit: int, more: int) -> None:
    (folder / NAME).write_bytes(noise(limit + more))
    reader = BatchReader(spool, Tuning())
    before = descriptors()
    batch = reader.read_if_small(NAME, limit)
    assert descriptors() == before
    if more > 0:
        assert batch is None
    else:
        assert batch == reader.read(NAME)


def test_a_large_file_is_not_read(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, count: int) -> bytes:
        raise AssertionError(fd, count)

    (folder / NAME).write_bytes(noise(1001))
    with reading(monkeypatch, refuse):
        assert BatchReader(spool, Tuning()).read_if_small(NAME, 1000) is None


@pytest.mark.parametrize(
    "make", [None, os.mkfifo, Path.mkdir, Path.touch], ids=["none", "pipe", "folder", "empty"]
)
def test_the_same_files_cannot_be_sent(
    spool: SpoolDirectory, folder: Path, make: Callable[[Path], None] | None
) -> None:
    if make is not None:
        make(folder / NAME)
    reader = BatchReader(spool, Tuning())
    assert isinstance(reader.read(NAME), Unsendable)
    assert reader.read_if_small(NAME, 1000) == reader.read(NAME)


# -- streams of files that are not the same any more -------------------------------------------------------------------


def _rewrite(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)


def _link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (Path.unlink, FileNotFoundError, "vanished while it was being sent"),
        (_grow, OSError, "changed while it was being sent"),
        (_shrink, OSError, "changed while it was being sent"),
        (_rewrite, OSError, "changed while it was being sent"),
        (_link, OSError, "is a symbolic link now"),
    ],
    ids=["vanished", "grown", "shrunk", "rewritten", "a link"],
)
async def test_a_file_that_changed_before_it_is_streamed(
    spool: SpoolDirectory,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    error: type[OSError],
    words: str,
) -> None:
    monkeypatch.setattr(room, "HELD_BYTES", 1000)
    (folder / NAME).write_bytes(noise(1_000_000))
    reader = BatchReader(spool, Tuning(chunk_bytes=10_000))
    batch = prepared(reader.read(NAME))
    assert batch.length is None
    change(folder / NAME)
    before = descriptors()
    with pytest.raises(error, match=f"{NAME} {words}"):
        await streamed(reader, batch)
    assert descriptors() == before


@pytest.mark.anyio
@pytest.mark.parametrize("change", [_grow, _shrink])
async def test_a_file_that_changes_in_the_middle_of_its_stream(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(room, "HELD_BYTES", 1000)
    (folder / NAME).write_bytes(noise(1_000_000))
    reader = BatchReader(spool, Tuning(chunk_bytes=10_000))
    batch = prepared(reader.read(NAME))
    real = os.read
    reads: list[int] = []

    def read(fd: int, count: int) -> bytes:
        reads.append(count)
        if len(reads) == 3:
            change(folder / NAME)
        return real(fd, count)

    with reading(monkeypatch, read), pytest.raises(OSError, match="changed while it was being sent"):
        await streamed(reader, batch)


@pytest.mark.anyio
async def test_a_stream_that_is_left_closes_its_file(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).write_bytes(noise(room.HELD_BYTES + 2_000_000))
    reader = BatchReader(spool, Tuning())
    batch = prepared(reader.read(NAME))
    before = descriptors()
    async with reader.stream(batch) as parts:
        assert await anext(parts)
        assert descriptors() == before + 1
    assert descriptors() == before
