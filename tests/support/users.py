"""Being another user for a while: what one user leaves behind, another one finds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65534  # a user other than the one who runs the tests; it owns nothing here

needs_root = pytest.mark.skipif(
    not hasattr(os, "setresuid") or os.geteuid() != 0, reason="only root can act as two users"
)


@contextmanager
def as_user(uid: int) -> Iterator[None]:
    """Be another user until the end of the block, in all threads; root stays in reserve."""
    os.setresuid(uid, uid, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@contextmanager
def shared_folder() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed to them."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)
        yield place


def powerless(argv: list[str]) -> list[str]:
    """The command as this user without root's powers, so that another user's files are closed to it.

    Skips the test where there are no two users, or no way to give the powers up.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can leave files of another user behind")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    return [setpriv, "--bounding-set=-all", "--inh-caps=-all", *argv]


def give_away(path: Path, mode: int) -> None:
    """Make ``path`` another user's, with that mode."""
    os.chown(path, NOBODY, NOBODY)
    path.chmod(mode)
