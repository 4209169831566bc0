"""Soak: a long spool through a server that fails one upload in twenty, in every way there is.

One process flushes (its memory and its descriptors are what is watched), this one is the server: 5xx, 429 with
Retry-After, resets before and after the body, cut answers, stalls shorter than the silence limit, success that says no,
lost acknowledgements, and access tokens that expire. At the end everything was delivered once by id, in order, and
memory and descriptors are where they were.

    python tests/reliability/soak.py --batches 100000
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from harness import (
    Answer,
    Books,
    Clock,
    Gate,
    Producer,
    Request,
    Vault,
    arguments,
    batch_id,
    json_answer,
    ok,
    scratch,
)

from support.cli import clean_environment, write_config

FAILING = 0.05
STALL_S = 0.2
SAMPLES = 40  # of memory and descriptors, over the run
HANG_S = 3600.0


@dataclass
class Report:
    """The figures of a run; memory in KB."""

    seed: int
    batches: int
    uploads: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    refreshes: int = 0
    flushes: int = 0
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items()))
        early, late = self.halves(self.memory)
        return (
            f"{self.batches} batches delivered once by id and in order, in {self.seconds:.0f} s, seed {self.seed}\n"
            f"  {self.uploads} uploads, {sum(self.faults.values())} failed ({faults}), {self.refreshes} refreshes\n"
            f"  memory {early / 1024:.1f} MB in the first half, {late / 1024:.1f} MB in the second, "
            f"{max(self.memory) / 1024:.1f} MB at most; "
            f"descriptors {min(self.descriptors)} to {max(self.descriptors)}"
        )

    @staticmethod
    def halves(values: list[int]) -> tuple[int, int]:
        """The highest of the first half, after its first tenth, and of the second."""
        warm = values[len(values) // 10 :]
        return max(warm[: len(warm) // 2]), max(warm[len(warm) // 2 :])


class Weather:
    """One upload in twenty fails."""

    def __init__(self, vault: Vault, rng: random.Random, report: Report) -> None:
        self._vault = vault
        self._rng = rng
        self._report = report
        self._expired_at: str | None = None

    def __call__(self, request: Request) -> Answer:
        """The plan of a vault."""
        self._report.uploads += 1
        if self._vault.platform.access_token != request.token:
            return Answer(401)
        # Never three times the same batch: a batch that is out of retries ends a strict flush, as it should.
        if self._vault.arrivals[request.batch_id or ""] > 2 or self._rng.random() >= FAILING:
            return ok()
        kind = self._rng.choice(sorted(_FAULTS))
        if kind == "token expired":
            if self._expired_at == request.batch_id:
                return ok()  # a second 401 in a row, right after a refresh, rightly ends a flush
            self._expired_at = request.batch_id
            self._vault.platform.access_token = f"expired-{self._report.uploads}"
            self._report.faults[kind] += 1
            return Answer(401)
        self._report.faults[kind] += 1
        return _FAULTS[kind]()


def _stalled() -> Answer:
    gate = Gate()
    timer = threading.Timer(STALL_S, gate.open)
    timer.daemon = True
    timer.start()
    return ok(stall_before=gate)


_FAULTS: dict[str, Callable[[], Answer]] = {
    "500": lambda: Answer(500),
    "502 page": lambda: Answer(
        502, headers=[("Content-Type", "text/html")], body=b"<html>bad gateway</html>"
    ),
    "503": lambda: json_answer({"error": "later"}, 503),
    "429": lambda: Answer(429, headers=[("Retry-After", "0")]),
    "425": lambda: Answer(425, headers=[("Retry-After", "0")]),
    "reset before the body": lambda: ok(read_only=0, reset=True),
    "reset in the body": lambda: ok(read_only=100, reset=True),
    "closed before the answer": lambda: ok(cut_after=0),
    "lost acknowledgement": lambda: ok(cut_after=0, reset=True),
    "cut answer": lambda: ok(cut_after=60),
    "cut in the body": lambda: ok(cut_after=len(ok().render()) - 3),
    "says no": lambda: json_answer({"success": False}),
    "garbage": lambda: Answer(raw=b"\x15\x03\x01\x00\x02\x02\x50", drop=True),
    "stalled": _stalled,
    "token expired": lambda: Answer(401),
}

# The flushing process. It counts its own descriptors and memory, so that nothing else is in them.
_FLUSH = """
import asyncio, json, os, sys
from cirron_spool import flush_spool
from cirron_spool.protocol import retry as schedule
from cirron_spool.events import Uploaded

spool, url, config, every = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
schedule.FIRST_DELAY_S = schedule.SHORTEST_PAUSE_S = 0.002  # the waits are the schedule's business, and tested there
seen = 0

def watch(event):
    global seen
    if isinstance(event, Uploaded):
        seen += 1
        if seen % every == 0:
            with open("/proc/self/statm") as statm:
                pages = int(statm.read().split()[1])
            open_files = len(os.listdir("/proc/self/fd"))
            memory = pages * os.sysconf("SC_PAGESIZE") // 1024
            print(json.dumps({"memory": memory, "descriptors": open_files}), flush=True)

options = {"api_url": url, "config_path": config, "timeout_ms": 20000, "retries": 5}
result = asyncio.run(flush_spool(spool, on_event=watch, **options))
failures = [failure.message for failure in result.failures]
print(json.dumps({"exit_code": result.exit_code, "uploaded": result.uploaded, "failures": failures}))
"""


def run(folder: Path, batches: int, seed: int) -> Report:
    """Deliver ``batches`` batches. Raises ``AssertionError`` for the first promise that does not hold."""
    rng = random.Random(seed)
    report = Report(seed, batches)
    spool = folder / "spool"
    with Vault(access_token="access-0", refresh_token="refresh-0") as vault:
        vault.platform.check_auth = False
        books = Books(spool, vault)
        # The SDK reads its whole directory every 256 writes, which at 100,000 takes longer than the soak.
        with patch("cirron.core.flush.SPOOL_RESCAN_EVERY_WRITES", batches + 1):
            books.enter(Producer(spool, rng, shapes=(0, 0, 0, 1, 4)).write(batches))
        names = list(books.open)
        vault.plan = Weather(vault, rng, report)
        soon = (datetime.now(UTC) + timedelta(days=365)).isoformat()
        auth = {"accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": soon}
        config = write_config(folder / "home", auth=auth)
        clock = Clock(batches, "batches")
        argv = [
            sys.executable,
            "-c",
            _FLUSH,
            str(spool),
            vault.url,
            str(config),
            str(max(1, batches // SAMPLES)),
        ]
        with subprocess.Popen(
            argv, env=clean_environment(folder / "home"), stdout=subprocess.PIPE, text=True
        ) as process:
            # A safety net of its own: reading the pipe below would wait for ever.
            net = threading.Timer(HANG_S, process.kill)
            net.daemon = True
            net.start()
            assert process.stdout is not None
            said: list[dict[str, object]] = []
            for line in process.stdout:
                said.append(json.loads(line))
                clock.tick(len(said) * batches // SAMPLES)
            net.cancel()
        assert process.returncode == 0
        *samples, ended = said
        assert ended == {"exit_code": 0, "uploaded": batches, "failures": []}, ended
        report.memory = [int(str(sample["memory"])) for sample in samples]
        report.descriptors = [int(str(sample["descriptors"])) for sample in samples]
        report.refreshes, report.seconds = vault.platform.rotations, clock.seconds
        assert not books.check()
        # In order, and once: a batch whose acknowledgement was lost came twice, under the same id, which is what a
        # platform removes; its first acknowledgement to be heard is the only one.
        assert vault.acknowledged_order == [batch_id(name) for name in names]
        assert all(len(digests) == 1 for digests in vault.acknowledged.values())
    return report


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, batches=2000)
    if not os.path.exists("/proc/self/statm"):
        print("Skipped: memory is read from /proc.")
        return 0
    with scratch(options.directory) as folder:
        print(run(folder, options.batches, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
