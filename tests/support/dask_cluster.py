"""A real Dask scheduler and real workers, as processes on the loopback."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .cli import Running, spawn, write_config


class DaskCluster:
    """A scheduler at `address`, and its workers. `home` holds their login; `env` tops a clean environment."""

    def __init__(
        self, folder: Path, *, home: Path, protocol: str = "tcp", env: Mapping[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._home = home
        self._protocol = protocol
        # Quick to notice a lost worker, and without the measurements of a big cluster.
        self._env = {"DASK_DISTRIBUTED__SCHEDULER__LOCKS__LEASE_TIMEOUT": "3s", **(env or {})}
        self._stack = ExitStack()
        self.workers: list[Running] = []
        self.scheduler = self._start(
            *("scheduler", "--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        )
        said = self.scheduler.wait_for_text("dashboard at", "stderr")
        self.address = re.findall(rf"{protocol}://[0-9.:]+", said)[0]

    def add_worker(
        self,
        *,
        threads: int = 4,
        nanny: bool = False,
        host: str = "127.0.0.1",
        env: Mapping[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> Running:
        """Start a worker, behind the words of `prefix`, and wait until it has joined."""
        worker = self._start(
            *("worker", self.address, "--nthreads", str(threads), "--host", host, "--no-dashboard"),
            *("--nanny" if nanny else "--no-nanny", "--local-directory", str(self._folder / "scratch")),
            env=env,
            prefix=prefix,
        )
        worker.wait_for_text("Registered to:", "stderr")
        self.workers.append(worker)
        return worker

    async def wait_for_call(self, function: str) -> None:
        """Wait until a client calls `function` on each worker that runs: once more than before."""
        running = [worker for worker in self.workers if worker.process.poll() is None]
        said = f"function '{function}'"
        numbers = [worker.output("stderr").count(said) + 1 for worker in running]
        for worker, number in zip(running, numbers, strict=True):
            await asyncio.to_thread(worker.wait_for_text, said, "stderr", number)

    def close(self) -> None:
        """Kill all that still runs."""
        self._stack.close()

    def _start(
        self, command: str, *args: str, env: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> Running:
        protocol = () if self._protocol == "tcp" else ("--protocol", self._protocol)
        argv = [
            *prefix,
            sys.executable,
            "-m",
            "dask",
            command,
            *args,
            *(protocol if command == "scheduler" else ()),
        ]
        process = spawn(argv, cwd=self._folder, home=self._home, env={**self._env, **(env or {})})
        return self._stack.enter_context(process)


@contextmanager
def dask_cluster(
    folder: Path,
    *,
    config: Mapping[str, object],
    workers: int = 2,
    threads: int = 4,
    protocol: str = "tcp",
    env: Mapping[str, str] | None = None,
) -> Iterator[DaskCluster]:
    """A cluster of `workers` whose ``config.json`` holds `config`; `threads` for each."""
    home = folder / "home"
    write_config(home, **config)
    cluster = DaskCluster(folder, home=home, protocol=protocol, env=env)
    try:
        for _ in range(workers):
            cluster.add_worker(threads=threads)
        yield cluster
    finally:
        cluster.close()


def kill(worker: Running) -> None:
    """End a worker as a node's power cut does."""
    os.kill(worker.pid, signal.SIGKILL)
