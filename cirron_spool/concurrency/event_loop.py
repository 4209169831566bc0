"""A new event loop for one coroutine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar

T = TypeVar("T")

# The selector's, and the two ends of the pipe that wakes it.
_DESCRIPTORS_OF_A_LOOP = 3


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run ``main`` in a new event loop. Raises OSError when there are no descriptors for one."""
    # A loop that lacks descriptors prints an error when it is collected.
    with ExitStack() as stack:
        for _ in range(_DESCRIPTORS_OF_A_LOOP):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
    with asyncio.Runner() as runner:
        return runner.run(main())
