"""Running contenders: each in a fresh process, in turn, on a spool of its own, and believed only when all arrived."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import environment, sinks
from benchmarks.errors import BenchmarkError
from benchmarks.sinks import Network, Sink
from benchmarks.spools import Spool, Workspace

# A run that takes longer hangs; 300 MB through the slowest contender over a line of 1 MB/s takes a quarter of this.
RUN_LIMIT_SECONDS = 1800.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class Contender:
    """A way to deliver a spool.

    ``program`` is the module of :mod:`benchmarks.contenders`, or ``node``. ``options`` are handed to it. A contender
    that ``deletes`` must leave its spool empty; one with ``in_flight`` 1 must begin requests oldest first, one at a
    time; one that is ``exact`` sends the file's own bytes, so that what arrives is compared with the file.
    """

    name: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)
    deletes: bool = True
    exact: bool = True

    @property
    def in_flight(self) -> int:
        """How many requests it may have in flight."""
        return int(self.options.get("in_flight", 1))

    def command(self, job: Path) -> list[str]:
        """The command line of one run."""
        if self.program == "node":
            program = environment.node()
            if program is None:
                raise BenchmarkError("There is no node here to run the peer with.")
            return [program, str(environment.REPOSITORY / "benchmarks" / "peers" / "flush.mjs"), str(job)]
        return [environment.interpreter(), "-m", f"benchmarks.contenders.{self.program}", str(job)]


def ours(name: str = "thread", **options: Any) -> Contender:
    """``flush_spool`` with ``options`` (``in_flight``, ``tuning``, ``verify``)."""
    return Contender(name, "ours", options)


FLOOR = Contender("floor", "floor", deletes=False)
NODE = Contender("node", "node")
CONTENDERS = {
    each.name: each for each in (FLOOR, ours("thread"), ours("inline", tuning={"disk_work": "inline"}), NODE)
}


@dataclass(frozen=True)
class Run:
    """One believed run: what the contender reported, and what the sink says of it (None where it cannot tell).

    Seconds are of the wall and of the processor; ``first_request_ms`` from the call to the first batch's request.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    start_bytes: int
    sent_bytes: int
    first_request_ms: float | None
    verified_ms: float | None
    open_most: int | None
    connections: int | None
    trailer_bytes: int | None = None
    lateness: dict[str, Any] | None = None


@dataclass
class Results:
    """The runs of one contender in one cell, or the error that stands in for them.

    ``trailers``: its gzip trailers told the bytes of JSON in the round that looked inside the bodies (they do unless
    bodies have several members), so that they are held to it in the counted rounds.
    """

    contender: Contender
    runs: list[Run] = field(default_factory=list)
    error: str | None = None
    trailers: bool = False

    def values(self, figure: str) -> list[float]:
        """``figure`` (a field of :class:`Run`) of every run that has it."""
        return [value for run in self.runs if (value := getattr(run, figure)) is not None]

    def median(self, figure: str) -> float | None:
        """The median of ``figure``, or None without one."""
        values = self.values(figure)
        return statistics.median(values) if values else None

    def spread(self, figure: str) -> tuple[float, float] | None:
        """The smallest and the largest of ``figure``."""
        values = self.values(figure)
        return (min(values), max(values)) if values else None


@dataclass(frozen=True)
class Cell:
    """One setting in which contenders were compared."""

    spool: str
    file_system: str
    network: Network
    sink: str
    batches: int
    json_bytes: int
    results: list[Results]

    def of(self, name: str) -> Results | None:
        """The results of the contender called ``name``, when it ran without an error."""
        return next((each for each in self.results if each.contender.name == name and each.runs), None)


def compare(
    workspace: Workspace,
    spool: Spool,
    network: Network,
    contenders: Sequence[Contender],
    repeat: int,
    say: Say,
    sink_kind: str = "answer-only",
) -> Cell:
    """Run ``contenders`` ``repeat`` times each, interleaved, and once before that with a look inside every body.

    The round before is not counted: it fills the caches, and shows that what each contender delivers decompresses to
    the files' bytes. The counted rounds take the contenders in turn, each round beginning with another, so that a
    machine that slows down or warms up does so for all of them.
    """
    results = [Results(contender) for contender in contenders]
    with sinks.start(sink_kind, network, workspace) as sink:
        for round_ in range(repeat + 1):
            proof = round_ == 0
            turn = round_ % len(results)
            for each in results[turn:] + results[:turn]:
                if each.error is not None:
                    continue
                label = "checking" if proof else f"run {round_} of {repeat}"
                say(
                    f"{spool.name}, {network.latency_ms:g} ms, {workspace.label}: {label}: {each.contender.name}"
                )
                try:
                    run = run_once(workspace, spool, sink, each.contender, proof)
                except BenchmarkError as error:
                    each.error, each.runs = str(error), []
                    continue
                each.trailers |= proof and run.trailer_bytes == spool.json_bytes
                if each.trailers and run.trailer_bytes != spool.json_bytes:
                    each.error, each.runs = "the gzip trailers do not add up to the spool's bytes", []
                elif not proof:
                    each.runs.append(run)
    return Cell(spool.name, workspace.label, network, sink_kind, len(spool.names), spool.json_bytes, results)


def run_once(workspace: Workspace, spool: Spool, sink: Sink, contender: Contender, proof: bool) -> Run:
    """One run of ``contender`` in a fresh process on a fresh copy of ``spool``; raises unless all of it arrived."""
    sink.reset(proof)
    if not contender.deletes:
        outcome = execute(workspace, contender, spool.directory, spool.names, sink.url)
        left = 0
    else:
        with workspace.copy(spool) as copy:
            outcome = execute(workspace, contender, copy, spool.names, sink.url)
            left = sum(1 for path in copy.iterdir() if path.suffix == ".json")
    return believe(spool, contender, outcome, sink.arrived(), left, proof)


def execute(
    workspace: Workspace, contender: Contender, directory: Path, names: Sequence[str], url: str
) -> dict[str, Any]:
    """Start ``contender`` on the spool in ``directory``, wait for its end; what it reported."""
    job = workspace.folder / "job.json"
    told = {
        "directory": str(directory),
        # The floor does not list; to the others the names would only be memory that they did not ask for.
        "names": list(names) if contender.program == "floor" else [],
        "url": url,
        "token": sinks.TOKEN,
        "options": contender.options,
    }
    job.write_text(json.dumps(told), encoding="utf-8")
    try:
        done = subprocess.run(
            contender.command(job),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=environment.REPOSITORY,
            env=environment.child_environment(workspace.folder),
            timeout=RUN_LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"not finished after {RUN_LIMIT_SECONDS:.0f} s") from None
    except OSError as error:
        raise BenchmarkError(f"could not be started: {error.strerror}") from error
    if done.returncode:
        raise BenchmarkError(f"exit code {done.returncode}: {sinks.last_line(done.stderr)}")
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def believe(
    spool: Spool,
    contender: Contender,
    outcome: dict[str, Any],
    arrived: sinks.Arrived,
    left: int,
    proof: bool,
) -> Run:
    """The run, when what the sink received is the whole spool and nothing of it is left; else an error."""
    wanted = spool.ids
    if arrived.batches != len(wanted) or outcome["batches"] != len(wanted):
        raise BenchmarkError(
            f"{len(wanted)} batches were to be delivered, {outcome['batches']} were reported, {arrived.batches} arrived"
        )
    ordered = arrived.in_order and contender.in_flight == 1
    if (arrived.begun if ordered else sorted(arrived.begun)) != (wanted if ordered else sorted(wanted)):
        raise BenchmarkError(
            "what arrived is not the spool's batches" + (", oldest first" if ordered else "")
        )
    if arrived.open_most is not None and arrived.open_most > contender.in_flight:
        raise BenchmarkError(
            f"{arrived.open_most} requests were in flight together, {contender.in_flight} may be"
        )
    if arrived.sent_bytes is not None and arrived.sent_bytes != outcome["sent_bytes"]:
        raise BenchmarkError(
            f"{outcome['sent_bytes']} bytes were reported as sent, {arrived.sent_bytes} arrived"
        )
    if proof and (contender.exact or spool.generated) and arrived.proofs != spool.proofs:
        raise BenchmarkError("what arrived does not decompress to what the files held")
    if contender.deletes and left:
        raise BenchmarkError(f"{left} batches were left in the spool")
    started = outcome["started_ns"]
    return Run(
        seconds=outcome["seconds"],
        cpu_seconds=outcome["cpu_seconds"],
        peak_bytes=outcome["peak_bytes"],
        start_bytes=outcome["start_bytes"],
        sent_bytes=outcome["sent_bytes"],
        first_request_ms=_milliseconds(started, arrived.first_ns),
        verified_ms=_milliseconds(started, arrived.verified_ns),
        open_most=arrived.open_most,
        connections=arrived.connections,
        trailer_bytes=arrived.trailer_bytes,
        lateness=outcome.get("lateness"),
    )


def _milliseconds(start_ns: int, end_ns: int | None) -> float | None:
    return (end_ns - start_ns) / 1e6 if end_ns else None
