"""One audit hook for the whole test process.

An audit hook cannot be taken out again, so one is installed at first use and hands each event to whoever
listens at the moment. What a listener itself does raises no events.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

Listener = Callable[[str, tuple[Any, ...]], None]

_listeners: list[Listener] = []
_lock = threading.Lock()
_inside = threading.local()


@cache
def _install() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _listeners or getattr(_inside, "busy", False):
        return
    _inside.busy = True
    try:
        for listener in tuple(_listeners):
            listener(event, args)
    finally:
        _inside.busy = False


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call `listener` with (event, arguments) for every audit event of every thread in the block.

    It runs in the thread of the event, before the operation; what it raises would end that operation.
    """
    with _lock:
        _install()
        _listeners.append(listener)
    try:
        yield
    finally:
        with _lock:
            _listeners.remove(listener)
