"""A real process in which the system refuses to start a thread, on any machine and for any user."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# No address space holds a stack of so many bytes, so the system refuses each thread.
IMPOSSIBLE_STACK = 1 << 46

# The same for a process of its own, as the first lines of its program.
REFUSE = f"import threading; threading.stack_size({IMPOSSIBLE_STACK}); "


@contextmanager
def no_more_threads() -> Iterator[None]:
    """No thread can be started while the block runs."""
    refuse_threads()
    try:
        yield
    finally:
        allow_threads()


def refuse_threads() -> None:
    """From now on no thread can be started."""
    try:
        threading.stack_size(IMPOSSIBLE_STACK)
        threading.Thread(target=lambda: None, daemon=True).start()
    except (RuntimeError, ValueError, OverflowError):
        return
    allow_threads()
    pytest.skip("this system starts threads with a stack of any size")


def allow_threads() -> None:
    """Threads can be started again."""
    threading.stack_size(0)
