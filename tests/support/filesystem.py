"""A file system that fails, or numbers its files in ways of its own: `filesystem.c` between a command and libc.

It is compiled once a session, and asked whether it has an effect: a static Python or another C library has none.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

_PROBE = "import os, sys; os.stat(sys.argv[1])"


@cache
def _library() -> tuple[str, str]:
    """The compiled library, and why there is none."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return "", "there is no C compiler here" if compiler is None else "this is not Linux"
    folder = tempfile.mkdtemp(prefix="cirron-spool-filesystem-")
    library = Path(folder, "filesystem.so")
    source = Path(__file__).with_suffix(".c")
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        return "", f"the library cannot be compiled here: {made.stderr.strip()[-200:]}"
    env = {**os.environ, "LD_PRELOAD": str(library), "FS_RULES": f"stat:{errno.EUCLEAN}:{folder}"}
    probe = subprocess.run([sys.executable, "-c", _PROBE, folder], env=env, capture_output=True, check=False)
    if os.strerror(errno.EUCLEAN).encode() not in probe.stderr:
        return "", "the library has no effect here: a static Python, or another C library"
    return str(library), ""


def strange(*rules: str, numbers: str = "", types: str = "") -> dict[str, str]:
    """The environment of a command on a strange file system; skips the test where there can be none.

    A rule is "call:errno:end of the path"; see the C source for `numbers` and `types`.
    """
    library, why = _library()
    if not library:
        pytest.skip(why)
    env = {"LD_PRELOAD": library, "FS_RULES": ";".join(rules), "FS_NUMBERS": numbers, "FS_TYPES": types}
    return {name: value for name, value in env.items() if value}
