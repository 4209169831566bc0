"""The real commands on a pseudo-terminal, with a person at it who answers what they are asked."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .cli import SAFETY_NET, Prog, clean_environment, command_line

# Makes the terminal the controlling one, so that Ctrl-C typed at it becomes a SIGINT; then becomes the command.
_TAKE_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(int(sys.argv[1]), termios.TIOCSCTTY, 0)\n"
    "os.close(int(sys.argv[1]))\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)

# The text to wait for on the screen, and the text to type then, or a function of the process id that may return it.
Exchange = tuple[str | bytes, str | bytes | Callable[[int], str | None]]


@dataclass(frozen=True)
class TerminalResult:
    """How a command on a terminal ended: all bytes of the screen, and what went beside it into pipes."""

    args: list[str]
    returncode: int
    screen: bytes
    out: bytes  # standard output where it was not the terminal
    err: bytes

    @property
    def text(self) -> str:
        """The screen as text, escape sequences and all."""
        return self.screen.decode("utf-8", "backslashreplace")


def run_cli_pty(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    rows: int = 24,
    answers: Sequence[Exchange] = (),
    terminal: Collection[str] = ("stdin", "stdout", "stderr"),
    prog: Prog = "cirron-spool",
) -> TerminalResult:
    """Run ``prog args`` on a terminal of `columns` x `rows` to its end; see `run_pty`."""
    argv = command_line(args, prog)
    return run_pty(
        argv, cwd=cwd, home=home, env=env, columns=columns, rows=rows, answers=answers, terminal=terminal
    )


def run_pty(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    rows: int = 24,
    answers: Sequence[Exchange] = (),
    terminal: Collection[str] = ("stdin", "stdout", "stderr"),
) -> TerminalResult:
    """Run any command on a terminal, in a clean environment.

    `answers` are given in order, each once its text has appeared after the one before. `terminal` names the
    streams that are the terminal; the others are the null device or pipes. Raises ``AssertionError`` with the
    screen when an awaited text does not come, or when the command hangs.
    """
    with ExitStack() as keep:
        if home is None or cwd is None:
            spare = Path(keep.enter_context(tempfile.TemporaryDirectory()))
            home, cwd = home or spare, cwd or spare
        screen_end, program_end = os.openpty()
        keep.callback(os.close, screen_end)
        fcntl.ioctl(program_end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        beside = {name: keep.enter_context(tempfile.TemporaryFile()) for name in ("stdout", "stderr")}
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _TAKE_TERMINAL, str(program_end), *argv],
                cwd=cwd,
                env=clean_environment(home, {"TERM": "xterm-256color", **(env or {})}),
                stdin=program_end if "stdin" in terminal else subprocess.DEVNULL,
                stdout=program_end if "stdout" in terminal else beside["stdout"],
                stderr=program_end if "stderr" in terminal else beside["stderr"],
                pass_fds=[program_end],
                start_new_session=True,
            )
        finally:
            os.close(program_end)
        try:
            screen = _converse(process, screen_end, answers, argv)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
        out, err = (_whole(file) for file in beside.values())
        return TerminalResult(list(argv), process.returncode, screen, out, err)


def _converse(
    process: subprocess.Popen[bytes], fd: int, answers: Sequence[Exchange], argv: Sequence[str]
) -> bytes:
    deadline = time.monotonic() + SAFETY_NET
    screen, seen = b"", 0
    waiting = list(answers)
    while True:
        while waiting and (found := screen.find(_bytes(waiting[0][0]), seen)) >= 0:
            expected, reply = waiting.pop(0)
            seen = found + len(_bytes(expected))
            typed = reply(process.pid) if callable(reply) else reply
            if typed:
                os.write(fd, _bytes(typed))
        left = deadline - time.monotonic()
        assert left > 0, f"{list(argv)} still runs after {SAFETY_NET:g} s; screen {screen!r}"
        if not select.select([fd], [], [], left)[0]:
            continue
        try:
            data = os.read(fd, 65536)
        except OSError:  # EIO is how Linux says that nobody has the terminal open any more
            data = b""
        if not data:
            break
        screen += data
    assert not waiting, f"{waiting[0][0]!r} never appeared; screen {screen!r}"
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{list(argv)} left its terminal but runs on; screen {screen!r}") from None
    return screen


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _whole(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
