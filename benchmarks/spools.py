"""Spools to flush: generated in the SDK's own shape, or a copy of the user's, and a fresh copy for every run.

A run deletes what it delivers, on the file system that is being measured, so each run gets a spool of its own. The
original is written once and kept for the whole benchmark in a temporary folder, which is removed at its end.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from benchmarks import shapes
from benchmarks.errors import BenchmarkError
from cirron_spool.spool.names import batch_id_of, format_batch_name, is_batch_name, oldest_first
from cirron_spool.text import human_size

KB = 1000
MB = 1000 * KB

# Where Linux keeps files in memory: deletes cost what the kernel costs, and no disk's noise is in the figures.
MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - a file system to measure on, not a place to hide a file


@dataclass(frozen=True, slots=True)
class Shape:
    """A generated spool: how many batches, of how many bytes, filled with what."""

    name: str
    batches: int
    low_bytes: int
    high_bytes: int
    content: shapes.Content

    @property
    def mean_bytes(self) -> float:
        """What a batch is long, on average."""
        return (self.low_bytes + self.high_bytes) / 2


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("typical", 1000, 20 * KB, 103 * KB, shapes.PLAIN),
        Shape("tiny", 1000, 334, 1233, shapes.PLAIN),
        Shape("big", 10, 9_900 * KB, 9_900 * KB, shapes.SOME_SNAPSHOTS),
        Shape("huge", 1, 298 * MB, 298 * MB, shapes.SOME_SNAPSHOTS),
        Shape("snapshots", 10, 9_900 * KB, 9_900 * KB, shapes.MOSTLY_SNAPSHOTS),
    )
}


@dataclass(frozen=True)
class Spool:
    """An original that is never flushed itself.

    ``name`` is what reports call it, ``directory`` where it is, ``names`` its batches oldest first, ``json_bytes``
    their bytes in total. ``generated`` is False for a user's own, whose content may not be the SDK's own text;
    ``linked`` is a spool of hard links, whose copies are links, too.
    """

    name: str
    directory: Path
    names: tuple[str, ...]
    json_bytes: int
    generated: bool = True
    linked: bool = False

    @cached_property
    def ids(self) -> list[str]:
        """The batch ids, oldest first."""
        return [batch_id_of(name) for name in self.names]

    @cached_property
    def proofs(self) -> dict[str, list[int]]:
        """``{batch_id: [length, CRC-32]}`` of every batch, to hold beside what a sink decompressed."""
        return {batch_id_of(name): _fingerprint(self.directory / name) for name in self.names}


def _fingerprint(path: Path) -> list[int]:
    length, crc = 0, 0
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            length += len(piece)
            crc = zlib.crc32(piece, crc)
    return [length, crc]


class Workspace:
    """A temporary folder on the file system to measure on; everything in it goes when it is left."""

    def __init__(self, folder: Path, label: str) -> None:
        self.folder = folder
        self.label = label
        self._made: dict[Shape | Path, Spool] = {}
        self._count = 0

    def fresh(self, name: str) -> Path:
        """A new empty folder in the workspace."""
        self._count += 1
        path = self.folder / f"{self._count:04d}-{name}"
        path.mkdir()
        return path

    def generate(self, shape: Shape, seed: int = 20260418) -> Spool:
        """The spool of ``shape``, generated at the first call and kept."""
        if shape not in self._made:
            self._need(int(shape.batches * shape.mean_bytes * 2), f"two copies of the {shape.name} spool")
            self._made[shape] = generate(self.fresh(shape.name), shape, seed)
        return self._made[shape]

    def adopt(self, directory: Path) -> Spool:
        """A copy of the user's own spool; the original is only read."""
        if directory not in self._made:
            self._made[directory] = self._adopt(directory)
        return self._made[directory]

    def _adopt(self, directory: Path) -> Spool:
        try:
            entries = [entry for entry in os.scandir(directory) if is_batch_name(entry.name)]
        except OSError as error:
            raise BenchmarkError(f"Cannot read the spool: {error.strerror}: {directory}") from error
        sizes = {
            entry.name: entry.stat().st_size for entry in entries if entry.is_file(follow_symlinks=False)
        }
        names = tuple(oldest_first(name for name, size in sizes.items() if size))
        if not names:
            raise BenchmarkError(f"No batches in {directory}")
        json_bytes = sum(sizes[name] for name in names)
        self._need(json_bytes * 2, "two copies of the spool")
        copy = self.fresh("own")
        for name in names:
            shutil.copyfile(directory / name, copy / name)
        return Spool("own", copy, names, json_bytes, generated=False)

    def multiply(self, spool: Spool, batches: int) -> Spool:
        """A spool of ``batches`` names over the content of ``spool``, hard-linked: for counts, not for times.

        A batch id in a name then differs from the one in the file, which a flush never looks at.
        """
        target = self.fresh("many")
        clock = time.time_ns()
        sizes = [(spool.directory / name).stat().st_size for name in spool.names]
        names = [format_batch_name(clock + index * 1_000_000, shapes.new_id()) for index in range(batches)]
        for index, name in enumerate(names):
            os.link(spool.directory / spool.names[index % len(spool.names)], target / name)
        total = sum(sizes[index % len(sizes)] for index in range(batches))
        return Spool(spool.name, target, tuple(names), total, linked=True)

    @contextmanager
    def copy(self, spool: Spool) -> Iterator[Path]:
        """A copy of ``spool`` to flush; copied, not linked, since deleting it must free what a real delete frees."""
        if not spool.linked:
            self._need(spool.json_bytes, "a copy of the spool")
        target = self.fresh("run")
        duplicate = os.link if spool.linked else shutil.copyfile
        for name in spool.names:
            duplicate(spool.directory / name, target / name)
        if self.label != "tmpfs":
            os.sync()  # else the copy is still being written back while the run is timed
        try:
            yield target
        finally:
            shutil.rmtree(target, ignore_errors=True)

    def remove(self, spool: Spool) -> None:
        """Remove a spool that is not needed any more; asked for again, it is made again."""
        shutil.rmtree(spool.directory, ignore_errors=True)
        self._made = {key: made for key, made in self._made.items() if made.directory != spool.directory}

    def _need(self, size: int, what: str) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < size * 1.05:
            raise BenchmarkError(
                f"Not enough room for {what} on {self.label}: {human_size(size)} needed, "
                f"{human_size(free)} free. Choose another place with --where DIR."
            )


@contextmanager
def workspace(where: str) -> Iterator[Workspace]:
    """A workspace on ``where``: ``tmpfs``, ``disk`` (the folder for temporary files), or a folder."""
    parent = _parent(where)
    try:
        folder = Path(tempfile.mkdtemp(prefix="cirron-benchmark-", dir=parent))
    except OSError as error:
        raise BenchmarkError(f"Cannot make a folder in {parent}: {error.strerror}") from error
    try:
        yield Workspace(folder, file_system(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _parent(where: str) -> Path:
    if where == "tmpfs":
        if not os.access(MEMORY_FOLDER, os.W_OK) or file_system(MEMORY_FOLDER) != "tmpfs":
            raise BenchmarkError("There is no tmpfs at /dev/shm here. Measure on disk with --where disk.")
        return MEMORY_FOLDER
    return Path(tempfile.gettempdir()) if where == "disk" else Path(where)


def file_system(folder: Path) -> str:
    """The type of the file system that ``folder`` is on (``tmpfs``, ``ext4``), or ``disk`` where it cannot be told."""
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


def generate(directory: Path, shape: Shape, seed: int) -> Spool:
    """Write a spool of ``shape`` into ``directory``, about a second between batches, ending about now."""
    sizes = random.Random(seed)
    start_ns = time.time_ns() - shape.batches * 1_000_000_000
    batches = shapes.Batches(shape.content, seed, start_ns)
    names: list[str] = []

    def open_(created_ns: int, batch_id: str) -> BinaryIO:
        names.append(format_batch_name(created_ns, batch_id))
        return (directory / names[-1]).open("xb")

    for _ in range(shape.batches):
        batches.write(sizes.randint(shape.low_bytes, shape.high_bytes), open_)
    total = sum((directory / name).stat().st_size for name in names)
    return Spool(shape.name, directory, tuple(names), total)
