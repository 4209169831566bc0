"""The flush against a model: whatever writers, evictors, servers and crashes do, every batch is accounted for.

Hypothesis draws sequences of steps; the flush, the directory, the SDK's writer and the sockets are real. At any time

    written = acknowledged + on disk + quarantined + evicted + cleared by the user's word

by name and by bytes. A strict flush sends oldest first; a flush's own counts agree with the model's; and once the
faults stop, one flush empties the spool. Run as many examples as you like:

    python tests/reliability/statemachine.py --examples 20000
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from harness import (
    SAFETY_NET_S,
    Answer,
    Producer,
    Request,
    Vault,
    arguments,
    batch_id,
    digest,
    html,
    json_answer,
    ok,
    read,
    scratch,
)
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from zygote import Zygote

from cirron_spool import AuthError, CirronSpoolError, FlushResult, SpoolBusyError, flush_spool
from cirron_spool.settings.paths import quarantine_path
from cirron_spool.spool import lease as leases
from cirron_spool.spool import quarantine as set_asides
from cirron_spool.spool.directory import SpoolDirectory
from cirron_spool.spool.lease import LEASE_S, RECORD_NAME, RENEW_S, TRUSTED_S
from cirron_spool.spool.lock import LOCK_NAME
from cirron_spool.spool.owner import this_process
from support.monitor import DeleteWatch, watch_deletes

# What a server may do to one upload: acknowledge it, have it kept and tried again, stop the flush, or reject it.
GOOD = ("ok", "created", "empty", "chunked")
KEEPING = ("unavailable", "slow down", "says no", "cut", "lost", "reset", "gone", "garbage", "early")
STOPPING = ("redirect", "page", "forbidden", "refused", "missing", "partial")
REJECTING = ("bad", "conflict", "too large", "unprocessable")
FAULTS = (*GOOD, *KEEPING, *STOPPING, *REJECTING)


def answer(kind: str) -> Answer:
    """One of ``FAULTS`` on the wire."""
    return {
        "ok": ok(),
        "created": json_answer({"id": 7}, 201),
        "empty": Answer(204),
        "chunked": ok(chunked=True),
        "unavailable": json_answer({"error": "later"}, 503),
        "slow down": Answer(429, headers=[("Retry-After", "0")]),
        "says no": json_answer({"success": False}),
        "cut": ok(cut_after=40),
        "lost": ok(cut_after=0, reset=True),  # accepted, and then nobody hears of it
        "reset": ok(read_only=1, reset=True),
        "gone": ok(read_only=1),
        "garbage": Answer(raw=b"\x00\x01\x02 what?\r\n\r\n", drop=True),
        "early": Answer(500, before_body=True, close=True),
        "redirect": Answer(302, headers=[("Location", "/login")]),
        "page": html(),
        "forbidden": Answer(403),
        "refused": Answer(401),
        "missing": Answer(404),
        "partial": Answer(206, body=b"half"),
        "bad": json_answer({"error": "schema"}, 400),
        "conflict": Answer(409),
        "too large": Answer(413),
        "unprocessable": Answer(422),
    }[kind]


kinds = st.lists(
    st.sampled_from(GOOD) | st.sampled_from(FAULTS), max_size=6
)  # of the uploads of one flush, in order; then it is well


class World:
    """What outlives an example, because it is dear: the server, the zygote, and the shapes of batches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        self.vault = self._stack.enter_context(Vault())
        self.zygote = self._stack.enter_context(Zygote())
        self.producer = Producer(folder / "shapes", random.Random(0), shapes=(0, 0, 1, 6))
        self.examples = 0
        self.flushes = 0
        self.batches = 0
        self.crashes = 0

    def close(self) -> None:
        """End what was started."""
        self._stack.close()


class Spool(RuleBasedStateMachine):
    """One spool, from empty to empty."""

    world: World  # set by `machine`

    def __init__(self) -> None:
        super().__init__()
        self.vault = self.world.vault
        self.vault.plan = None
        self.vault.forget()
        self.root = Path(tempfile.mkdtemp(dir=self.world.folder))
        self.spool = self.root / "spool"
        self.world.producer.move(self.spool)
        self.world.examples += 1
        self.written: dict[str, str] = {}  # name: digest
        self.evicted: set[str] = set()
        self.cleared: set[str] = set()
        self._watching = ExitStack()
        self.watch: DeleteWatch = self._watching.enter_context(watch_deletes())

    # -- the producers and the evictor

    @initialize(count=st.integers(1, 5))
    def begin(self, count: int) -> None:
        self.write(count)

    @rule(count=st.integers(1, 5))
    def write(self, count: int) -> None:
        for path in self.world.producer.write(count):
            self.written[path.name] = digest(path.read_bytes())
            self.world.batches += 1

    @rule(count=st.integers(1, 2))
    def evict(self, count: int) -> None:
        """The SDK's cap: the oldest go."""
        self.stock()
        with self.watch.allowed():
            for name in self.on_disk()[:count]:
                (self.spool / name).unlink(missing_ok=True)
                self.evicted.add(name)

    @rule(
        name=st.sampled_from(
            ("notes.txt", "00000000000000000001-AB.json", "00000000000000000001-ab.json.tmp")
        )
    )
    def somebody_else(self, name: str) -> None:
        """Files that are none of ours stay where they are, to the end."""
        (self.spool / name).write_bytes(b"theirs")

    # -- flushes

    @rule(plan=kinds, retries=st.integers(0, 1))
    def flush(self, plan: list[str], retries: int) -> None:
        self.stock()
        began = self.on_disk()
        result = self.run_flush(plan, retries=retries)
        self.in_order(began)
        self.counts(result, began)

    @rule(plan=kinds, quarantine=st.booleans(), keep_going=st.booleans(), in_flight=st.integers(1, 3))
    def lenient_flush(self, plan: list[str], quarantine: bool, keep_going: bool, in_flight: int) -> None:
        self.stock()
        began = self.on_disk()
        result = self.run_flush(plan, quarantine=quarantine, keep_going=keep_going, in_flight=in_flight)
        self.counts(result, began)

    @rule(plan=kinds, streamed=st.booleans())
    def flush_other_bodies(self, plan: list[str], streamed: bool) -> None:
        """Bodies that are streamed while they are compressed, as only huge ones are otherwise."""
        self.stock()
        began = self.on_disk()
        with patch("cirron_spool.pipeline.batch_reader.HELD_BYTES", 500 if streamed else 8 << 20):
            self.run_flush(plan)
        self.in_order(began)

    @rule(plan=kinds, locked=st.booleans())
    def two_flushers(self, plan: list[str], locked: bool) -> None:
        """At once; also where the lock does nothing, as on some network file systems."""
        self.stock()
        with ExitStack() as stack:
            if not locked:
                stack.enter_context(patch.object(SpoolDirectory, "lock", lambda _: "no locks here"))
            self.run(plan, self.flushing(), self.flushing())

    @rule(lying=st.booleans())
    def two_owners(self, lying: bool) -> None:
        """At once, where lock calls succeed for everybody: no batch is sent by both."""
        self.stock()
        began = self.on_disk()
        with self.lying_locks() if lying else nullcontext():
            self.run([], self.flushing(), self.flushing())
        assert self.vault.arrived_order == [batch_id(name) for name in began]
        assert self.on_disk() == []

    @rule(age_s=st.floats(-1e6, 1e6), skew_s=st.sampled_from((-1e8, 0.0, 1e8)))
    def owned_elsewhere(self, age_s: float, skew_s: float) -> None:
        """Another machine's record: the file system's time alone says whether its owner still works."""
        self.stock()
        began = self.on_disk()
        self.leave_record(age_s)
        with self.lying_locks(), patch("time.time_ns", lambda: round((time.time() + skew_s) * 1e9)):
            result = self.run_flush([])
        if age_s >= LEASE_S:
            assert result is not None and self.on_disk() == []
        elif age_s < LEASE_S / 2:  # between them the machine's own slowness decides
            assert result is None and self.on_disk() == began and not self.vault.arrived_order
        (self.spool / RECORD_NAME).unlink(missing_ok=True)  # that owner has ended

    @rule(nth=st.integers(1, 4), gone_s=st.sampled_from((1.0, RENEW_S, TRUSTED_S, LEASE_S + 1, 1e5)),
          followed=st.booleans(), in_flight=st.integers(1, 2), quarantine=st.booleans(), plan=kinds)  # fmt: skip
    def suspended(
        self, nth: int, gone_s: float, followed: bool, in_flight: int, quarantine: bool, plan: list[str]
    ) -> None:
        """The owner stands still while an upload is under way, and another machine may follow it."""
        self.stock()
        gone = 0.0
        at_follow: list[list[str]] = []
        real = leases.clock

        def suspend() -> None:
            nonlocal gone
            gone = gone_s
            with suppress(FileNotFoundError):  # beside others, an upload may outlive its flush
                self.age_record(gone_s)
            if followed and gone_s > LEASE_S:
                follower = leases.Lease(str(self.spool))
                with suppress(leases.OwnedError):  # a delete was due, so the owner has asked already
                    follower.acquire()
                    self.leave_record(0.0)  # and it goes on, on its machine
                    at_follow.append(self.on_disk())

        async def flush() -> None:
            results.append(await self.flushing(in_flight=1 if followed else in_flight, quarantine=quarantine))

        results: list[FlushResult | None] = []
        with self.lying_locks(), patch.object(leases, "clock", lambda: real() + gone):
            self.run(plan, flush(), at=(nth, suspend))
        if at_follow:
            if [*plan, *["ok"] * nth][nth - 1] in (*GOOD, *REJECTING[: len(REJECTING) * quarantine]):
                assert results == [None], "it did not notice that it was followed"
            assert len(self.vault.arrived_order) <= nth, "it sent on behind the follower's back"
            assert set(self.on_disk()) >= set(at_follow[0]), "it deleted behind the follower's back"
            (self.spool / RECORD_NAME).unlink()
        else:
            assert results[0] is not None, "nobody had followed it"

    @rule(plan=kinds, nth=st.integers(1, 3), count=st.integers(1, 3))
    def evicted_meanwhile(self, plan: list[str], nth: int, count: int) -> None:
        """The SDK's cap strikes while an upload is under way; what is in flight may be among the oldest."""

        def strike() -> None:
            with self.watch.allowed():
                for name in self.on_disk()[:count]:
                    try:
                        (self.spool / name).unlink()
                    except FileNotFoundError:
                        continue  # delivered and deleted by the flush meanwhile
                    self.evicted.add(name)

        self.stock()
        self.run(plan, self.flushing(), at=(nth, strike))

    @rule(plan=kinds, nth=st.integers(1, 3), count=st.integers(1, 2))
    def written_meanwhile(self, plan: list[str], nth: int, count: int) -> None:
        self.stock()
        self.run(plan, self.flushing(), at=(nth, lambda: self.write(count)))

    @rule(plan=kinds, nth=st.integers(1, 4), in_flight=st.integers(1, 2))
    def cancelled(self, plan: list[str], nth: int, in_flight: int) -> None:
        """The task is cancelled inside one of its own events, and so at the await that follows it."""
        self.stock()
        self.run(plan, self.cancelling(nth, in_flight))

    @rule(plan=kinds, nth=st.integers(1, 3))
    def cancelled_by_the_harness(self, plan: list[str], nth: int) -> None:
        """The task is cancelled while an upload is under way."""
        self.stock()
        task: list[asyncio.Task[Any]] = []
        loop: list[asyncio.AbstractEventLoop] = []

        async def flush() -> None:
            loop.append(asyncio.get_running_loop())
            task.append(asyncio.ensure_future(self.flushing()))
            await asyncio.wait(task)
            if not task[0].cancelled():
                task[0].result()

        self.run(plan, flush(), at=(nth, lambda: loop[0].call_soon_threadsafe(task[0].cancel)))

    @rule(plan=kinds, nth=st.integers(1, 3))
    def stopped(self, plan: list[str], nth: int) -> None:
        """Asked to stop, as Ctrl-C asks."""
        self.stock()

        async def flush() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            strikes.append(lambda: loop.call_soon_threadsafe(stop.set))
            await self.flushing(stop=stop)

        strikes: list[Callable[[], object]] = []
        self.run(plan, flush(), at=(nth, lambda: [strike() for strike in strikes]))

    @rule(plan=kinds, event=st.integers(1, 8), quarantine=st.booleans())
    def crash_at_event(self, plan: list[str], event: int, quarantine: bool) -> None:
        self.crash(plan, event=event, quarantine=quarantine)

    @rule(plan=kinds, audit=st.integers(1, 120), quarantine=st.booleans())
    def crash_anywhere(self, plan: list[str], audit: int, quarantine: bool) -> None:
        self.crash(plan, audit=audit, quarantine=quarantine)

    # -- quarantine

    @rule()
    def retry_quarantine(self) -> None:
        names = self.in_quarantine()
        done, failed = set_asides.put_back(self.spool, names)
        assert (done, failed) == (len(names), [])

    @rule()
    def clear_quarantine(self) -> None:
        names = self.in_quarantine()
        with self.watch.allowed():
            done, failed = set_asides.remove(self.spool, names)
        assert (done, failed) == (len(names), [])
        self.cleared.update(names)

    # -- what must hold

    @invariant()
    def everything_is_accounted_for(self) -> None:
        places = {"disk": self.spool, "quarantine": quarantine_path(self.spool)}
        for name, content in self.written.items():
            where = {place for place, folder in places.items() if (data := read(folder / name)) is not None
                     and self.same(name, data, content)}  # fmt: skip
            assert len(where) <= 1, f"{name} is twice on disk"
            if where:
                assert name not in self.evicted | self.cleared, f"{name} rose from the dead"
                continue
            if name in self.evicted or name in self.cleared:
                continue
            assert self.vault.knows(batch_id(name), content), f"{name} is lost"

    def same(self, name: str, data: bytes, content: str) -> bool:
        assert digest(data) == content, f"{name} was changed"
        return True

    def teardown(self) -> None:
        """The faults stop: what was set aside goes back, and one flush empties the spool."""
        try:
            if self.in_quarantine():
                self.retry_quarantine()
            others = self.strangers()
            result = self.run_flush([])
            assert result is not None
            assert (result.exit_code, self.on_disk()) == (0, [])
            self.everything_is_accounted_for()
            assert self.strangers() == others, "somebody else's files"
            self._watching.close()
        finally:
            self._watching.pop_all()
            shutil.rmtree(self.root)

    # -- how

    @contextmanager
    def lying_locks(self) -> Iterator[None]:
        """Every lock call of this process succeeds, as between two nodes of some network file systems."""
        with patch("fcntl.flock", lambda *_: None):
            yield

    def leave_record(self, age_s: float) -> None:
        """The record of a process of another machine, last renewed ``age_s`` seconds ago by the file system's time."""
        record = self.spool / RECORD_NAME
        owner = this_process()._replace(host="elsewhere", boot="another")
        record.write_bytes(owner.to_json())
        self.age_record(age_s)

    def age_record(self, age_s: float) -> None:
        record = self.spool / RECORD_NAME
        status = record.stat()
        os.utime(record, ns=(status.st_atime_ns, status.st_mtime_ns - round(age_s * 1e9)))

    def stock(self) -> None:
        """See to it that there is something to flush.

        Not a precondition of the rules: how races come out is not Hypothesis's to repeat, so it must not decide what
        is drawn next.
        """
        if not self.on_disk():
            self.write(2)

    def on_disk(self) -> list[str]:
        """The batches in the spool, oldest first: the names of this test are padded."""
        names = os.listdir(self.spool)
        return sorted(name for name in names if name in self.written)

    def strangers(self) -> set[str]:
        """What else is in the spool, but for the lock and the records, which a crash may leave."""
        others = set(os.listdir(self.spool)) - set(self.on_disk())
        return {name for name in others if not name.startswith((LOCK_NAME, RECORD_NAME))}

    def in_quarantine(self) -> list[str]:
        folder = quarantine_path(self.spool)
        return sorted(name for name in os.listdir(folder) if name in self.written) if folder.exists() else []

    def run_flush(self, plan: list[str], **options: Any) -> FlushResult | None:
        results: list[FlushResult | None] = []

        async def flush() -> None:
            results.append(await self.flushing(**options))

        self.run(plan, flush())
        return results[0]

    async def flushing(self, **options: Any) -> FlushResult | None:
        """A flush; what it ends in, also when that is one of its documented errors."""
        options = {"verify": False, "retries": 0, **options}
        try:
            return await flush_spool(
                self.spool,
                api_url=self.vault.url,
                token="sk-test",
                config_path=self.root / "none.json",
                **options,
            )
        except SpoolBusyError:
            return None
        except AuthError as error:
            return error.result
        except CirronSpoolError as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error

    async def cancelling(self, nth: int, in_flight: int) -> None:
        left = nth
        task: asyncio.Task[Any] | None = None

        def on_event(_: object) -> None:
            nonlocal left
            left -= 1
            if left == 0 and task is not None:
                task.cancel()

        task = asyncio.ensure_future(self.flushing(on_event=on_event, in_flight=in_flight))
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    def run(self, plan: list[str], *flushes: Any, at: tuple[int, Callable[[], object]] | None = None) -> None:
        """Run coroutines to their end against a server that follows ``plan``; at upload number n, call something."""
        self.follow(plan, at)

        async def together() -> None:
            async with asyncio.timeout(SAFETY_NET_S):
                await asyncio.gather(*flushes)

        # Waits between attempts are the schedule's own business, and tested there.
        with patch.multiple("cirron_spool.protocol.retry", FIRST_DELAY_S=0.001, SHORTEST_PAUSE_S=0.001):
            asyncio.run(together())
        self.vault.quiet()  # what a cancelled flush had sent may come late, and belongs to it
        self.world.flushes += len(flushes)
        self.vault.plan = None

    def follow(self, plan: list[str], at: tuple[int, Callable[[], object]] | None = None) -> None:
        answers, number, lock = iter(plan), 0, threading.Lock()

        def next_answer(_: Request) -> Answer:
            nonlocal number
            with lock:
                number += 1
                struck = at is not None and number == at[0]
                kind = next(answers, "ok")
            if struck and at is not None:
                at[1]()
            return answer(kind)

        self.vault.arrived_order.clear()
        self.vault.acknowledged_order.clear()
        self.vault.plan = next_answer

    def crash(self, plan: list[str], *, quarantine: bool, **when: int) -> None:
        """A flush in a process of its own, which SIGKILL ends."""
        self.stock()
        self.follow(plan)
        outcome = self.world.zygote.flush(self.spool, self.vault.url, quarantine=quarantine, **when)  # type: ignore[arg-type]
        assert outcome.killed or outcome.code in (0, 1, 3, 4), outcome
        self.vault.quiet()
        self.vault.plan = None
        self.world.flushes += 1
        self.world.crashes += outcome.killed

    def in_order(self, began: list[str]) -> None:
        """A strict flush sends oldest first, and nothing behind a batch that it could not deliver."""
        names = {batch_id(name): name for name in began}
        sent = [names[key] for key in self.vault.arrived_order]
        assert sent == sorted(sent), f"not oldest first: {sent}"
        first_left = next(iter(self.on_disk()), None)
        assert first_left is None or not sent or sent[-1] <= first_left, f"sent behind {first_left}: {sent}"

    def counts(self, result: FlushResult | None, began: list[str]) -> None:
        assert result is not None
        left, aside = set(self.on_disk()) & set(began), set(self.in_quarantine()) & set(began)
        assert result.uploaded == len(began) - len(left) - len(aside)
        assert result.quarantined == len(aside)
        assert result.failed + result.skipped == len(left)
        assert result.evicted == 0
        assert (result.exit_code == 0) == (not left and not aside)


def machine(world: World) -> type[Spool]:
    """A state machine in ``world``."""
    return type("Spool", (Spool,), {"world": world})


def run(folder: Path, examples: int, *, steps: int = 12, shrink: bool = True) -> World:
    """Try so many sequences of up to ``steps`` steps. Raises what the shortest failing one raises."""
    world = World(folder)
    try:
        gc.collect()
        run_state_machine_as_test(
            machine(world),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                print_blob=True,
                report_multiple_bugs=False,
                phases=[phase for phase in Phase if shrink or phase is Phase.generate],
            ),
        )
    finally:
        world.close()
    return world


def main() -> int:
    """Run as the command line says."""
    options = arguments(__doc__, examples=500, steps=12)
    with scratch(options.directory) as folder:
        world = run(folder, options.examples, steps=options.steps)
    print(
        f"{world.examples} examples: {world.batches} batches, {world.flushes} flushes, {world.crashes} of them killed; "
        "written = acknowledged + on disk + quarantined + evicted + cleared, always"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
