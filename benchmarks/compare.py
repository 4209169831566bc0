"""Run contenders in turn, each in a fresh process on a fresh copy of the spool, and check each delivery."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine, sink_client
from benchmarks.contenders.harness import Outcome
from benchmarks.errors import BenchmarkError, last_line
from benchmarks.sink import Tally
from benchmarks.sink_client import Network, SinkClient
from benchmarks.spools import Spool, Workspace

# A longer run hangs.
RUN_LIMIT_SECONDS = 1800.0
MB = 1e6


@dataclass(frozen=True)
class Contender:
    """A way to deliver a spool: a module of :mod:`benchmarks.contenders`, or ``node``, with its ``options``."""

    name: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def in_flight(self) -> int:
        """The largest number of requests in flight."""
        return int(self.options.get("in_flight", 1))

    @property
    def deletes(self) -> bool:
        """Whether the spool is empty after the delivery."""
        return self.program != "floor"

    def command(self, job: Path) -> list[str]:
        """The command line of one run."""
        if self.program != "node":
            return [sys.executable, "-m", f"benchmarks.contenders.{self.program}", str(job)]
        program = machine.node()
        if program is None:
            raise BenchmarkError("node is not installed")
        return [program, str(machine.REPOSITORY / "benchmarks" / "contenders" / "flush.mjs"), str(job)]


def flush(name: str, *, in_flight: int = 1, **tuning: Any) -> Contender:
    """``flush_spool`` with ``in_flight`` and the fields of ``Tuning``."""
    options: dict[str, Any] = {"tuning": tuning} if tuning else {}
    return Contender(name, "flush", options | ({"in_flight": in_flight} if in_flight > 1 else {}))


def strategy(disk_work: str, in_flight: int = 1) -> Contender:
    """``flush_spool`` with one of the strategies of disk work."""
    name = disk_work if in_flight == 1 else f"{disk_work}-{in_flight}"
    return flush(name, in_flight=in_flight, disk_work=disk_work)


STRATEGIES = ("thread", "inline")
CONTENDERS = {
    each.name: each
    for each in (Contender("floor", "floor"), *map(strategy, STRATEGIES), Contender("node", "node"))
}


@dataclass(frozen=True)
class Run:
    """One checked delivery. ``first_request_ms`` is from the call to the first batch's request."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_bytes: int
    sent_bytes: int
    first_request_ms: float
    open_most: int
    lateness: dict[str, dict[str, float]] | None


@dataclass
class Results:
    """The runs of one contender, or the error in their place."""

    contender: Contender
    runs: list[Run] = field(default_factory=list)
    error: str | None = None

    def median(self, figure: str) -> float:
        """The median of a field of :class:`Run`; there must be runs."""
        return float(statistics.median(getattr(run, figure) for run in self.runs))

    def spread(self, figure: str) -> tuple[float, float]:
        """The smallest and the largest value of a field of :class:`Run`."""
        values = [getattr(run, figure) for run in self.runs]
        return min(values), max(values)


@dataclass(frozen=True)
class Cell:
    """The contenders on one spool over one network."""

    spool: Spool
    file_system: str
    network: Network
    results: list[Results]

    def measured(self) -> list[Results]:
        """The results without an error."""
        return [each for each in self.results if each.runs]

    def find(self, name: str) -> Results | None:
        """The results of the contender ``name``; None without runs."""
        return next((each for each in self.measured() if each.contender.name == name), None)

    def as_json(self) -> dict[str, Any]:
        """The cell with every run."""
        return {
            "spool": self.spool.name,
            "batches": len(self.spool.names),
            "json_bytes": self.spool.json_bytes,
            "file_system": self.file_system,
            **asdict(self.network),
            "contenders": [
                {
                    "name": each.contender.name,
                    "options": each.contender.options,
                    "error": each.error,
                    "runs": [asdict(run) for run in each.runs],
                }
                for each in self.results
            ],
        }


def compare(
    workspace: Workspace,
    spool: Spool,
    network: Network,
    contenders: Sequence[Contender],
    repeat: int,
    say: Callable[[str], None],
    *,
    proof: bool = True,
) -> Cell:
    """Run each contender ``repeat`` times. Each round begins with another contender.

    With ``proof``, a round before these compares the JSON in each body with its file; its times do not count.
    """
    results = [Results(contender) for contender in contenders]
    with sink_client.running_sink(network, workspace.folder) as sink:
        for round_ in range(0 if proof else 1, repeat + 1):
            turn = round_ % len(results)
            for each in results[turn:] + results[:turn]:
                if each.error is not None:
                    continue
                progress = f"run {round_} of {repeat}" if round_ else "comparing bodies"
                say(f"{spool.name}, {network.latency_ms:g} ms: {progress}: {each.contender.name}")
                try:
                    run = run_once(workspace, spool, sink, each.contender, proof=not round_)
                except BenchmarkError as error:
                    each.error, each.runs = str(error), []
                    continue
                if round_:
                    each.runs.append(run)
    return Cell(spool, workspace.file_system, network, results)


def run_once(
    workspace: Workspace, spool: Spool, sink: SinkClient, contender: Contender, *, proof: bool
) -> Run:
    """One checked delivery of a fresh copy of ``spool``."""
    sink.reset(proof)
    if not contender.deletes:
        outcome, left = execute(workspace, contender, spool, spool.directory, sink.url), 0
    else:
        with workspace.copy(spool) as copy:
            outcome = execute(workspace, contender, spool, copy, sink.url)
            left = sum(1 for path in copy.iterdir() if path.suffix == ".json")
    tally = sink.tally()
    check_delivery(spool, contender, outcome, tally, left)
    return Run(
        seconds=outcome["seconds"],
        cpu_seconds=outcome["cpu_seconds"],
        peak_bytes=outcome["peak_bytes"],
        start_bytes=outcome["start_bytes"],
        sent_bytes=outcome["sent_bytes"],
        first_request_ms=(tally.first_ns - outcome["started_ns"]) / 1e6,
        open_most=tally.open_most,
        lateness=outcome.get("lateness"),
    )


def execute(workspace: Workspace, contender: Contender, spool: Spool, directory: Path, url: str) -> Outcome:
    """Start ``contender`` on ``directory`` and wait for its outcome."""
    job = workspace.folder / "job.json"
    content = {
        "directory": str(directory),
        # The others list the folder; the names would only enlarge their memory.
        "names": [] if contender.deletes else spool.names,
        "url": url,
        "token": sink_client.TOKEN,
        "options": contender.options,
    }
    job.write_text(json.dumps(content), encoding="utf-8")
    try:
        done = subprocess.run(
            contender.command(job),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=machine.REPOSITORY,
            env=machine.child_environment(workspace.folder),
            timeout=RUN_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"no end after {RUN_LIMIT_SECONDS:.0f} s") from None
    if done.returncode:
        raise BenchmarkError(f"exit code {done.returncode}: {last_line(done.stderr)}")
    outcome: Outcome = json.loads(done.stdout)
    return outcome


def check_delivery(spool: Spool, contender: Contender, outcome: Outcome, tally: Tally, left: int) -> None:
    """Raise BenchmarkError unless the sink received exactly the spool, in order, and the spool is empty."""
    ids, started = spool.ids, tally.started
    if contender.in_flight > 1:
        ids, started = sorted(ids), sorted(started)
    if not len(ids) == outcome["batches"] == tally.finished:
        raise BenchmarkError(
            f"{len(ids)} batches in the spool, {outcome['batches']} reported, {tally.finished} received"
        )
    if started != ids:
        raise BenchmarkError("the sink received other batches, or another order")
    if tally.open_most > contender.in_flight:
        raise BenchmarkError(f"{tally.open_most} requests in flight, at most {contender.in_flight} allowed")
    if tally.sent_bytes != outcome["sent_bytes"]:
        raise BenchmarkError(f"{outcome['sent_bytes']} bytes reported, {tally.sent_bytes} received")
    if tally.trailer_bytes != spool.json_bytes:
        raise BenchmarkError("the gzip trailers do not add up to the bytes of the spool")
    if tally.proving and tally.proofs != spool.proofs:
        raise BenchmarkError("a body does not decompress to its file")
    if left:
        raise BenchmarkError(f"{left} batches were left in the spool")
