"""The two disk workers: batches in order and within bounds, deletes in order and to their end, each in its thread."""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cirron_spool.errors import ResourceError
from cirron_spool.pipeline import disk_thread
from cirron_spool.pipeline.batch import Cause, Prepared, Ready
from cirron_spool.pipeline.batch_reader import BatchReader
from cirron_spool.pipeline.disk_worker import DiskWorker
from cirron_spool.pipeline.inline_worker import SMALL_BYTES, InlineWorker
from cirron_spool.pipeline.thread_worker import ThreadWorker
from cirron_spool.pipeline.window_size import FixedSize
from cirron_spool.settings.tuning import Tuning
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.file_identity import Removal
from support.background import SAFETY_NET
from support.monitor import DeleteWatch, watch_deletes
from support.turns import a_few_turns

pytestmark = pytest.mark.anyio

LARGE = SMALL_BYTES + 1
KINDS = [ThreadWorker, InlineWorker]


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """Nothing is uploaded here: each file may be deleted."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def body(batch: Prepared) -> bytes:
    data = b"".join(batch.parts)
    return gzip.decompress(data) if batch.gzip else data


class Disk:
    """A spool directory, and what was done in it: names with the thread that did it."""

    def __init__(self, folder: Path, kind: type[DiskWorker], tuning: Tuning | None = None) -> None:
        self.folder = folder
        self.kind = kind
        self.tuning = tuning or Tuning()
        self.spool = SpoolDirectory(folder)
        assert self.spool.open()
        self.reader = BatchReader(self.spool, self.tuning)
        self.read: list[tuple[str, bool]] = []  # with whether the event loop's thread did it
        self.deleted: list[tuple[str, bool]] = []
        self.reported: list[tuple[str, Removal | OSError]] = []
        self.before_delete: Callable[[str], None] = lambda name: None
        self.before_read: Callable[[str], None] = lambda name: None
        self._loop_thread = threading.get_ident()
        real_open = self.reader._open

        def opened(name: str) -> Any:
            self.read.append((name, self._is_loop()))
            self.before_read(name)
            return real_open(name)

        self.reader._open = opened  # type: ignore[method-assign]

    def worker(self, **options: Any) -> DiskWorker:
        self._loop_thread = threading.get_ident()
        return self.kind(self.reader, self.remove, self.tuning, **options)

    def remove(self, batch: Prepared) -> Removal:
        self.before_delete(batch.name)
        self.deleted.append((batch.name, self._is_loop()))
        return self.spool.delete(batch.name, batch.fingerprint)

    def removed(self, batch: Prepared, removal: Removal | OSError) -> None:
        assert self._is_loop()
        self.reported.append((batch.name, removal))

    def write(self, *sizes: int) -> list[str]:
        """Batches of these sizes; 0 is an empty file, below 0 none at all."""
        names = [f"{number:020d}-0a.json" for number in range(len(sizes))]
        for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
            if size >= 0:
                (self.folder / name).write_bytes(noise(size, number))
        return names

    def _is_loop(self) -> bool:
        return threading.get_ident() == self._loop_thread


MakeDisk = Callable[..., Disk]


@pytest.fixture(params=KINDS)
def make(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[MakeDisk]:
    """Makes the disk of each of the two workers."""
    (tmp_path / "spool").mkdir()
    disks: list[Disk] = []

    def made(tuning: Tuning | None = None) -> Disk:
        disks.append(Disk(tmp_path / "spool", request.param, tuning))
        return disks[-1]

    yield made
    for disk in disks:
        disk.reader.close()
        disk.spool.close()


async def take(worker: DiskWorker) -> Prepared:
    batch = await worker.next()
    assert isinstance(batch, Prepared), batch
    return batch


async def all_of(worker: DiskWorker) -> list[Ready]:
    batches = []
    while (batch := await worker.next()) is not None:
        batches.append(batch)
        worker.poll()
    return batches


# -- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("kind", KINDS)
@given(
    sizes=st.lists(st.sampled_from([-1, 0, 1, 900, 5000, LARGE, 300_000]), max_size=40),
    groups=st.integers(1, 4),
    prefetch=st.sampled_from([1, 2, 5, 64]),
    prefetch_bytes=st.sampled_from([1, 100_000, 4_194_304]),
    in_flight=st.sampled_from([1, 3]),
)
def test_every_batch_comes_in_order_whatever_its_size(
    tmp_path_factory: pytest.TempPathFactory,
    kind: type[DiskWorker],
    sizes: list[int],
    groups: int,
    prefetch: int,
    prefetch_bytes: int,
    in_flight: int,
) -> None:
    disk = Disk(
        tmp_path_factory.mktemp("spool"),
        kind,
        Tuning(prefetch_batches=prefetch, prefetch_bytes=prefetch_bytes),
    )
    names = disk.write(*sizes)

    async def run() -> list[Ready]:
        batches = []
        async with disk.worker(window_size=FixedSize(in_flight)) as worker:
            for start in range(groups):  # fed in groups, as a source that is followed does
                worker.feed(names[start * len(names) // groups : (start + 1) * len(names) // groups])
                batches += await all_of(worker)
        return batches

    batches = asyncio.run(run())
    disk.spool.close()
    assert [batch.name for batch in batches] == names
    for number, (size, batch) in enumerate(zip(sizes, batches, strict=True)):
        if isinstance(batch, Prepared):
            assert body(batch) == noise(size, number)
        else:
            assert batch.cause is (Cause.EMPTY if size == 0 else Cause.VANISHED)
            assert size <= 0


async def test_the_thread_worker_leaves_the_disk_to_the_thread_and_the_inline_worker_small_files_to_the_loop(
    make: MakeDisk,
) -> None:
    disk = make()
    names = disk.write(100, 5000, SMALL_BYTES, LARGE, 100)
    async with disk.worker() as worker:
        worker.feed(names)
        for batch in await all_of(worker):
            assert isinstance(batch, Prepared)
            worker.delete(batch, disk.removed)
            await worker.drain()
    is_inline = disk.kind is InlineWorker
    is_small = [True, True, True, False, True]
    assert [(name, in_loop) for name, in_loop in disk.deleted] == [
        (name, is_inline and small) for name, small in zip(names, is_small, strict=True)
    ]
    read_in_loop = {name for name, in_loop in disk.read if in_loop}
    # A wrong guess about a large file costs one open in the loop.
    assert read_in_loop == (set(names) if is_inline else set())
    assert {name for name, in_loop in disk.read if not in_loop} >= ({names[3]} if is_inline else set(names))


@pytest.mark.parametrize(
    ("tuning", "most"),
    [
        pytest.param(Tuning(prefetch_batches=3), 3, id="batches"),
        # 10 kB of noise each: the third goes beyond the bytes.
        pytest.param(Tuning(prefetch_batches=100, prefetch_bytes=25_000), 3, id="bytes"),
        pytest.param(Tuning(prefetch_batches=100, prefetch_bytes=1), 1, id="one at least"),
    ],
)
async def test_no_more_is_ready_than_the_tuning_allows(make: MakeDisk, tuning: Tuning, most: int) -> None:
    disk = make(tuning)
    names = disk.write(*[10_000] * 12)
    async with disk.worker() as worker:
        worker.feed(names)
        for taken in range(1, len(names) + 1):
            await worker.next()
            worker.poll()
            await worker.run(lambda: None)  # the thread has done its jobs
            await a_few_turns()
            assert len(disk.read) <= taken + most
        assert await worker.next() is None
    assert [name for name, _ in disk.read] == names


async def test_the_next_batches_are_read_while_one_is_sent(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(*[5000] * 4, LARGE, LARGE)
    async with disk.worker() as worker:
        worker.feed(names)
        for taken in range(1, len(names)):
            await worker.next()
            worker.poll()  # it is sent
            await worker.run(lambda: None)
            await a_few_turns()
            assert len({name for name, _ in disk.read}) > taken
        assert (await take(worker)).name == names[-1]


async def test_a_lack_of_resources_is_raised_in_its_place(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10, 10, 10)

    def lacking(name: str) -> None:
        if name == names[1]:
            raise ResourceError("There is not enough memory.")

    disk.before_read = lacking
    async with disk.worker() as worker:
        worker.feed(names[:1])
        assert (await take(worker)).name == names[0]
        worker.feed(names[1:])
        with pytest.raises(ResourceError):
            await worker.next()
        assert await worker.next() is None  # raised once


async def test_an_error_that_nobody_waits_for_is_raised_at_the_end(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10)

    def broken(name: str) -> None:
        raise ZeroDivisionError(name)

    disk.before_read = broken
    with pytest.raises(ZeroDivisionError):
        async with disk.worker() as worker:
            worker.feed(names)
            await worker.run(lambda: None)
            await a_few_turns()
    # But not in place of another.
    with pytest.raises(KeyError):
        async with disk.worker() as worker:
            worker.feed(names)
            raise KeyError


# -- deleting ------------------------------------------------------------------------------------------------------


async def test_files_are_deleted_in_their_order_and_reported_once(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10, LARGE, 10, 5000, LARGE, 10)
    async with disk.worker() as worker:
        worker.feed(names)
        for batch in await all_of(worker):
            assert isinstance(batch, Prepared)
            worker.delete(batch, disk.removed)
        assert worker.undeleted == len(names) - len(disk.reported)
        await worker.drain()
        assert worker.undeleted == 0
    assert [name for name, _ in disk.deleted] == names
    assert disk.reported == [(name, Removal.DELETED) for name in names]
    assert list(disk.folder.iterdir()) == []


async def test_a_delete_waits_for_the_poll(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10)
    async with disk.worker() as worker:
        worker.feed(names)
        worker.delete(await take(worker), disk.removed)
        assert disk.deleted == []
        worker.poll()
        await worker.run(lambda: None)
        assert disk.reported == [(names[0], Removal.DELETED)]


async def test_without_a_poll_the_file_is_deleted_soon(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10)
    done = asyncio.Event()
    async with disk.worker() as worker:
        worker.feed(names)
        worker.delete(await take(worker), lambda batch, removal: done.set())
        await asyncio.wait_for(done.wait(), SAFETY_NET)
    assert [name for name, _ in disk.deleted] == names


async def test_drain_waits_until_at_most_so_many_are_left(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(*[LARGE] * 3)  # in the thread with either
    gates = {name: threading.Event() for name in names}
    disk.before_delete = lambda name: None if gates[name].wait(SAFETY_NET) else pytest.fail("late")
    async with disk.worker() as worker:
        worker.feed(names)
        for batch in await all_of(worker):
            assert isinstance(batch, Prepared)
            worker.delete(batch, disk.removed)
            worker.poll()
        await worker.drain(3)
        draining = asyncio.ensure_future(worker.drain(1))
        gates[names[0]].set()
        await a_few_turns()
        assert not draining.done()
        gates[names[1]].set()
        gates[names[2]].set()
        await draining
        assert worker.undeleted <= 1


async def test_a_delete_that_fails_is_its_result(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(10, 10)

    def refused(name: str) -> None:
        if name == names[0]:
            raise PermissionError(1, "Operation not permitted")

    disk.before_delete = refused
    async with disk.worker() as worker:
        worker.feed(names)
        for _ in names:
            worker.delete(await take(worker), disk.removed)
    (_, error), second = disk.reported
    assert isinstance(error, PermissionError)
    assert second == (names[1], Removal.DELETED)


@pytest.mark.parametrize("waits", [True, False], ids=["drained", "left"])
async def test_a_bug_in_a_delete_is_raised(make: MakeDisk, waits: bool) -> None:
    disk = make()
    names = disk.write(10, 10)

    def broken(name: str) -> None:
        raise ZeroDivisionError(name)

    disk.before_delete = broken

    async def use() -> None:
        async with disk.worker() as worker:
            worker.feed(names)
            worker.delete(await take(worker), disk.removed)
            if waits:
                await worker.drain()

    with pytest.raises(ZeroDivisionError):
        await use()
    assert disk.reported == []


async def test_a_delete_does_not_wait_for_a_large_batch(make: MakeDisk) -> None:
    disk = make(Tuning(chunk_bytes=1000, prefetch_batches=1))
    names = disk.write(LARGE, 2_000_000)
    deleted = threading.Event()
    real_serve = disk_thread.DiskThread.serve
    served = 0

    def serve(thread: disk_thread.DiskThread) -> None:
        nonlocal served
        served += 1
        real_serve(thread)
        if served > 20:  # in the middle of the second
            assert deleted.wait(0) or handed_over.wait(SAFETY_NET)
            real_serve(thread)
            assert deleted.is_set()

    handed_over = threading.Event()
    async with disk.worker() as worker:
        worker.feed(names)
        first = await take(worker)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(disk_thread.DiskThread, "serve", serve)
            served = 0
            worker.poll()
            disk.before_delete = lambda name: deleted.set()
            worker.delete(first, disk.removed)
            worker.poll()
            handed_over.set()
            assert (await take(worker)).name == names[1]
    assert [name for name, _ in disk.deleted] == names[:1]


# -- leaving -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends_by", ["leaving", "error", "cancelled again and again"])
async def test_leaving_finishes_every_delete_and_calls_the_last_step_in_the_thread(
    make: MakeDisk, ends_by: str
) -> None:
    disk = make()
    names = disk.write(10, LARGE, 10)
    at_end: list[tuple[int, bool]] = []
    started, gate = threading.Event(), threading.Event()

    def late(name: str) -> None:
        started.set()
        if name == names[1]:
            assert gate.wait(SAFETY_NET)

    disk.before_delete = late

    def last() -> None:
        at_end.append((len(disk.deleted), disk._is_loop()))

    async def use() -> None:
        async with disk.worker(last=last) as worker:
            worker.feed(names)
            for _ in names:
                worker.delete(await take(worker), disk.removed)
            if ends_by == "error":
                raise KeyError

    using = asyncio.ensure_future(use())
    await asyncio.to_thread(started.wait, SAFETY_NET)
    await a_few_turns()
    if ends_by == "cancelled again and again":
        for _ in range(3):
            using.cancel()
            await a_few_turns()
            assert not using.done()
    gate.set()
    await asyncio.wait([using])
    assert using.cancelled() is (ends_by == "cancelled again and again")
    if not using.cancelled():
        assert isinstance(using.exception(), KeyError) is (ends_by == "error")
    assert disk.reported == [(name, Removal.DELETED) for name in names]
    assert at_end == [(3, False)]


async def test_leaving_cuts_a_large_batch_that_nobody_needs(make: MakeDisk) -> None:
    disk = make(Tuning(chunk_bytes=1000))
    names = disk.write(LARGE, 30_000_000)
    ended = threading.Event()
    before = len(os.listdir("/dev/fd"))
    async with disk.worker(last=ended.set) as worker:
        worker.feed(names)
        await worker.next()
        worker.poll()
    # The context waited for the thread, which closed the second file.
    assert ended.is_set()
    assert len(os.listdir("/dev/fd")) == before


async def test_a_thread_that_hangs_in_the_file_system_is_left_behind(
    make: MakeDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_thread, "_STOP_S", 0.01)
    disk = make()
    names = disk.write(LARGE)
    gate, hangs = threading.Event(), threading.Event()

    def hang(name: str) -> None:
        if not disk._is_loop():
            hangs.set()
            gate.wait(SAFETY_NET)

    disk.before_read = hang
    ended = threading.Event()
    async with disk.worker(last=ended.set) as worker:
        worker.feed(names)
        await asyncio.to_thread(hangs.wait, SAFETY_NET)
    assert not ended.is_set()
    gate.set()
    assert await asyncio.to_thread(ended.wait, SAFETY_NET)


def test_a_loop_that_is_closed_under_the_worker_does_not_hang_the_thread(make: MakeDisk) -> None:
    disk = make()
    names = disk.write(LARGE)
    gate, ended = threading.Event(), threading.Event()
    disk.before_read = lambda name: None if disk._is_loop() else (gate.wait(SAFETY_NET), None)[1]

    async def use() -> DiskWorker:
        worker = disk.worker(last=ended.set)
        await worker.__aenter__()
        worker.feed(names)
        return worker

    worker = asyncio.run(use())
    gate.set()
    worker._thread._last = ended.set
    worker._thread._inbox.put(None)
    assert ended.wait(SAFETY_NET)


# -- jobs ----------------------------------------------------------------------------------------------------------


async def test_a_job_returns_its_result_or_raises_in_the_caller(make: MakeDisk) -> None:
    disk = make()
    async with disk.worker() as worker:
        assert await worker.run(lambda: threading.current_thread().name) == "cirron-spool disk"
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        assert await worker.run(lambda: 5) == 5


async def test_a_cancelled_job_is_not_waited_for(make: MakeDisk) -> None:
    disk = make()
    gate, started = threading.Event(), threading.Event()

    def job() -> None:
        started.set()
        gate.wait(SAFETY_NET)

    async with disk.worker() as worker:
        running = asyncio.ensure_future(worker.run(job))
        await asyncio.to_thread(started.wait, SAFETY_NET)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        gate.set()
        assert await worker.run(lambda: 5) == 5
