"""kill -9 of the real command, started anew each time: nothing is lost, two resends at most.

As `kills`, with ``python -m cirron_spool flush`` in the place of the warm fork. Half of the kills come at an instant
drawn uniformly over the command's whole life; since most of that is the interpreter's start, the other half come after
the server has seen a drawn upload, at an instant drawn over the rest.

    python tests/reliability/command_kills.py --kills 100
"""

from __future__ import annotations

import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness import SAFETY_NET_S, Books, Clock, Producer, Vault, arguments, batch_id, scratch
from kills import Report

from support.cli import Running, spawn_cli

FILL = (3, 12)


class Kills:
    """A vault, a producer, and a command after the other."""

    def __init__(self, folder: Path, vault: Vault, seed: int) -> None:
        self._rng = random.Random(seed)
        self._vault = vault
        self._home = folder / "home"
        self._home.mkdir()
        self._spool = folder / "spool"
        self._producer = Producer(self._spool, self._rng)
        self._books = Books(self._spool, vault)
        self._step_s = 0.0
        self.report = Report(seed)

    def run(self, kills: int) -> Report:
        """Kill so often, then let the last command end."""
        clock, report = Clock(kills, "kills"), self.report
        lives, steps = [], []
        for _ in range(3):
            self._books.enter(self._producer.write(FILL[1]))
            began = time.monotonic()
            steps.append(self._whole())
            lives.append(time.monotonic() - began)
        life_s, self._step_s = statistics.median(lives), statistics.median(steps)
        while report.kills < kills:
            if not self._books.open:
                self._books.enter(self._producer.write(self._rng.randint(*FILL)))
            self._one(life_s)
            clock.tick(report.kills)
        self._whole()
        report.written, report.delivered, report.seconds = (
            self._books.written,
            self._books.settled,
            clock.seconds,
        )
        assert report.written == report.delivered
        return report

    def _start(self) -> Running:
        self._known = {batch_id(name) for name in self._books.open if self._vault.arrivals[batch_id(name)]}
        self._vault.arrived_order.clear()
        # What the spool is and where it goes is said as users say it: by the environment.
        env = {
            "CIRRON_API_KEY": "sk-test",
            "CIRRON_API_ENDPOINT": self._vault.url,
            "CIRRON_OUTPUT_DIR": str(self._spool.parent),
        }
        return spawn_cli("flush", "--retries", "0", home=self._home, cwd=self._home, env=env)

    def _whole(self) -> float:
        """Let one end; returns the seconds from an upload to the next."""
        left = len(self._books.open)
        with self._start() as command:
            first = self._wait_for(command, 1)
            last = self._wait_for(command, left)
            ended = command.finish()
        assert ended.returncode == 0, ended
        assert not self._after(), "a whole flush left batches"
        return (last - first) / max(1, left - 1)

    def _one(self, life_s: float) -> None:
        left = len(self._books.open)
        with self._start() as command:
            if self._rng.random() < 0.5:
                mode = "instant"
                self._linger(command, self._rng.uniform(0, life_s))
            else:
                mode = "upload"
                upload = self._rng.randint(1, left)
                self._wait_for(command, upload)
                self._linger(command, self._rng.uniform(0, self._step_s * (left - upload + 1)))
            command.send_signal(signal.SIGKILL)
            ended = command.finish()
        if ended.returncode == -signal.SIGKILL:
            self.report.kills += 1
            self.report.by_mode[mode] += 1
        else:
            assert ended.returncode == 0, ended
            self.report.survived += 1
        seen = self._after()
        if ended.returncode:
            self.report.seen_on_disk[seen] += 1

    def _wait_for(self, command: Running, upload: int) -> float:
        """Wait until the server has seen so many uploads, or the command has ended; returns when."""
        threading.Thread(target=self._tell_end, args=(command,), daemon=True).start()
        self._vault.wait_until(
            lambda: len(self._vault.arrived_order) >= upload or command.process.poll() is not None,
            f"upload {upload}",
        )
        return time.monotonic()

    def _tell_end(self, command: Running) -> None:
        """One that ends before its upload is not waited for."""
        command.process.wait()
        self._vault._notify()

    def _linger(self, command: Running, seconds: float) -> None:
        """The test's own randomness: so long, or until the command has ended by itself."""
        try:
            command.process.wait(min(seconds, SAFETY_NET_S))
        except subprocess.TimeoutExpired:
            return

    def _after(self) -> int:
        self._vault.quiet()
        arrived = list(self._vault.arrived_order)
        left = self._books.check()
        resent = [key for key in arrived if key in self._known]
        self.report.resends += len(resent)
        assert len(arrived) == len(set(arrived)), (
            "sent twice by one command, with a server that fails nothing"
        )
        assert len(resent) <= 2, f"{len(resent)} batches were sent again after one kill"
        seen = sum(1 for name in left if self._vault.arrivals[batch_id(name)])
        assert seen <= 2, f"a kill let {seen} batches be sent again"
        self.report.most_seen_on_disk = max(self.report.most_seen_on_disk, seen)
        return seen


def run(folder: Path, kills: int, seed: int) -> Report:
    """Kill ``kills`` commands that flush a spool below ``folder``. Raises ``AssertionError`` at the first loss."""
    with Vault() as vault:
        return Kills(folder, vault, seed).run(kills)


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, kills=100)
    with scratch(options.directory) as folder:
        print(run(folder, options.kills, options.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
