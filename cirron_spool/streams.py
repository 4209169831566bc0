"""What becomes of a standard stream whose reader has left."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TextIO


def silence(stream: TextIO) -> None:
    """Let what is still buffered in ``stream`` go nowhere.

    The interpreter flushes standard streams at its end, and makes an exit code of 120 of one that it cannot.
    """
    with suppress(OSError, ValueError, AttributeError):
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)
