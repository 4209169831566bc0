"""Start the sink in its own process, reset it, read its tally, stop it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.errors import BenchmarkError, last_line
from benchmarks.machine import REPOSITORY, child_environment
from benchmarks.sink import Tally

TOKEN = "sk-benchmark"  # noqa: S105 - no secret: the sink accepts any token
_ANSWER_SECONDS = 60.0
_STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Network:
    """Milliseconds before each answer, and bytes a second of the link (None: no limit)."""

    latency_ms: float = 0.0
    bandwidth: float | None = None


class SinkClient:
    """The control requests to a running sink at ``url``."""

    def __init__(self, url: str) -> None:
        self.url = url

    def reset(self, proof: bool) -> None:
        """Start a new tally; ``proof`` records a fingerprint of each body."""
        self._ask("POST", "/sink/reset" + ("?proof" if proof else ""))

    def refuse(self, status: int | None) -> None:
        """Answer each further batch with ``status``; None ends that."""
        self._ask("POST", "/sink/refuse" + (f"?{status}" if status else ""))

    def tally(self) -> Tally:
        """The requests since the last reset."""
        return Tally(**json.loads(self._ask("GET", "/sink")))

    def _ask(self, method: str, target: str) -> bytes:
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=_ANSWER_SECONDS)
        with closing(connection):
            connection.request(method, target)
            return connection.getresponse().read()


@contextmanager
def running_sink(network: Network, home: Path) -> Iterator[SinkClient]:
    """A sink in its own process; stopped at the end of the block."""
    command = [sys.executable, "-m", "benchmarks.sink", "--latency-ms", f"{network.latency_ms:g}"]
    if network.bandwidth is not None:
        command += ["--bandwidth", f"{network.bandwidth:.0f}"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env=child_environment(home),
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise BenchmarkError(f"The sink did not start: {last_line(process.stderr.read())}")
            yield SinkClient(json.loads(line)["url"])
        finally:
            process.stdin.close()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
