"""Calls that block, made in the thread of a running event loop. Nothing is timed: the call itself is the fault."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any
from unittest import mock

from . import audit

# Audit events of calls that wait for a disk, a name server, another process or the clock. ``open`` stands for
# the built-in, ``io.open`` and ``os.open`` alike.
EVENTS = frozenset(
    {
        "open",
        "os.remove",
        "os.rename",
        "os.listdir",
        "os.scandir",
        "os.mkdir",
        "os.rmdir",
        "os.link",
        "os.symlink",
    }
    | {
        "os.truncate",
        "os.chmod",
        "os.utime",
        "fcntl.flock",
        "fcntl.lockf",
        "shutil.rmtree",
        "shutil.copyfile",
    }
    | {"socket.getaddrinfo", "socket.gethostbyname", "subprocess.Popen", "os.system", "time.sleep"}
)
# Calls that wait and raise no audit event.
PATCHED: list[tuple[ModuleType, str]] = [
    *((os, name) for name in ("stat", "lstat", "fsync", "fdatasync", "statvfs") if hasattr(os, name)),
    *([(time, "sleep")] if sys.version_info < (3, 13) else []),  # an audit event from 3.13 on
]


@dataclass(frozen=True)
class BlockingCall:
    """One call: the audit event (or ``os.stat`` and the like), its arguments, and who called, innermost first."""

    event: str
    args: tuple[Any, ...]
    stack: tuple[str, ...]  # "file:line function"

    def __str__(self) -> str:
        return f"{self.event}{self.args!r}\n      " + "\n      ".join(self.stack[:8])


@contextmanager
def record_blocking_calls(
    ignore: Callable[[BlockingCall], bool] | None = None,
) -> Iterator[list[BlockingCall]]:
    """Yield a list that collects the blocking calls made by this thread while an event loop runs in it.

    Other threads may block as they like. Imports, and what tracebacks and warnings read of source files, are
    not counted; nor is anything for which `ignore` says True.
    """
    recorder = _Recorder(ignore)
    with ExitStack() as stack:
        for module, name in PATCHED:
            stack.enter_context(mock.patch.object(module, name, recorder.watched(module, name)))
        stack.enter_context(audit.listening(recorder.hear))
        yield recorder.calls


class _Recorder:
    def __init__(self, ignore: Callable[[BlockingCall], bool] | None) -> None:
        self.calls: list[BlockingCall] = []
        self._ignore = ignore
        self._thread = threading.get_ident()

    def hear(self, event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS:
            self._note(event, args, sys._getframe(2))  # whoever raised the event

    def watched(self, module: ModuleType, name: str) -> Callable[..., Any]:
        call = getattr(module, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            self._note(f"{module.__name__}.{name}", args, sys._getframe(1))
            return call(*args, **kwargs)

        return wrapper

    def _note(self, event: str, args: tuple[Any, ...], frame: FrameType) -> None:
        if threading.get_ident() != self._thread or asyncio._get_running_loop() is None:
            return
        stack = tuple(_frames(frame))
        if any(line.startswith("<frozen importlib") or "/linecache.py:" in line for line in stack):
            return
        call = BlockingCall(event, args, stack)
        if self._ignore is None or not self._ignore(call):
            self.calls.append(call)


@contextmanager
def no_blocking_calls(ignore: Callable[[BlockingCall], bool] | None = None) -> Iterator[list[BlockingCall]]:
    """As `record_blocking_calls`; raises ``AssertionError`` with every call when the block ends without error."""
    with record_blocking_calls(ignore) as calls:
        yield calls
    assert not calls, "blocked the event loop:\n" + "\n".join(f"  {call}" for call in calls)


def _frames(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"
        frame = frame.f_back
