"""The real commands in real processes: with pipes, with signals, and on a pseudo-terminal (`terminal.py`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Literal, Self

# Seconds: a command that takes longer hangs, and is killed and reported. Beside busy tests --nice gets little CPU time.
SAFETY_NET = 300.0

Prog = Literal["cirron-spool", "cirron"]

_CIRRON = "import sys; sys.argv[0] = 'cirron'; from cirron_spool.cli.main import cirron; sys.exit(cirron())"

# The first lines of an executable Python script. Not "#!" and the interpreter's path, which may hold a blank: sh
# starts Python on the same file, and to Python the line is a string that nobody uses.
PYTHON_SCRIPT = f"""#!/bin/sh
'''exec' '{sys.executable}' "$0" "$@"
' '''
"""


def command_line(args: Sequence[str | os.PathLike[str]], prog: Prog = "cirron-spool") -> list[str]:
    """The argv that runs `prog` with this interpreter."""
    how = ["-m", "cirron_spool"] if prog == "cirron-spool" else ["-c", _CIRRON]
    return [sys.executable, *how, *(os.fspath(arg) for arg in args)]


def clean_environment(home: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment with `home` and nothing of the outside that could steer the command.

    Kept are PATH, TMPDIR and what coverage hands to its child processes; `extra` is put on top. The package is
    the one that this process would import.
    """
    keep = {key: value for key, value in os.environ.items() if key in ("PATH", "TMPDIR") or "COVERAGE" in key}
    env = {**keep, "HOME": str(home), "LANG": "C.UTF-8", "PYTHONUTF8": "1"}
    spec = find_spec("cirron_spool")
    if spec is not None and spec.origin is not None:
        root = Path(spec.origin).parent.parent
        if root.name not in ("site-packages", "dist-packages"):  # those the child finds by itself
            env["PYTHONPATH"] = str(root)
    return {**env, **(extra or {})}


def write_config(home: Path, **keys: object) -> Path:
    """Write ``~/.cirron/config.json`` under `home` with the modes that the contract asks for; return its path."""
    folder = home / ".cirron"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "config.json"
    path.write_text(json.dumps(keys, indent=2), encoding="utf-8")
    path.chmod(0o600)
    return path


@dataclass(frozen=True)
class CliResult:
    """How a command ended: `returncode` (negative: by that signal) and its two streams as bytes."""

    args: list[str]
    returncode: int
    out: bytes
    err: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; what is not UTF-8 stays visible."""
        return self.out.decode("utf-8", "backslashreplace")

    @property
    def stderr(self) -> str:
        """Standard error as text; what is not UTF-8 stays visible."""
        return self.err.decode("utf-8", "backslashreplace")

    @property
    def lines(self) -> list[str]:
        """The lines of standard output."""
        return self.stdout.splitlines()

    def json(self) -> object:
        """Standard output as one JSON document."""
        return json.loads(self.out)


class Running:
    """A command under way. Its output is read all the time; leaving the block kills it if it still runs."""

    def __init__(self, argv: Sequence[str], process: subprocess.Popen[bytes], keep: ExitStack) -> None:
        self.argv = list(argv)
        self.process = process
        self._keep = keep
        self._changed = threading.Condition()
        self._text = {"stdout": b"", "stderr": b""}
        self._ended: set[str] = set()  # the streams that have come to their end
        self._readers: list[threading.Thread] = []
        for name, stream in (("stdout", process.stdout), ("stderr", process.stderr)):
            if stream is not None:
                reader = threading.Thread(target=self._read, args=(name, stream), name=name, daemon=True)
                reader.start()
                self._readers.append(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._collect()

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def output(self, stream: Literal["stdout", "stderr"] = "stdout") -> str:
        """What has come out so far."""
        with self._changed:
            return self._text[stream].decode("utf-8", "backslashreplace")

    def wait_for_text(self, text: str, stream: Literal["stdout", "stderr"] = "stdout", times: int = 1) -> str:
        """Block until `text` has come out, so many `times`; return the whole stream so far.

        Fails at once when the stream ends.
        """
        deadline = time.monotonic() + SAFETY_NET
        with self._changed:
            while self._text[stream].count(text.encode()) < times:
                left = deadline - time.monotonic()
                fine = left > 0 and stream not in self._ended
                assert fine, f"no {text!r} on {stream} of {self.argv}; {self._said()}"
                self._changed.wait(left)
            return self._text[stream].decode("utf-8", "backslashreplace")

    def write(self, data: bytes) -> None:
        """Send `data` to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    def finish(self, deadline: float = SAFETY_NET) -> CliResult:
        """Wait for its end. Raises ``AssertionError`` with what it said, and kills it, after `deadline` seconds."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self._collect()
            raise AssertionError(f"{self.argv} still runs after {deadline:g} s; {self._said()}") from None
        self._collect()
        return CliResult(self.argv, self.process.returncode, self._text["stdout"], self._text["stderr"])

    def _read(self, name: str, stream: IO[bytes]) -> None:
        with stream:
            while data := os.read(stream.fileno(), 65536):
                with self._changed:
                    self._text[name] += data
                    self._changed.notify_all()
        with self._changed:
            self._ended.add(name)
            self._changed.notify_all()

    def _collect(self) -> None:
        self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        for reader in self._readers:
            reader.join(SAFETY_NET)
            # Something that the command left running holds its output open.
            assert not reader.is_alive(), f"{self.argv} ended, its {reader.name} did not"
        self._keep.close()

    def _said(self) -> str:
        return f"stdout {self._text['stdout'][-2000:]!r}, stderr {self._text['stderr'][-2000:]!r}"


def spawn(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    closed_stdout: bool = False,
) -> Running:
    """Start any command in a clean environment; `home` and `cwd` default to a throw-away folder.

    `closed_stdout` gives it a standard output whose reader has gone already.
    """
    keep = ExitStack()
    if home is None or cwd is None:
        spare = Path(keep.enter_context(tempfile.TemporaryDirectory()))
        home, cwd = home or spare, cwd or spare
    stdout = subprocess.PIPE
    if closed_stdout:
        read_end, stdout = os.pipe()
        os.close(read_end)
        keep.callback(os.close, stdout)
    process = subprocess.Popen(
        argv, cwd=cwd, env=clean_environment(home, env), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
    )
    return Running(argv, process, keep)


def spawn_cli(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    closed_stdout: bool = False,
    prog: Prog = "cirron-spool",
) -> Running:
    """Start ``prog args``; see `spawn`. Use as a context manager, so that it never outlives its test."""
    argv = command_line(args, prog)
    return spawn(argv, cwd=cwd, home=home, env=env, stdin=stdin, closed_stdout=closed_stdout)


def run_cli(
    *args: str | os.PathLike[str],
    cwd: Path | None = None,
    home: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,  # noqa: A002 - the name that subprocess.run has for it
    closed_stdout: bool = False,
    prog: Prog = "cirron-spool",
) -> CliResult:
    """Run ``prog args`` to its end in a pipe. Without `input` its standard input is empty."""
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with spawn_cli(
        *args, cwd=cwd, home=home, env=env, stdin=stdin, closed_stdout=closed_stdout, prog=prog
    ) as run:
        if input is not None:
            run.write(input.encode() if isinstance(input, str) else input)
        return run.finish()
