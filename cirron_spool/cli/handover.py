"""Hand a command of another package over to the next ``cirron`` on PATH, such as the official tool."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence

# The programs that have handed over already. Two copies of this program must not call each other endlessly.
_VISITED = "CIRRON_SPOOL_HANDED_OVER"


def next_cirron() -> str | None:
    """The first ``cirron`` on PATH that is neither this program nor one that handed over to it."""
    visited = {path for path in os.environ.get(_VISITED, "").split(os.pathsep) if path}
    visited.add(os.path.realpath(sys.argv[0]))
    suffixes = os.environ.get("PATHEXT", ".EXE;.CMD").split(os.pathsep) if os.name == "nt" else [""]
    for folder in os.get_exec_path():
        for suffix in suffixes:
            candidate = os.path.join(folder, f"cirron{suffix}")
            if (
                os.access(candidate, os.X_OK)
                and os.path.isfile(candidate)
                and os.path.realpath(candidate) not in visited
            ):
                return candidate
    return None


def hand_over(program: str, arguments: Sequence[str]) -> int:
    """Become ``program``; on Windows, run it and return its exit code. Raises OSError when it cannot be started."""
    visited = os.environ.get(_VISITED, "")
    os.environ[_VISITED] = os.pathsep.join(filter(None, [visited, os.path.realpath(sys.argv[0])]))
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    if os.name == "nt":
        return subprocess.run([program, *arguments], check=False).returncode  # noqa: S603  # the user's own command
    # Python ignores these signals. The next program must not inherit that.
    for name in ("SIGPIPE", "SIGXFSZ"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    return os.execv(program, [program, *arguments])  # noqa: S606  # as above
