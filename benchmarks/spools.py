"""Spools to flush: generated, or copied from a user's folder.

A flush deletes its batches. So each run gets a copy on the measured file system, and the original stays.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from benchmarks import records
from benchmarks.errors import BenchmarkError
from benchmarks.sink import fingerprint
from cirron_spool.spool.names import batch_id_of, format_batch_name, is_batch_name, oldest_first

KB = 1000
MB = 1000 * KB

# On tmpfs, a delete costs only the kernel's time, and no figure has the noise of a disk.
TMPFS = Path("/dev/shm")  # noqa: S108 - a file system to measure on, not a place to hide a file
_SEED = 20260418


@dataclass(frozen=True, slots=True)
class Shape:
    """A generated spool: its batches, the bounds of their bytes, and the share of snapshots in them."""

    name: str
    batches: int
    low_bytes: int
    high_bytes: int
    snapshots: float = 0.0


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("typical", 1000, 20 * KB, 103 * KB),
        Shape("tiny", 1000, 334, 1233),
        Shape("big", 10, 9_900 * KB, 9_900 * KB, snapshots=0.1),
        Shape("huge", 1, 298 * MB, 298 * MB, snapshots=0.1),
    )
}


@dataclass(frozen=True)
class Spool:
    """An original spool, which is never flushed; its batches are listed oldest first."""

    name: str
    directory: Path
    names: tuple[str, ...]
    json_bytes: int
    linked: bool = False

    @cached_property
    def ids(self) -> list[str]:
        """The batch ids, oldest first."""
        return [batch_id_of(name) for name in self.names]

    @cached_property
    def proofs(self) -> dict[str, list[int]]:
        """The fingerprint of each file by its batch id."""
        found = {}
        for name in self.names:
            with (self.directory / name).open("rb") as file:
                found[batch_id_of(name)] = fingerprint(file)
        return found


class Workspace:
    """A temporary folder; ``file_system`` is the type of its file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file_system = file_system(folder)
        self._generated: dict[Shape, Spool] = {}
        self._count = 0

    def new_folder(self, name: str) -> Path:
        """A new empty folder."""
        self._count += 1
        path = self.folder / f"{self._count:04d}-{name}"
        path.mkdir()
        return path

    def generate(self, shape: Shape) -> Spool:
        """The spool of ``shape``, generated at the first call. Its batches are a second apart and end about now."""
        if shape in self._generated:
            return self._generated[shape]
        directory = self.new_folder(shape.name)
        sizes = random.Random(_SEED)
        writer = records.BatchWriter(shape.snapshots, _SEED, time.time_ns() - shape.batches * 1_000_000_000)
        names: list[str] = []

        def open_(created_ns: int, batch_id: str) -> BinaryIO:
            names.append(format_batch_name(created_ns, batch_id))
            return (directory / names[-1]).open("xb")

        for _ in range(shape.batches):
            writer.write(sizes.randint(shape.low_bytes, shape.high_bytes), open_)
        total = sum((directory / name).stat().st_size for name in names)
        self._generated[shape] = Spool(shape.name, directory, tuple(names), total)
        return self._generated[shape]

    def adopt(self, directory: Path) -> Spool:
        """A copy of a user's spool, without its empty files."""
        with os.scandir(directory) as entries:
            sizes = {
                entry.name: size
                for entry in entries
                if is_batch_name(entry.name)
                and entry.is_file(follow_symlinks=False)
                and (size := entry.stat().st_size)
            }
        if not sizes:
            raise BenchmarkError(f"No batches in {directory}")
        copy = self.new_folder("own")
        for name in sizes:
            shutil.copyfile(directory / name, copy / name)
        return Spool("own", copy, tuple(oldest_first(sizes)), sum(sizes.values()))

    def multiply(self, spool: Spool, batches: int) -> Spool:
        """``batches`` hard links to the files of ``spool``: for counts, not for times."""
        target = self.new_folder("many")
        clock = time.time_ns()
        names = [format_batch_name(clock + index * 1_000_000, records.new_id()) for index in range(batches)]
        for index, name in enumerate(names):
            os.link(spool.directory / spool.names[index % len(spool.names)], target / name)
        total = sum((target / name).stat().st_size for name in names)
        return Spool(spool.name, target, tuple(names), total, linked=True)

    @contextmanager
    def copy(self, spool: Spool) -> Iterator[Path]:
        """A copy of ``spool`` to flush. The files are copied, since a delete must free their memory."""
        target = self.new_folder("run")
        duplicate = os.link if spool.linked else shutil.copyfile
        for name in spool.names:
            duplicate(spool.directory / name, target / name)
        if self.file_system != "tmpfs":
            os.sync()  # otherwise the run is timed while the copy is still written back
        try:
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def remove(self, spool: Spool) -> None:
        """Remove a spool that no later run needs."""
        shutil.rmtree(spool.directory, ignore_errors=True)
        self._generated = {
            shape: made for shape, made in self._generated.items() if made.directory != spool.directory
        }


@contextmanager
def temporary_workspace(where: str) -> Iterator[Workspace]:
    """A workspace on ``tmpfs``, on ``disk`` (the folder for temporary files), or in the folder ``where``."""
    parent = {"tmpfs": TMPFS, "disk": Path(tempfile.gettempdir())}.get(where, Path(where))
    if where == "tmpfs" and (not os.access(TMPFS, os.W_OK) or file_system(TMPFS) != "tmpfs"):
        raise BenchmarkError(f"There is no tmpfs at {TMPFS}. Measure on disk with --where disk.")
    folder = Path(tempfile.mkdtemp(prefix="cirron-benchmark-", dir=parent))
    try:
        yield Workspace(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_system(folder: Path) -> str:
    """The type of the file system of ``folder`` (``tmpfs``, ``ext4``), or ``disk`` where the system does not say."""
    try:
        device = os.stat(folder).st_dev
        wanted = f"{os.major(device)}:{os.minor(device)}"
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            fields, _, rest = line.partition(" - ")
            if fields.split()[2] == wanted:
                return rest.split()[0]
    except (OSError, IndexError):
        pass
    return "disk"
