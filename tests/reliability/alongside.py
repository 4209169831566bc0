"""The real SDK at full speed beside a flush: several writers in one spool, one with a small cap that evicts.

Each writer is a process of its own with the SDK's ``SpoolWriter`` and its logging. The first and the last flush are
the real command; between them warm ones follow each other without a pause, until the writers are done. Every batch
that a writer sealed was then either acknowledged, byte for byte, or deleted by a writer's own cap, and no writer saw
an exception or an error in its log.

    python tests/reliability/alongside.py --batches 20000 --writers 4
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import SAFETY_NET_S, Clock, Vault, arguments, batch_id, scratch
from zygote import Zygote

from support.cli import clean_environment, run_cli
from support.spools import sdk_batches

# Batches of these shapes have 0.7 to 60 KB: some hundred of them fit under this cap.
CAP_BYTES = 2_000_000
HANG_S = 1800.0

# A rank: the SDK's writer, fed as its flush thread feeds it. What its cap deletes is noted by name where it succeeds.
_WRITER = r"""
import hashlib, json, logging, pathlib, random, sys, time, uuid
from cirron.core.flush import Batch, SpoolWriter
from cirron.core.json import dumps_utf8

spool, shapes = sys.argv[1], json.load(open(sys.argv[2]))
count, cap, seed = map(int, sys.argv[3:])

class Loud(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.ERROR or record.exc_info:
            say(error=record.getMessage())

def say(**what):
    sys.stdout.write(json.dumps(what) + "\n")

def unlink(path, missing_ok=False, really=pathlib.Path.unlink):
    really(path, missing_ok)
    say(evicted=path.name)

pathlib.Path.unlink = unlink
logging.getLogger().addHandler(Loud())
rng = random.Random(seed)
writer = SpoolWriter(spool, max_bytes=cap)
say(ready=True)
sys.stdout.flush()
sys.stdin.readline()
slowest = total = 0.0
for _ in range(count):
    document = rng.choice(shapes)
    batch = Batch(uuid.uuid4().hex, time.time_ns(), document["spans"], document["marks"])
    digest = hashlib.sha256(dumps_utf8(batch.to_json())).hexdigest()
    began = time.perf_counter()
    path = writer.write(batch)
    took = time.perf_counter() - began
    slowest, total = max(slowest, took), total + took
    say(wrote=path.name, digest=digest)
say(dropped=writer.drop_count, total=total, slowest=slowest)
"""


@dataclass
class Report:
    """The figures of a run."""

    writers: int
    written: int = 0
    acknowledged: int = 0
    evicted: int = 0
    both: int = 0  # acknowledged, and then deleted by the cap before the flush came to it
    flushes: int = 0
    mean_ms: float = 0.0
    slowest_ms: float = 0.0
    alone_mean_ms: float = 0.0
    alone_slowest_ms: float = 0.0
    seconds: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.writers} writers sealed {self.written} batches in {self.seconds:.0f} s beside "
            f"{self.flushes} flushes: {self.acknowledged} acknowledged, {self.evicted} evicted by the SDK's cap "
            f"({self.both} of them both), 0 lost\n"
            f"  a write took {self.mean_ms:.2f} ms on average and {self.slowest_ms:.0f} ms at worst; without a flush "
            f"{self.alone_mean_ms:.2f} and {self.alone_slowest_ms:.0f} ms; "
            "no exception, no error in any writer's log"
        )


class Writer:
    """A rank under way. Its output is read all the time."""

    def __init__(self, spool: Path, count: int, cap: int, seed: int, shapes: Path, keep: ExitStack) -> None:
        self.written: dict[str, str] = {}  # name: digest
        self.evicted: set[str] = set()
        self.errors: list[str] = []
        self.ended: dict[str, float] = {}
        self._stderr: IO[bytes] = keep.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # `keep` is its context
        self._process = keep.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, *map(str, (spool, shapes, count, cap, seed))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=clean_environment(spool.parent),
            )
        )
        keep.callback(self._process.kill)
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline() or b"{}") == {"ready": True}
        self._reader = threading.Thread(target=self._read, daemon=True)

    def go(self) -> None:
        """Begin to write."""
        self._reader.start()
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    @property
    def running(self) -> bool:
        """Whether it still writes."""
        return self._reader.is_alive()

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        self._reader.join(HANG_S)
        assert not self.running, "a writer does not end"
        self._process.wait(SAFETY_NET_S)
        self._stderr.seek(0)
        stderr = self._stderr.read().decode()
        assert self._process.returncode == 0, stderr
        assert not self.errors, self.errors
        assert "Traceback" not in stderr, stderr
        assert self.ended["dropped"] == len(self.evicted)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "wrote" in said:
                self.written[said["wrote"]] = said["digest"]
            elif "evicted" in said:
                self.evicted.add(said["evicted"])
            elif "error" in said:
                self.errors.append(said["error"])
            else:
                self.ended = said


def run(folder: Path, batches: int, writers: int, cap: int, seed: int) -> Report:
    """Let ``writers`` seal ``batches`` batches together. Raises ``AssertionError`` for the first one lost."""
    report = Report(writers)
    shapes = folder / "shapes.json"
    sealed = (sdk_batches(folder / f"shape{steps}", 1, spans=steps)[0] for steps in (0, 1, 8, 40))
    shapes.write_text(json.dumps([json.loads(batch.data) for batch in sealed]))

    def ranks(spool: Path, keep: ExitStack) -> list[Writer]:
        return [Writer(spool, batches // writers, cap, seed + rank, shapes, keep) for rank in range(writers)]

    def pace(done: list[Writer]) -> tuple[float, float]:
        total = sum(writer.ended["total"] for writer in done)
        return 1000 * total / sum(len(w.written) for w in done), 1000 * max(w.ended["slowest"] for w in done)

    with ExitStack() as keep:
        alone = ranks(folder / "alone" / "spool", keep)
        for writer in alone:
            writer.go()
        for writer in alone:
            writer.finish()
        report.alone_mean_ms, report.alone_slowest_ms = pace(alone)
    with ExitStack() as keep, Vault() as vault, Zygote() as zygote:
        spool = folder / "spool"
        together = ranks(spool, keep)
        clock = Clock(batches, "batches")
        for writer in together:
            writer.go()
        last = False
        while not last:
            last = not any(writer.running for writer in together)
            if last or not report.flushes:
                env = {"CIRRON_API_KEY": "sk-test"}
                ended = run_cli("flush", "--dir", spool, "--api-url", vault.url, home=folder, env=env)
                assert ended.returncode == 0, ended
            else:  # warm ones, one after another without a pause
                outcome = zygote.flush(spool, vault.url)
                assert outcome.code == 0, outcome
            report.flushes += 1
            clock.tick(sum(len(writer.written) for writer in together))
        for writer in together:
            writer.finish()
        report.seconds = clock.seconds
        report.mean_ms, report.slowest_ms = pace(together)
        evicted = set().union(*(writer.evicted for writer in together))
        for writer in together:
            for name, content in writer.written.items():
                report.written += 1
                acknowledged = vault.knows(batch_id(name), content)
                report.acknowledged += acknowledged
                report.evicted += name in evicted
                report.both += acknowledged and name in evicted
                assert acknowledged or name in evicted, f"{name} is lost"
        assert report.written == batches // writers * writers
        assert not list(spool.glob("*.json*"))
    return report


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, batches=4000, writers=2, cap=CAP_BYTES)
    with scratch(options.directory) as folder:
        print(run(folder, options.batches, options.writers, options.cap, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
