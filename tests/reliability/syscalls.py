"""Every system call of a five-batch flush killed or failed: all end states are legal.

The real command runs under ``strace``. A first run of each scene shows which calls there are; then each of them, one a
run, is ended with SIGKILL before it happens, or fails with EIO, ENOSPC, EACCES, EINTR (files) or ECONNRESET (sockets):

* files: calls on the spool, its batches, its lock and its quarantine;
* wire: calls on sockets, and the event loop's;
* rest: any other call from the first that touches the spool to the process's last: killed only. What comes before is
  the interpreter starting, the same for every program.

A state is legal when no batch is lost; the exit code is a documented one, and 0 only when nothing is left; nobody
sees a traceback; it ends; and the next flush delivers what is left. Where the call was the event loop's on its own
pipe, which no network breaks, Python may show a traceback or wait for ever; nothing is lost then either. Without
strace, or where tracing is not permitted, `unavailable` says so.

    python tests/reliability/syscalls.py --cases 100000
    python tests/reliability/syscalls.py --cases 100000 --groups files,wire
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from harness import (
    SAFETY_NET_S,
    Answer,
    Books,
    Clock,
    Producer,
    Request,
    Vault,
    arguments,
    batch_id,
    json_answer,
    ok,
    read,
    scratch,
)

from support.cli import clean_environment, command_line

BATCHES = 5
HANG_S = 30.0  # a run takes one
# Nobody waits that long for a loop that cannot be woken any more.
INNER_HANG_S = 5.0
HUNG = -999  # no exit code
AT_ONCE = 2
FILE_ERRORS = ("EIO", "ENOSPC", "EACCES", "EINTR")
WIRE_ERRORS = ("EIO", "ECONNRESET", "ENOBUFS", "EINTR")
WIRE = "%network,epoll_create1,epoll_ctl,epoll_wait,epoll_pwait,poll,ppoll"
# The event loop's own, on no file and no connection: only killed.
ONLY_KILLED = re.compile("exit.*|epoll.*|p?poll|socketpair")
SCENES = ("deliver", "quarantine")

# The event loop's own pipe, on which its threads wake it.
_PIPE = re.compile(r"\((?:\d+<UNIX|AF_UNIX)")
_CALL = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed)")


class Case(NamedTuple):
    """The ``number``-th ``call`` of a thread, among those of ``group``, comes to ``what`` ("KILL" or an error)."""

    scene: str
    group: str
    call: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.scene}: {self.group} {self.call} number {self.number}: {self.what}"


@cache
def unavailable() -> str:
    """Why this cannot run here, or an empty text."""
    strace = shutil.which("strace")
    if strace is None:
        return "strace is not installed"
    probe = subprocess.run(
        [strace, "-f", "--seccomp-bpf", "-qq", "-e", "inject=getppid:error=EIO", "true"],
        capture_output=True,
        text=True,
        timeout=SAFETY_NET_S,
        check=False,
    )
    return f"strace cannot trace here: {probe.stderr.strip()}" if probe.returncode else ""


@dataclass
class Report:
    """The figures of a run."""

    seed: int
    run: int = 0
    of: int = 0
    by_what: Counter[str] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    idle: int = 0  # runs that did not come to their call
    inner: int = 0  # runs whose call was the event loop's, on its own pipe
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {what}" for what, count in sorted(self.by_what.items()))
        codes = ", ".join(f"{count} x {code}" for code, count in sorted(self.codes.items()))
        return (
            f"{self.run} of {self.of} calls ended ({kinds}) in {self.seconds:.0f} s, seed {self.seed}\n"
            f"  0 lost, all end states legal; exit codes {codes}; {self.idle} runs did not come to their call, "
            f"{self.inner} hit the event loop's own pipe"
        )


class Scene:
    """A fresh spool of five batches, its vault's answers, and the command."""

    def __init__(self, folder: Path, vault: Vault, producer: Producer, scene: str) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.spool = folder / "spool"
        self.home.mkdir(parents=True)
        producer.move(self.spool)
        self._vault = vault
        self.books = Books(self.spool, vault)
        paths = producer.write(BATCHES)
        self.books.enter(paths)
        self.aside = folder / "quarantine"
        self._flags = ["--quarantine"] if scene == "quarantine" else []
        # The second is rejected, so that what comes after a batch that was set aside is seen, too.
        self.rejected = {batch_id(paths[1].name)} if scene == "quarantine" else set()
        names = [path.name for path in paths]
        places = [
            self.spool,
            self.spool / ".cirron-spool.lock",
            self.spool / ".cirron-spool.owner",
            self.aside,
        ]
        places += [folder / name for folder in (self.spool, self.aside) for name in names]
        places += [self.aside / f"{name.removesuffix('.json')}.rejection.json" for name in names]
        self._paths = [part for place in places for part in ("-P", str(place))]

    def strace(self, *expressions: str, files: bool) -> tuple[int, str, str]:
        """Run the command; its exit code, standard error, and what strace wrote."""
        log = self.folder / "strace.txt"
        argv = ["strace", "-f", "-qq", "-yy", "-o", str(log)]
        if files:
            argv += self._paths
        elif not any("signal=" in expression for expression in expressions):
            argv.append("--seccomp-bpf")  # twice as quick, but a signal never comes
        for expression in expressions:
            argv += ["-e", expression]
        argv += command_line(["flush", "--dir", self.spool, "--retries", "0", "--no-verify", *self._flags])
        env = {"CIRRON_API_KEY": "sk-test", "CIRRON_API_ENDPOINT": self._vault.url}
        with (self.folder / "stderr.txt").open("w+b") as errors:
            running = subprocess.Popen(
                argv,
                cwd=self.home,
                env=clean_environment(self.home, env),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
            try:
                try:
                    code = running.wait(INNER_HANG_S)
                except subprocess.TimeoutExpired:
                    code = running.wait(0 if _on_pipe(read(log)) else HANG_S - INNER_HANG_S)
            except subprocess.TimeoutExpired:
                # What is traced as well: without its tracer it would go on.
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                code = HUNG
            errors.seek(0)
            stderr = errors.read().decode(errors="backslashreplace")
        return code, stderr, log.read_text(errors="replace")

    def check(self) -> list[str]:
        """The batches still there. Raises ``AssertionError`` for one that is lost or changed."""
        for name, content in list(self.books.open.items()):
            data = read(self.aside / name)
            if data is not None:
                assert read(self.spool / name) is None, f"{name} is in the spool and in quarantine"
                (self.spool / name).write_bytes(data)  # as `quarantine retry` puts it back
                (self.aside / name).unlink()
                assert content
        return self.books.check()


class Syscalls:
    """Runs cases, each in a scene of its own."""

    def __init__(self, folder: Path, vault: Vault, seed: int) -> None:
        self._folder = folder
        self._vault = vault
        self._producer = Producer(folder / "shapes", random.Random(seed), shapes=(0, 1, 8, 40))
        self._made = 0
        self._rejected: set[str] = set()
        self.report = Report(seed)
        vault.plan = self._plan

    def _plan(self, request: Request) -> Answer:
        return json_answer({"error": "schema"}, 400) if request.batch_id in self._rejected else ok()

    def scene(self, scene: str) -> Scene:
        """A fresh one."""
        self._made += 1
        made = Scene(self._folder / str(self._made), self._vault, self._producer, scene)
        self._rejected |= made.rejected
        return made

    def cases(self) -> list[Case]:
        """What there is to end, from a first run of each scene."""
        found: list[Case] = []
        for scene in SCENES:
            for group, trace, errors in (
                ("files", "all", FILE_ERRORS),
                ("wire", WIRE, WIRE_ERRORS),
                ("rest", "all", ()),
            ):
                made = self.scene(scene)
                _, _, log = made.strace(f"trace={trace}", files=group == "files")
                shutil.rmtree(made.folder)
                begins = str(made.spool) if group == "rest" else ""
                for (call, number), inner in sorted(_numbered(log, begins).items()):
                    found.append(Case(scene, group, call, number, "KILL"))
                    if not (inner or ONLY_KILLED.fullmatch(call)):
                        found += [Case(scene, group, call, number, error) for error in errors]
        return found

    def run(self, cases: list[Case], clock: Clock) -> None:
        """All of ``cases``, some at a time."""
        scenes = [(case, self.scene(case.scene)) for case in cases]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for _ in pool.map(lambda pair: self._one(*pair), scenes):
                clock.tick(self.report.run - self.report.idle)

    def _one(self, case: Case, made: Scene) -> None:
        report = self.report
        fate = "signal=SIGKILL" if case.what == "KILL" else f"error={case.what}"
        code, stderr, log = made.strace(
            f"trace={case.call}", f"inject={case.call}:{fate}:when={case.number}", files=case.group == "files"
        )
        report.run += 1
        report.by_what[case.what] += 1
        report.codes[code] += 1
        report.idle += "(INJECTED)" not in log and "killed by SIGKILL" not in log
        inner = _on_pipe(log.encode())
        report.inner += inner
        report.problems += [
            f"{case}: {problem}" for problem in self._illegal(case, made, code, stderr, inner)
        ]
        shutil.rmtree(made.folder)

    def _illegal(self, case: Case, made: Scene, code: int, stderr: str, inner: bool) -> Iterator[str]:
        left = [
            name for name in made.books.open if (made.spool / name).exists() or (made.aside / name).exists()
        ]
        try:
            made.check()
        except AssertionError as lost:
            yield str(lost)
            return
        if case.what != "KILL":
            if code == HUNG:
                if not inner:  # a loop that cannot be woken any more waits for ever
                    yield f"a hang: {stderr}"
            elif code not in (0, 1, 2, 3, 4):
                yield f"exit code {code}: {stderr}"
            elif code == 0 and left:
                yield f"exit code 0 with {len(left)} batches left: {stderr}"
            if not inner and ("Traceback" in stderr or "Exception" in stderr):
                yield f"exit code {code}, and a traceback: {stderr[-1500:]}"
        self._rejected -= made.rejected
        again, stderr, _ = made.strace("trace=none", files=False)
        if again or made.check():
            yield f"the flush after it: exit code {again}: {stderr}"


def _on_pipe(log: bytes | None) -> bool:
    """Whether a call that was ended was the event loop's on its own pipe."""
    lines = (log or b"").decode(errors="replace").splitlines()
    return any("(INJECTED)" in line and _PIPE.search(line) for line in lines)


def _numbered(log: str, begins: str) -> dict[tuple[str, int], bool]:
    """Each call from the first line with ``begins`` in it: its number in its thread, as strace counts.

    With it whether it was only ever on the loop's own pipe.
    """
    by_thread: Counter[tuple[str, str]] = Counter()
    numbered: dict[tuple[str, int], bool] = {}
    started = False
    for line in log.splitlines():
        started = started or (begins in line and "execve(" not in line)
        match = _CALL.match(line)
        if match and " resumed" not in match[0]:
            by_thread[match[2], match[1]] += 1
            if not started:
                continue
            key = match[2], by_thread[match[2], match[1]]
            numbered[key] = numbered.get(key, True) and _PIPE.search(line) is not None
    return numbered


# Of ten cases of a sample, so many are from each group.
SHARES = {"files": 6, "wire": 3, "rest": 1}


def _in_shares(cases: Collection[Case], count: int, rng: random.Random) -> list[Case]:
    """About ``count`` of ``cases``, each group in its share, in an order by chance."""
    chosen: list[Case] = []
    there = {case.group for case in cases}
    whole = sum(SHARES[group] for group in there)
    for group in sorted(there):
        members = [case for case in cases if case.group == group]
        chosen += rng.sample(members, min(len(members), count * SHARES[group] // whole))
    rng.shuffle(chosen)
    return chosen


def run(folder: Path, count: int, seed: int, groups: Collection[str] = tuple(SHARES)) -> Report:
    """As many cases as it takes for ``count`` to come to their call, most of them on files; or all in ``groups``.

    Calls are counted in a run without strace's haste: some cases do not come to theirs. A sample ends at thrice
    ``count`` cases in any event.
    """
    rng = random.Random(seed)
    with Vault() as vault:
        syscalls = Syscalls(folder, vault, seed)
        everything = [case for case in syscalls.cases() if case.group in groups]
        wanted = min(count, len(everything))
        chosen = _in_shares(everything, 3 * wanted, rng) if wanted < len(everything) else everything
        clock = Clock(wanted, "calls")
        report = syscalls.report
        while chosen and report.run - report.idle < wanted:
            portion = wanted - (report.run - report.idle)
            syscalls.run(chosen[:portion], clock)
            chosen = chosen[portion:]
    report.of, report.seconds = len(everything), clock.seconds
    assert not report.problems, f"{len(report.problems)} problems, seed {seed}:\n" + "\n".join(
        report.problems
    )
    return report


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, cases=60, groups=tuple(SHARES))
    why_not = unavailable()
    if why_not:
        print(f"Skipped: {why_not}.")
        return 0
    with scratch(options.directory) as folder:
        print(run(folder, options.cases, options.seed, options.groups))
    return 0


if __name__ == "__main__":
    sys.exit(main())
