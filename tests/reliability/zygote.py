"""A warm process that forks flushes, which may be killed at any instant.

Forked from a process of one thread that has imported everything: a flush then begins within milliseconds, so that
thousands of kills are affordable, and nothing of the test's own threads is in it. Run as a script this file is that
process; `Zygote` is its owner's handle.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

_UNCAUGHT = 99  # exit code of a flush that ended in an exception that it does not document


@dataclass(frozen=True)
class Outcome:
    """How a forked flush ended.

    ``code`` is its exit code, or the negative number of the signal that killed it. ``result`` has the flush's
    counts, its ``exit_code``, and how many ``audits`` and ``events`` it came to; empty when it was killed.
    """

    code: int
    seconds: float
    result: dict[str, Any]
    stderr: str

    @property
    def killed(self) -> bool:
        """Whether the kill came before the end."""
        return self.code == -signal.SIGKILL


class Zygote:
    """Forks flushes. A context manager; may be used by one thread at a time, but for `kill`."""

    def __init__(self) -> None:
        from support.cli import clean_environment

        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with this object
        self._home = tempfile.TemporaryDirectory()
        # A forked flush that is killed has no lines to report, and must be fast.
        env = {
            key: value
            for key, value in clean_environment(Path(self._home.name)).items()
            if "COVERAGE" not in key
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=env,
            bufsize=0,
        )
        self._write = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()  # which is its sign to end
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()
        self._home.cleanup()

    def flush(
        self,
        directory: Path,
        url: str,
        *,
        delay: float | None = None,
        audit: int | None = None,
        event: int | None = None,
        safety_net_s: float = 60.0,
        patch: dict[str, Any] | None = None,
        slow_delete_s: float = 0.0,
        sabotage: bool = False,
        **options: Any,
    ) -> Outcome:
        """Fork a flush and wait for its end.

        It is killed after ``delay`` seconds, before its audit event number ``audit`` (from 1), or inside its flush
        event number ``event``, whichever is given, or when `kill` is called. ``patch`` maps "module:name" to values;
        ``slow_delete_s`` is what a slow disk takes for a delete; ``sabotage`` deletes each batch as its sending begins,
        which a harness must notice; ``options`` are ``flush_spool``'s. A flush that
        outlives the safety net is an ``AssertionError``.
        """
        order = {
            "directory": str(directory),
            "url": url,
            "delay": delay,
            "audit": audit,
            "event": event,
            "net": safety_net_s,
            "patch": patch or {},
            "slow_delete_s": slow_delete_s,
            "sabotage": sabotage,
            "options": options,
        }
        self._errors.seek(0, os.SEEK_END)
        start = self._errors.tell()
        self._say(json.dumps(order).encode() + b"\n")
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._errors.seek(start)
        stderr = self._errors.read().decode(errors="backslashreplace")
        assert line, f"the zygote died: {stderr}"
        said = json.loads(line)
        assert not said["hung"], f"a flush still ran after {safety_net_s:g} s: {stderr}"
        return Outcome(said["code"], said["seconds"], said["result"], stderr)

    def kill(self) -> None:
        """Kill the flush of the moment, if there is one; from any thread."""
        self._say(b"kill\n")

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        with self._write:
            self._process.stdin.write(line)


# -- the other side ------------------------------------------------------------------------------------------------


class _Lines:
    """Standard input as lines, without a buffer that ``select`` cannot see into."""

    def __init__(self) -> None:
        self._data = b""

    def next(self) -> bytes | None:
        while b"\n" not in self._data:
            piece = os.read(0, 65536)
            if not piece:
                return None
            self._data += piece
        line, _, self._data = self._data.partition(b"\n")
        return line

    def kill_came(self) -> bool:
        """Take the line that made standard input readable; whether it, or the end of the input, asks to kill."""
        return self.next() in (b"kill", None)

    @property
    def waiting(self) -> bool:
        return b"\n" in self._data


def _serve() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the owner's keyboard is not ours
    _warm()
    lines = _Lines()
    while (line := lines.next()) is not None:
        if line != b"kill":  # one that came too late is nobody's
            os.write(1, json.dumps(_run(json.loads(line), lines)).encode() + b"\n")


def _run(order: dict[str, Any], lines: _Lines) -> dict[str, Any]:
    read_end, write_end = os.pipe()
    began = time.monotonic()
    pid = os.fork()
    if not pid:
        os.close(read_end)
        _child(order, write_end)
    os.close(write_end)
    said, hung = b"", False
    kill_at = began + order["delay"] if order["delay"] is not None else None
    deadline = began + order["net"]
    while True:
        wake = min(deadline, kill_at) if kill_at is not None else deadline
        ready, _, _ = select.select(
            [read_end, 0], [], [], 0 if lines.waiting else max(0.0, wake - time.monotonic())
        )
        if read_end in ready:
            piece = os.read(read_end, 65536)
            if not piece:
                break  # its end of the pipe is closed: it is dead
            said += piece
        if (lines.waiting or 0 in ready) and lines.kill_came():
            os.kill(pid, signal.SIGKILL)
        now = time.monotonic()
        if kill_at is not None and now >= kill_at:
            os.kill(pid, signal.SIGKILL)
            kill_at = None
        if now >= deadline:
            hung = True
            os.kill(pid, signal.SIGKILL)
            deadline = now + 10
    seconds = time.monotonic() - began
    os.close(read_end)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "code": code,
        "seconds": seconds,
        "hung": hung,
        "result": json.loads(said) if said and code >= 0 else {},
    }


def _child(order: dict[str, Any], report: int) -> NoReturn:
    code = _UNCAUGHT
    try:
        os.dup2(2, 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        result = asyncio.run(_flush(order))
        os.write(report, json.dumps(result).encode())
        code = result["exit_code"]
    except BaseException:  # noqa: BLE001  # reported as what it is
        traceback.print_exc()
    finally:
        os._exit(code)


async def _flush(order: dict[str, Any]) -> dict[str, Any]:
    from cirron_spool import CirronSpoolError, flush_spool

    counts = {"audits": 0, "events": 0}
    for where, value in order["patch"].items():
        module, _, name = where.partition(":")
        target: Any = __import__(module, fromlist=[name])
        *path, last = name.split(".")
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    if order["slow_delete_s"]:
        _slow_deletes(order["slow_delete_s"])

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def heard(_: str, __: Any) -> None:
        counts["audits"] += 1
        if counts["audits"] == order["audit"]:
            die()

    def told(event: object) -> None:
        counts["events"] += 1
        if order["sabotage"] and type(event).__name__ == "Sending":
            os.unlink(os.path.join(order["directory"], event.name))  # type: ignore[attr-defined]
        if counts["events"] == order["event"]:
            die()

    options = {"token": "sk-test", "verify": False, "retries": 0, **order["options"]}
    busy = False
    sys.addaudithook(heard)
    try:
        result: Any = await flush_spool(order["directory"], api_url=order["url"], on_event=told, **options)
        exit_code = result.exit_code
    except CirronSpoolError as error:
        result, exit_code = error.result, error.exit_code
        busy = type(error).__name__ == "SpoolBusyError"
    names = ("uploaded", "failed", "skipped", "quarantined", "evicted")
    tallied = {name: getattr(result, name) for name in names} if result is not None else {}
    failures = [failure.message for failure in result.failures] if result is not None else []
    return {**counts, **tallied, "exit_code": exit_code, "busy": busy, "failures": failures}


def _slow_deletes(seconds: float) -> None:
    from cirron_spool.spool.directory import SpoolDirectory

    fast = SpoolDirectory.delete

    def delete(self: Any, *args: Any) -> Any:
        time.sleep(seconds)  # the disk's own time, not a wait for anything
        return fast(self, *args)

    setattr(SpoolDirectory, "delete", delete)  # noqa: B010  # mypy: a method is not assigned to otherwise


def _warm() -> None:
    """Import what a flush imports, also what it imports only on its way, by letting a child make one."""
    import cirron_spool.flush  # noqa: F401

    read_end, write_end = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            with tempfile.TemporaryDirectory() as folder:
                Path(folder, "00000000000000000001-aa.json").write_bytes(b"{}" * 1000)
                order = {
                    "patch": {},
                    "slow_delete_s": 0,
                    "sabotage": False,
                    "audit": None,
                    "event": None,
                    "options": {},
                }
                asyncio.run(_flush({**order, "directory": folder, "url": "http://127.0.0.1:9"}))
            os.write(write_end, "\n".join(sys.modules).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with open(read_end, encoding="utf-8") as pipe:
        names = pipe.read().split()
    os.waitpid(pid, 0)
    for name in names:
        if name not in sys.modules and name.split(".")[0] != "__main__":
            try:
                __import__(name)
            except ImportError:
                continue  # made by somebody at run time


if __name__ == "__main__":
    _serve()
