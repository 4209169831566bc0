"""A Dask scheduler and its workers as processes on the loopback."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from benchmarks.errors import BenchmarkError
from benchmarks.machine import child_environment

_START_S = 60.0
_LOOK_S = 0.05


class DaskCluster:
    """A scheduler and ``workers`` of ``threads`` each, in ``folder``. ``address`` is the scheduler's."""

    def __init__(self, folder: Path, *, workers: int, threads: int) -> None:
        self._folder = folder
        self._threads = threads
        self._count = workers
        self._file = folder / "scheduler.json"
        self._scheduler: subprocess.Popen[bytes] | None = None
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._scheduler = self._start("scheduler", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        for _ in range(self._count):
            self.add_worker()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in (*self._workers, self._scheduler):
            if process is not None:
                process.kill()
                process.wait()

    @property
    def address(self) -> str:
        """The address of the scheduler, once it listens."""
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            with suppress(OSError, ValueError):
                return str(json.loads(self._file.read_text())["address"])
            time.sleep(_LOOK_S)
        raise BenchmarkError("The Dask scheduler did not start.")

    def add_worker(self) -> None:
        """Start a worker."""
        threads = ("--nthreads", str(self._threads), "--local-directory", str(self._folder / "scratch"))
        self._workers.append(self._start("worker", *threads, "--no-nanny", "--no-dashboard"))

    def replace_worker(self) -> None:
        """Kill the oldest worker with SIGKILL, and start another."""
        self._workers.pop(0).kill()
        self.add_worker()

    def _start(self, command: str, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "dask",
                command,
                "--host",
                "127.0.0.1",
                "--scheduler-file",
                str(self._file),
                *words,
            ],
            cwd=self._folder,
            env=child_environment(self._folder) | {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
