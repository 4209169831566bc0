"""A new event loop for one coroutine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

T = TypeVar("T")

# The selector, and two ends of the pipe that wakes it.
_DESCRIPTORS_OF_A_LOOP = 3


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` in a new event loop. Raises OSError if there are too few descriptors."""
    # Without this check, a loop that lacks descriptors prints an error at its deletion.
    with ExitStack() as stack:
        for _ in range(_DESCRIPTORS_OF_A_LOOP):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    with asyncio.Runner() as runner:
        return runner.run(main())
