"""No batch leaves the disk without its own acknowledgement: an audit hook that watches every delete.

``conftest.py`` has it watch every test; `watch_deletes` watches a block, with exceptions of its own.
Seen are ``os.remove``/``os.unlink`` (also with dir_fd) and renames, of names that are a batch's, by any
thread of this process. What is seen before it happens is judged at once, against the bytes still on disk.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from . import audit, ledger

BATCH = re.compile(r"[0-9]+-([0-9a-f]+)\.json")


@dataclass(frozen=True)
class Deletion:
    """A batch file about to go: its name, where, its bytes' digest, and whether that was legal."""

    name: str
    path: str  # as given to the system call, with the folder's path when that was a descriptor
    how: str  # "remove", "rename" (to a name that is another or no batch's), "overwrite" (by another batch)
    digest: str | None  # of the bytes on disk; None when it was no regular file, or not readable
    size: int
    thread: str
    legal: bool

    @property
    def batch_id(self) -> str:
        """The id as written in the name."""
        match = BATCH.fullmatch(self.name)
        assert match is not None
        return match[1]


@dataclass
class DeleteWatch:
    """What `watch_deletes` yields: `deletions` so far, `violations` among them."""

    acknowledged: Callable[[str], bool] | None = None
    package_only: bool = False
    deletions: list[Deletion] = field(default_factory=list)
    _allowed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def violations(self) -> list[Deletion]:
        """The deletes without an acknowledgement."""
        with self._lock:
            return [deletion for deletion in self.deletions if not deletion.legal]

    @property
    def names(self) -> list[str]:
        """The names of everything deleted, in order."""
        with self._lock:
            return [deletion.name for deletion in self.deletions]

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Deletes in this block are by the user's word (``clear``), or an evictor's."""
        with self._lock:
            self._allowed += 1
        try:
            yield
        finally:
            with self._lock:
                self._allowed -= 1

    def check(self) -> None:
        """Raise ``AssertionError`` when there were violations."""
        lines = [f"  {d.how} {d.path} ({d.size} bytes) in {d.thread}" for d in self.violations]
        assert not lines, "deleted without an acknowledgement of exactly these bytes:\n" + "\n".join(lines)

    def _judge(self, name: str, path: str, how: str, dir_fd: int) -> None:
        content = _content(path, dir_fd)
        if content is _MISSING:
            return  # it vanished before: the call will fail, nothing is lost by it
        digest, size = (None, 0) if content is None else (ledger.digest(content), len(content))
        match = BATCH.fullmatch(name)
        assert match is not None
        legal = self._allowed > 0 or (digest is not None and ledger.is_acknowledged(match[1], digest))
        if not legal and self.acknowledged is not None:
            legal = self.acknowledged(name)
        shown = os.path.join(_folder(dir_fd), path) if dir_fd >= 0 else path
        who = threading.current_thread().name
        with self._lock:
            self.deletions.append(Deletion(name, shown, how, digest, size, who, legal))

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self.package_only and not _by_the_package():
            return
        if event == "os.remove":
            path, name = _named(args[0])
            if BATCH.fullmatch(name) and not _by_rmtree():
                self._judge(name, path, "remove", args[1])
        elif event == "os.rename":
            (source, old), (target, new) = _named(args[0]), _named(args[1])
            if not BATCH.fullmatch(old):
                return  # a writer seals a batch: new bytes under a name of their own
            if old != new:
                self._judge(old, source, "rename", args[2])
            elif BATCH.fullmatch(new) and _content(target, args[3]) not in (
                _MISSING,
                _content(source, args[2]),
            ):
                self._judge(new, target, "overwrite", args[3])


_MISSING = object()
_watches: list[DeleteWatch] = []


@contextmanager
def watch_deletes(
    *, acknowledged: Callable[[str], bool] | None = None, package_only: bool = False
) -> Iterator[DeleteWatch]:
    """Raise ``AssertionError`` at the end if a batch was deleted in the block without its acknowledgement.

    Acknowledged is what any ``ScriptedServer`` of this process has received whole, byte for byte, under that id
    and answered whole with a success; and what `acknowledged(name)` says, for other receivers. The predicate is
    asked in the deleting thread before the delete. With `package_only` a delete without the package on its stack
    is somebody else's, a test's own or the SDK's eviction, and not seen. Watches nest: only the innermost one sees.
    """
    watch = DeleteWatch(acknowledged, package_only)

    def hear(event: str, args: tuple[Any, ...]) -> None:
        if _watches and _watches[-1] is watch:
            watch._hear(event, args)

    _watches.append(watch)
    try:
        with audit.listening(hear):
            yield watch
    finally:
        _watches.remove(watch)
    watch.check()


def _named(path: Any) -> tuple[str, str]:
    """A path of an audit event as text, and its last part."""
    text = "" if isinstance(path, int) else os.fsdecode(path)
    return text, os.path.basename(text)


def _content(path: str, dir_fd: int) -> Any:
    """The bytes, None when it is not a readable regular file, `_MISSING` when there is nothing."""
    try:
        fd = os.open(
            path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=dir_fd if dir_fd >= 0 else None
        )
    except FileNotFoundError:
        return _MISSING
    except OSError:
        return None
    with open(fd, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(fd).st_mode) else None


def _folder(dir_fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{dir_fd}")
    except OSError:
        return f"<descriptor {dir_fd}>"


def _by_the_package() -> bool:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "cirron_spool":
            return True
        frame = frame.f_back
    return False


def _by_rmtree() -> bool:
    """Whether a whole tree is being removed: a test tidying up, unless the package itself does it."""
    frame: FrameType | None = sys._getframe(1)
    tidying = False
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).split(".")[0] == "cirron_spool":
            return False
        tidying = tidying or (
            frame.f_code.co_filename == shutil.__file__ and "rmtree" in frame.f_code.co_name
        )
        frame = frame.f_back
    return tidying
