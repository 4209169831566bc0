"""A spool that the SDK writes to, and the process of the command that watches it."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import machine, records
from benchmarks.errors import BenchmarkError, last_line
from benchmarks.sink_client import SinkClient
from cirron_spool.spool.names import is_batch_name

_PATIENCE_S = 60.0
_TERMINATED = 128 + signal.SIGTERM
_LOOKS, _BETWEEN_LOOKS_S = 20, 0.005
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """Resources of a process: open descriptors, threads, bytes of resident memory, CPU seconds so far."""

    descriptors: int
    threads: int
    resident_bytes: int
    cpu_seconds: float


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds. Raises BenchmarkError after a minute."""
    until = time.monotonic() + _PATIENCE_S
    while not condition():
        if time.monotonic() > until:
            raise BenchmarkError(f"Waited a minute in vain: {what}.")
        time.sleep(0.001)


class WatchedSpool:
    """The spool in ``folder`` with a login beside it, and the watch of it. ``sealed`` lists ids, oldest first."""

    def __init__(self, folder: Path, sink: SinkClient) -> None:
        self.home = folder
        self.directory = folder / ".cirron" / "spool"
        self.sealed: list[str] = []
        self._sink = sink
        self._logins = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._evicted = 0
        self._writer: Any = None
        sink.reset(proof=False)
        self.log_in()
        self._open(None)

    def log_in(self) -> None:
        """Write a new token where ``cirron auth login`` does."""
        self._logins += 1
        config = self.home / ".cirron" / "config.json"
        config.parent.mkdir(exist_ok=True)
        text = json.dumps({"apiUrl": self._sink.url, "auth": {"accessToken": f"benchmark-{self._logins}"}})
        (config.parent / "new").touch(0o600)
        (config.parent / "new").write_text(text, encoding="utf-8")
        (config.parent / "new").replace(config)

    def new_run(self, max_bytes: int | None = None) -> None:
        """Put an empty spool in the place of the present one, as a new run does, with the SDK's limit ``max_bytes``."""
        if self.directory.exists():
            old = self.directory.with_name("old")
            self.directory.rename(old)
            shutil.rmtree(old)
        self._open(max_bytes)

    def limit(self, max_bytes: int | None) -> None:
        """Let the SDK evict above ``max_bytes`` from now on; None for its default."""
        self._open(max_bytes)

    def seal(self, created_ns: int, *, spans: int = 40) -> int:
        """Seal a batch of ``spans`` spans by the SDK's own writer; the time by ``time.monotonic_ns()``."""
        from cirron.core.flush import Batch

        span = {"name": "train_step", "start_ns": created_ns, "attrs": {"lr": random.random()}}
        batch = Batch(records.new_id(), created_ns, [{**span, "index": each} for each in range(spans)], [])
        self._writer.write(batch)
        now_ns = time.monotonic_ns()
        self.sealed.append(batch.batch_id)
        return now_ns

    @property
    def evicted(self) -> int:
        """Batches that the SDK deleted."""
        return self._evicted + int(self._writer.drop_count)

    def check_arrived(self, set_aside: int = 0) -> list[str]:
        """The ids that have arrived: once each, in order, and all but those evicted or set aside."""
        arrived = self._sink.tally().started
        place = {batch_id: index for index, batch_id in enumerate(self.sealed)}
        places = [place[each] for each in arrived]
        missing = len(self.sealed) - len(places) - set_aside
        if any(one >= other for one, other in pairwise(places)) or not 0 <= missing <= self.evicted:
            raise BenchmarkError("The sink did not receive the batches once, in order and without a loss.")
        return arrived

    def _open(self, max_bytes: int | None) -> None:
        from cirron.core.flush import SpoolWriter

        logging.getLogger("cirron").setLevel(logging.ERROR)  # evictions are meant
        if self._writer is not None:
            self._evicted += self._writer.drop_count
        self._writer = SpoolWriter(self.directory, **({} if max_bytes is None else {"max_bytes": max_bytes}))

    def waiting(self) -> list[str]:
        """The names of the batches in the spool."""
        try:
            return [name for name in os.listdir(self.directory) if is_batch_name(name)]
        except FileNotFoundError:
            return []

    def drain(self) -> None:
        """Wait until the spool has no batch."""
        wait_for(lambda: not self.waiting() or self._has_ended(), "the spool was not delivered")
        if self._has_ended():
            raise BenchmarkError("The watch has ended too early.")

    @contextmanager
    def watched(self, *, speed: float = 1, notices: bool = True) -> Iterator[None]:
        """The command watches the spool, with waits divided by ``speed``. At the end, it has delivered everything."""
        program = [sys.executable, "-m", "benchmarks.contenders.fast_watch", f"{speed:g}"]
        words = ["flush", "--watch", "--quarantine", "--json-events", "--dir", str(self.directory)]
        with subprocess.Popen(
            [*program, "notices" if notices else "polling", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=self.home,
            env=machine.child_environment(self.home),
        ) as self._process:
            try:
                self.seal(time.time_ns())
                self.drain()
                yield
                self.drain()
                self._process.send_signal(signal.SIGTERM)
                error = self._process.communicate(timeout=_PATIENCE_S)[1]
                if self._process.returncode not in (0, 1, _TERMINATED):  # 1: a batch was set aside
                    raise BenchmarkError(
                        f"The watch ended with {self._process.returncode}: {last_line(error)}"
                    )
            finally:
                self._process.kill()

    def sample(self) -> Sample:
        """The resources of the watch now. Descriptors are the fewest of several looks: a listing opens one more."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        descriptors = len(os.listdir(proc / "fd"))
        for _ in range(_LOOKS):
            time.sleep(_BETWEEN_LOOKS_S)
            descriptors = min(descriptors, len(os.listdir(proc / "fd")))
        # Field 14 and 15 of the line, which has a name in brackets as its second.
        times = (proc / "stat").read_text().rpartition(")")[2].split()[11:13]
        return Sample(
            descriptors,
            len(os.listdir(proc / "task")),
            int((proc / "statm").read_text().split()[1]) * _PAGE_BYTES,
            sum(map(int, times)) / _TICKS,
        )

    def _has_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None
