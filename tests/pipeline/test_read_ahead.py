"""Batches made ready ahead: their bodies, and what cannot be sent, in the order of the names."""

from __future__ import annotations

import errno
import gzip
import os
import random
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.pipeline import read_ahead as room
from cirron_spool.pipeline.encoding import GZIP_LIBRARIES
from cirron_spool.pipeline.pace import Pace
from cirron_spool.pipeline.read_ahead import Cause, Prefetch, Prepared, Unsendable
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from support.background import SAFETY_NET
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


async def streamed(prefetch: Prefetch, batch: Prepared) -> bytes:
    async with prefetch.stream(batch) as parts:
        return b"".join([part async for part in parts])


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def no_delete(batch: Prepared) -> str | None:
    """For batches that are not put."""
    raise AssertionError(batch.name)


# -- bodies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 1023, 1024, 1025, 4096, 262_143, 262_144, 262_145, 600_000])
@pytest.mark.parametrize("make", [noise, lambda size: b"[" * size], ids=["noise", "monotone"])
def test_bodies_are_the_files_bytes(
    spool: SpoolDirectory, folder: Path, size: int, make: Callable[[int], bytes]
) -> None:
    (folder / NAME).write_bytes(make(size))
    before = descriptors()
    batch = prepared(Prefetch(spool, Tuning()).prepare(NAME))
    assert descriptors() == before
    assert sent(batch) == make(size)
    assert batch.gzip == (size > 1024)
    assert (batch.name, batch.size) == (NAME, size)
    assert batch.fingerprint.inode == (folder / NAME).stat().st_ino


def test_what_the_sdk_wrote(folder: Path, spool: SpoolDirectory) -> None:
    batches = [*sdk_batches(folder, 3), *sdk_batches(folder, 3, spans=TINY, seed=1)]
    prefetch = Prefetch(spool, Tuning())
    assert {len(batch.data) > 1024 for batch in batches} == {True, False}
    for batch in batches:
        ready = prepared(prefetch.prepare(batch.name))
        assert sent(ready) == batch.data
        assert ready.gzip == (len(batch.data) > 1024)


@pytest.mark.parametrize("library", [name for name in GZIP_LIBRARIES if name != "auto"])
@given(
    size=st.integers(1, 3000) | st.integers(1, 300_000),
    chunk_bytes=st.sampled_from([1, 7, 1000, 65_536, 262_144, 1_000_000]),
    level=st.sampled_from([None, 1, 2, 3]),
    held=st.sampled_from([0, 100, 20_000, room.HELD_BYTES]),
    seed=st.integers(0, 3),
)
def test_held_or_streamed_any_gzip_gives_back_the_file(
    library: str, size: int, chunk_bytes: int, level: int | None, held: int, seed: int
) -> None:
    size = min(size, chunk_bytes * 2000)  # a byte at a time is slow
    data = noise(size // 2, seed) + b"[0,1]" * (size // 10 + 1)
    with (
        tempfile.TemporaryDirectory() as name,
        SpoolDirectory(Path(name)) as spool,
        pytest.MonkeyPatch.context() as patch,
    ):
        (Path(name) / NAME).write_bytes(data)
        assert spool.open()
        patch.setattr(room, "HELD_BYTES", held)
        prefetch = Prefetch(spool, Tuning(gzip_library=library, gzip_level=level, chunk_bytes=chunk_bytes))
        batch = prepared(prefetch.prepare(NAME))
        if batch.length is None:
            assert batch.gzip
            assert batch.parts == ()
            first, again = (anyio.run(streamed, prefetch, batch) for _ in range(2))
            assert gzip.decompress(first) == data
            assert again == first
        else:
            assert sent(batch) == data
            assert b"".join(prepared(prefetch.prepare(NAME)).parts) == b"".join(batch.parts)


@pytest.mark.anyio
async def test_a_body_too_large_to_hold_is_streamed(spool: SpoolDirectory, folder: Path) -> None:
    data = noise(room.HELD_BYTES + 300_000)
    (folder / NAME).write_bytes(data)
    prefetch = Prefetch(spool, Tuning())
    batch = prepared(prefetch.prepare(NAME))
    assert (batch.length, batch.parts, batch.size) == (None, (), len(data))
    first, again = await streamed(prefetch, batch), await streamed(prefetch, batch)
    assert gzip.decompress(first) == data
    assert again == first


def test_a_large_file_that_packs_well_is_held(spool: SpoolDirectory, folder: Path) -> None:
    data = b'{"spans": [NaN]}' * (room.HELD_BYTES // 16 * 2)
    (folder / NAME).write_bytes(data)
    batch = prepared(Prefetch(spool, Tuning()).prepare(NAME))
    assert batch.length is not None
    assert sent(batch) == data


# -- what cannot be sent -----------------------------------------------------------------------------------------------


def test_vanished(spool: SpoolDirectory) -> None:
    assert Prefetch(spool, Tuning()).prepare(NAME) == Unsendable(NAME, Cause.VANISHED)


def test_empty(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).touch()
    assert Prefetch(spool, Tuning()).prepare(NAME) == Unsendable(NAME, Cause.EMPTY)


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
    assert Prefetch(spool, Tuning()).prepare(NAME) == Unsendable(NAME, Cause.NOT_A_FILE, words)
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
            prefetch = Prefetch(spool, Tuning())
            os.setresuid(NOBODY, NOBODY, 0)
            try:
                item = prefetch.prepare(NAME)
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
        item = Prefetch(spool, Tuning()).prepare(NAME)
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
        item = Prefetch(spool, Tuning()).prepare(NAME)
    assert item == Unsendable(NAME, Cause.UNREADABLE, "it changes while it is read")


# -- in the event loop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 1024, 1025, 131_072, 1_048_577])
@pytest.mark.parametrize("more", [-1, 0, 1, 100_000])
def test_a_file_is_brief_up_to_the_limit(spool: SpoolDirectory, folder: Path, limit: int, more: int) -> None:
    (folder / NAME).write_bytes(noise(limit + more))
    prefetch = Prefetch(spool, Tuning(in_loop_bytes=limit))
    before = descriptors()
    item = prefetch.prepare_if_brief(NAME)
    assert descriptors() == before
    if more > 0:
        assert item is None
    else:
        assert item is not None
        assert item == prefetch.prepare(NAME)
    prefetch.close()


def test_a_file_that_is_not_brief_is_not_read(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(fd: int, count: int) -> bytes:
        raise AssertionError("read")

    (folder / NAME).write_bytes(noise(1001))
    with reading(monkeypatch, forbidden):
        assert Prefetch(spool, Tuning(in_loop_bytes=1000)).prepare_if_brief(NAME) is None


@pytest.mark.parametrize(
    ("make", "cause", "words"),
    [
        (lambda path: None, Cause.VANISHED, ""),
        (Path.touch, Cause.EMPTY, ""),
        (os.mkfifo, Cause.NOT_A_FILE, "a named pipe"),
        (Path.mkdir, Cause.NOT_A_FILE, "a folder"),
        (lambda path: path.symlink_to("/dev/null"), Cause.NOT_A_FILE, "a symbolic link"),
    ],
    ids=["vanished", "empty", "pipe", "folder", "link"],
)
def test_in_the_loop_the_same_cannot_be_sent(
    spool: SpoolDirectory, folder: Path, make: Callable[[Path], None], cause: Cause, words: str
) -> None:
    make(folder / NAME)
    prefetch = Prefetch(spool, Tuning())
    before = descriptors()
    assert prefetch.prepare_if_brief(NAME) == Unsendable(NAME, cause, words)
    assert descriptors() == before
    assert prefetch.prepare(NAME) == Unsendable(NAME, cause, words)


@pytest.mark.parametrize("change", [_grow, _shrink])
def test_a_file_that_changes_while_it_is_read_in_the_loop(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    (folder / NAME).write_bytes(noise(5000))
    real = os.read

    def read(fd: int, count: int) -> bytes:
        change(folder / NAME)  # between its fstat and its first byte
        return real(fd, count)

    with reading(monkeypatch, read):
        item = Prefetch(spool, Tuning()).prepare_if_brief(NAME)
    assert item == Unsendable(NAME, Cause.UNREADABLE, "it changes while it is read")


class AlwaysQuick(Pace):
    """A disk whose pieces are quick however loaded the machine is: who works where is no matter of chance then."""

    def tried(self, seconds: float) -> None:
        super().tried(0)

    def done_in_loop(self, seconds: float) -> None:
        super().done_in_loop(0)


def test_a_late_word_of_the_file_system_about_a_large_file_is_none(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened again by the thread, which will tell."""
    (folder / NAME).write_bytes(noise(2000))
    prefetch = Prefetch(spool, Tuning(in_loop_bytes=1000))
    close = os.close

    # A network file system that reports an error on closing cannot be had here.
    def closes_with_an_error(fd: int) -> None:
        close(fd)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "close", closes_with_an_error)
    assert prefetch.prepare_if_brief(NAME) is None
    monkeypatch.undo()
    assert isinstance(prefetch.prepare(NAME), Prepared)


@pytest.mark.anyio
@pytest.mark.parametrize("in_loop_bytes", [0, 1400, Tuning().in_loop_bytes])
async def test_outcomes_come_in_order_whoever_prepares_them(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, in_loop_bytes: int
) -> None:
    monkeypatch.setattr("cirron_spool.pipeline.bridge.Pace", AlwaysQuick)
    names = [f"{number:020d}-0a.json" for number in range(60)]
    # Small ones in a row, too: after some of them the loop has its turn.
    sizes = {name: min(number % 14, 5) * 300 for number, name in enumerate(names)}
    for name, size in sizes.items():
        if size != 300:
            (folder / name).write_bytes(noise(size))
    prefetch = Prefetch(spool, Tuning(prefetch_batches=6, in_loop_bytes=in_loop_bytes))
    in_loop: list[str] = []
    brief = prefetch.prepare_if_brief

    def spied(name: str) -> Prepared | Unsendable | None:
        assert threading.current_thread() is threading.main_thread()
        item = brief(name)
        if item is not None:
            in_loop.append(name)
        return item

    monkeypatch.setattr(prefetch, "prepare_if_brief", spied)
    deleted: list[str] = []
    items: list[Prepared | Unsendable] = []

    def delete(batch: Prepared) -> str | None:
        deleted.append(batch.name)
        return None

    async with prefetch.ahead(names, delete) as ready:
        async for item in ready:
            items.append(item)
            if isinstance(item, Prepared):
                ready.put(item)
            await anyio.lowlevel.checkpoint()  # the loop has its turn with what was put, before more is
            while ready._asleep_at != ready._posted:  # only while the thread sleeps may the loop work
                await anyio.lowlevel.checkpoint()
    prefetch.close()
    assert [item.name for item in items] == names
    assert deleted == [name for name in names if sizes[name] > 300]
    for item in items:
        if isinstance(item, Prepared):
            assert sent(item) == noise(sizes[item.name])
        else:
            assert item.cause is (Cause.VANISHED if sizes[item.name] == 300 else Cause.EMPTY)
    assert all(sizes[name] <= in_loop_bytes for name in in_loop)
    assert bool(in_loop) == bool(in_loop_bytes)


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
    prefetch = Prefetch(spool, Tuning(chunk_bytes=10_000))
    batch = prepared(prefetch.prepare(NAME))
    assert batch.length is None
    change(folder / NAME)
    before = descriptors()
    with pytest.raises(error, match=f"{NAME} {words}"):
        await streamed(prefetch, batch)
    assert descriptors() == before


@pytest.mark.anyio
@pytest.mark.parametrize("change", [_grow, _shrink])
async def test_a_file_that_changes_in_the_middle_of_its_stream(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(room, "HELD_BYTES", 1000)
    (folder / NAME).write_bytes(noise(1_000_000))
    prefetch = Prefetch(spool, Tuning(chunk_bytes=10_000))
    batch = prepared(prefetch.prepare(NAME))
    real = os.read
    reads: list[int] = []

    def read(fd: int, count: int) -> bytes:
        reads.append(count)
        if len(reads) == 3:
            change(folder / NAME)
        return real(fd, count)

    with reading(monkeypatch, read), pytest.raises(OSError, match="changed while it was being sent"):
        await streamed(prefetch, batch)


@pytest.mark.anyio
async def test_a_stream_that_is_left_closes_its_file(spool: SpoolDirectory, folder: Path) -> None:
    (folder / NAME).write_bytes(noise(room.HELD_BYTES + 2_000_000))
    prefetch = Prefetch(spool, Tuning())
    batch = prepared(prefetch.prepare(NAME))
    before = descriptors()
    async with prefetch.stream(batch) as parts:
        assert await anext(parts)
        assert descriptors() == before + 1
    assert descriptors() == before


# -- ahead -------------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_outcomes_come_in_the_order_of_the_names(spool: SpoolDirectory, folder: Path) -> None:
    names = [f"{number:020d}-0a.json" for number in range(40)]
    for number, name in enumerate(names):
        if number % 5 == 1:
            continue  # vanished
        (folder / name).write_bytes(b"" if number % 5 == 2 else noise(number * 100 + 1, number))
    async with Prefetch(spool, Tuning(prefetch_batches=3)).ahead(names, no_delete) as ready:
        items = [item async for item in ready]
    assert [item.name for item in items] == names
    for number, item in enumerate(items):
        if number % 5 == 1:
            assert item == Unsendable(names[number], Cause.VANISHED)
        elif number % 5 == 2:
            assert item == Unsendable(names[number], Cause.EMPTY)
        else:
            assert sent(prepared(item)) == noise(number * 100 + 1, number)


@pytest.mark.anyio
async def test_batches_are_deleted_in_the_midst_of_a_large_one(spool: SpoolDirectory, folder: Path) -> None:
    small, large = "1-a.json", "2-b.json"
    (folder / small).write_bytes(b"{}")
    (folder / large).write_bytes(noise(2_000_000))
    deleted_after: list[int] = []
    prefetch = Prefetch(spool, Tuning(chunk_bytes=1000, prefetch_batches=1))

    def delete(batch: Prepared) -> str:
        deleted_after.append(len(read))
        return batch.name

    read: list[bool] = []
    handed_over = threading.Event()

    def between() -> None:
        read.append(True)
        if len(read) == 2:
            assert handed_over.wait(SAFETY_NET)
        ready.run_errands()

    real = prefetch.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefetch, "prepare", lambda name, _: real(name, between))
        async with prefetch.ahead([small, large], delete) as ready:
            first = prepared(await anext(ready))
            ready.put(first)
            await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()
            handed_over.set()
            assert prepared(await anext(ready)).size == 2_000_000
            assert list(ready.results()) == [small]
    assert len(deleted_after) == 1
    assert deleted_after[0] <= 2
    assert len(read) > 1000


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("tuning", "ahead"),
    [
        pytest.param(Tuning(prefetch_batches=3), 3, id="batches"),
        # 10 kB of noise each: the third goes beyond the weight.
        pytest.param(Tuning(prefetch_batches=100, prefetch_bytes=25_000), 3, id="bytes"),
        pytest.param(Tuning(prefetch_batches=100, prefetch_bytes=1), 1, id="one at least"),
    ],
)
async def test_no_more_is_held_than_asked_for(
    spool: SpoolDirectory, folder: Path, monkeypatch: pytest.MonkeyPatch, tuning: Tuning, ahead: int
) -> None:
    names = [f"{number:020d}-0a.json" for number in range(12)]
    for name in names:
        (folder / name).write_bytes(noise(10_000))
    prefetch = Prefetch(spool, tuning)
    begun: list[str] = []

    def prepare(name: str, between: Callable[[], None]) -> Prepared | Unsendable:
        begun.append(name)
        return Prefetch.prepare(prefetch, name, between)

    def prepare_if_brief(name: str) -> Prepared | Unsendable | None:
        begun.append(name)
        return Prefetch.prepare_if_brief(prefetch, name)

    monkeypatch.setattr(prefetch, "prepare", prepare)
    monkeypatch.setattr(prefetch, "prepare_if_brief", prepare_if_brief)
    async with prefetch.ahead(names, no_delete) as ready:
        for taken in range(1, len(names) + 1):
            await anext(ready)
            assert len(begun) <= taken + ahead
        with pytest.raises(StopAsyncIteration):
            await anext(ready)
    assert begun == names
