"""kill -9 of a flush, again and again: nothing is lost, nothing is deleted unacknowledged, two resends at most.

A spool that the SDK's writer filled is flushed by a freshly forked, warm process, which is killed; the next flush
goes on with the same spool until it is empty and is filled again. The kill comes

* at an instant drawn uniformly over the time that such a flush takes, or
* before a drawn one of its audit events (opens, deletes, socket calls, imports), or
* inside a drawn one of its own events, or
* when the server is at a drawn stage of a drawn upload: its head, its whole body, its answer.

After each kill every batch that was ever written is either on disk or was acknowledged, byte for byte; and of what is
on disk, the server has seen two batches at most (with ``--in-flight N``: 2 N), since only those can be sent again.

    python tests/reliability/kills.py --kills 20000
"""

from __future__ import annotations

import random
import statistics
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness import Answer, Books, Clock, Producer, Request, Vault, arguments, batch_id, ok, scratch
from zygote import Outcome, Zygote

MODES = ("instant", "instant", "audit", "event", "server")
# Never more than the flush's own exit codes; 4 is for a flush that had to stop, which a healthy server never causes.
FILL = (3, 12)


@dataclass
class Report:
    """The figures of a run."""

    seed: int
    kills: int = 0
    survived: int = 0  # flushes that ended before their kill
    written: int = 0
    delivered: int = 0
    resends: int = 0  # uploads of a batch whose upload had started before
    most_seen_on_disk: int = 0
    seen_on_disk: Counter[int] = field(
        default_factory=Counter
    )  # kills by how many batches they let be sent again
    by_mode: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def __str__(self) -> str:
        windows = ", ".join(f"{count} left {seen}" for seen, count in sorted(self.seen_on_disk.items()))
        return (
            f"{self.kills} kills ({', '.join(f'{n} {mode}' for mode, n in sorted(self.by_mode.items()))}) in "
            f"{self.seconds:.0f} s, seed {self.seed}\n"
            f"  {self.written} batches written, {self.delivered} gone from disk and all of those acknowledged, 0 lost\n"
            f"  {self.resends} resends, {self.resends / max(1, self.kills):.2f} a kill; "
            f"at most {self.most_seen_on_disk} to resend after one kill ({windows})\n"
            f"  {self.survived} flushes were faster than their kill"
        )


class ServerKill:
    """Answers as the platform does, and kills at one stage of one upload."""

    def __init__(self, zygote: Zygote, upload: int, stage: str) -> None:
        self._zygote = zygote
        self._left = upload
        self._stage = stage

    def __call__(self, request: Request) -> Answer:
        """The plan of a vault."""
        self._left -= 1
        if self._left != 0:
            return Answer(late=_answer)
        if self._stage == "head":
            self._zygote.kill()
            return Answer(late=_answer)

        def late(whole: Request) -> Answer:
            # Not awaited: where exactly it lands, before or after the answer and the delete, is up to the kernel.
            self._zygote.kill()
            return _answer(whole)

        return Answer(late=late)


def _answer(_: Request) -> Answer:
    return ok()


class Kills:
    """A zygote, a vault, a producer, and a flush after the other."""

    def __init__(self, folder: Path, zygote: Zygote, vault: Vault, seed: int, in_flight: int = 1) -> None:
        self._rng = random.Random(seed)
        self._zygote = zygote
        self._vault = vault
        self._spool = folder / "spool"
        self._producer = Producer(self._spool, self._rng)
        self._books = Books(self._spool, vault)
        self._in_flight = in_flight
        self._fixed_s, self._each_s, self._audits, self._events = 0.0, 0.0, 0.0, 0.0
        self.report = Report(seed)

    def run(self, kills: int, until_seen: int = 0) -> Report:
        """Kill ``kills`` flushes, then let the last one end.

        Up to ten times as many are killed until one leaves ``until_seen`` batches that the server has seen.
        """
        clock = Clock(kills, "kills")
        self._measure()
        while self.report.kills < kills or (
            self.report.most_seen_on_disk < until_seen and self.report.kills < 10 * kills
        ):
            if not self._books.open:
                self._fill(self._rng.randint(*FILL))
            self._one()
            clock.tick(self.report.kills)
        self._whole()
        report = self.report
        report.written, report.delivered, report.seconds = (
            self._books.written,
            self._books.settled,
            clock.seconds,
        )
        assert report.written == report.delivered
        assert report.resends <= 2 * self._in_flight * report.kills
        return report

    def _fill(self, count: int) -> None:
        self._books.enter(self._producer.write(count))

    def _measure(self) -> None:
        """How long a flush takes, and how many events it has, with one batch and with a full spool."""
        points = []
        for count in (1, FILL[1]):
            outcomes = []
            for _ in range(5):
                self._fill(count)
                outcomes.append(self._whole())
            points.append(
                [
                    statistics.median(o.seconds for o in outcomes),
                    *(outcomes[-1].result[k] for k in ("audits", "events")),
                ]
            )
        (one_s, *_), (full_s, self._audits, self._events) = points
        self._each_s = max(0.0, (full_s - one_s) / (FILL[1] - 1))
        self._fixed_s = one_s - self._each_s

    def _whole(self) -> Outcome:
        """A flush that nobody kills: it must empty the spool."""
        self._vault.plan = None
        self._before()
        outcome = self._zygote.flush(self._spool, self._vault.url, in_flight=self._in_flight)
        assert outcome.code == 0, f"exit code {outcome.code}: {outcome.result} {outcome.stderr}"
        assert not self._after(outcome), "a whole flush left batches"
        return outcome

    def _one(self) -> None:
        left = len(self._books.open)
        mode = self._rng.choice(MODES)
        share = left / FILL[1]
        self._vault.plan = None
        # A body beyond this is streamed while it is compressed: both ways are to be killed.
        patch = {"cirron_spool.pipeline.batch_reader:HELD_BYTES": 2000} if self._rng.random() < 0.25 else {}
        when: dict[str, int | float] = {}
        if mode == "instant":
            when["delay"] = self._rng.uniform(0, 1.05 * (self._fixed_s + left * self._each_s))
        elif mode == "audit":
            when["audit"] = self._rng.randint(1, max(1, round(self._audits * share)))
        elif mode == "event":
            when["event"] = self._rng.randint(1, max(1, round(self._events * share)))
        else:
            self._vault.plan = ServerKill(
                self._zygote, self._rng.randint(1, left), self._rng.choice(("head", "answer"))
            )
        slow_s = self._rng.choice((0.0, 0.0, 0.003))
        if "delay" in when:
            when["delay"] += self._rng.uniform(0, left * slow_s)
        self._before()
        outcome = self._zygote.flush(
            self._spool,
            self._vault.url,
            patch=patch,
            slow_delete_s=slow_s,
            in_flight=self._in_flight,
            **when,  # type: ignore[arg-type]
        )
        if outcome.killed:
            self.report.kills += 1
            self.report.by_mode[mode] += 1
        else:
            self.report.survived += 1
            assert outcome.code == 0, f"exit code {outcome.code}: {outcome.result} {outcome.stderr}"
        self._after(outcome)

    def _before(self) -> None:
        self._known = {batch_id(name) for name in self._books.open if self._vault.arrivals[batch_id(name)]}
        self._vault.arrived_order.clear()

    def _after(self, outcome: Outcome) -> list[str]:
        self._vault.quiet()
        arrived = list(self._vault.arrived_order)
        left = self._books.check()
        resent = [key for key in arrived if key in self._known]
        self.report.resends += len(resent) + len(arrived) - len(set(arrived))
        assert len(arrived) == len(set(arrived)), "sent twice by one flush, with a server that fails nothing"
        assert len(resent) <= 2 * self._in_flight, f"{len(resent)} batches were sent again after one kill"
        seen = sum(1 for name in left if self._vault.arrivals[batch_id(name)])
        assert seen <= 2 * self._in_flight, f"a kill let {seen} batches be sent again"
        self.report.most_seen_on_disk = max(self.report.most_seen_on_disk, seen)
        if outcome.killed:
            self.report.seen_on_disk[seen] += 1
        for key in self._known.union(arrived) - {batch_id(name) for name in left}:
            del self._vault.arrivals[key]  # settled: forgotten, so that a long run stays small
            self._vault.acknowledged.pop(key, None)
        self._vault.acknowledged_order.clear()
        return left


def run(folder: Path, kills: int, seed: int, in_flight: int = 1, until_seen: int = 0) -> Report:
    """Kill flushes of a spool below ``folder``; see `Kills.run`. Raises ``AssertionError`` at the first loss."""
    with Vault() as vault, Zygote() as zygote:
        return Kills(folder, zygote, vault, seed, in_flight).run(kills, until_seen)


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, kills=500, in_flight=1)
    with scratch(options.directory) as folder:
        print(run(folder, options.kills, options.seed, options.in_flight))
    return 0


if __name__ == "__main__":
    sys.exit(main())
