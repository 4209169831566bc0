"""The awaiting task is cancelled at every await of a flush: nothing is lost, nothing is left behind.

A flush is run once to count its suspensions, those of its helper tasks included; then once for each of them, cancelled
exactly there. What must hold each time: the batches on disk are unchanged and the newest ones; whatever is gone was
acknowledged (a monitor watches every delete); the lock is free; no thread and no descriptor is left; and a second flush
delivers the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest

from cirron_spool import (
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Quarantined,
    Retrying,
    Sending,
    Started,
    Uploaded,
    Warned,
    flush_spool,
)
from cirron_spool.concurrency.shield import complete
from cirron_spool.spool.directory import SpoolDirectory
from support import ledger
from support.answers import Answer, Gate, ok
from support.background import SAFETY_NET
from support.monitor import watch_deletes
from support.raw import call
from support.scripted import AnswerLike, Request, ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot, write_batch

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("short_delays")

BATCHES = 6


class Steps:
    """Counts the suspensions of the tasks that a loop makes, and calls `act` in the one with number `at`."""

    def __init__(self, at: int | None, act: Callable[[], object]) -> None:
        self.count = 0
        self._at = at
        self._act = act

    def factory(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, T] | Generator[Any, Any, T],
        **more: Any,
    ) -> asyncio.Task[T]:
        assert isinstance(work, Coroutine)
        return asyncio.Task(_Counted(work, self.suspended), loop=loop, **more)

    def suspended(self) -> None:
        self.count += 1
        if self.count == self._at:
            self._act()


class _Counted(Coroutine[Any, Any, T]):
    """`work`, that says so each time before the loop hears what it waits for."""

    def __init__(self, work: Coroutine[Any, Any, T], suspended: Callable[[], None]) -> None:
        self._work = work
        self._suspended = suspended

    def send(self, value: Any) -> Any:
        waits_for = self._work.send(value)
        self._suspended()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._work.throw(*error)
        self._suspended()
        return waits_for

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._work.__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._work, name)  # the state of the coroutine, for those who ask for it


@dataclass
class Trial:
    """One flush that was cancelled, or not."""

    steps: int
    fired: bool = False
    cancelled: bool = False
    result: FlushResult | None = None


def run_cancelled(spool: Path, at: int | None, *, way: str, **options: Any) -> Trial:
    """Flush in a loop of its own, cancelled at suspension `at`: the task itself, or a scope around it."""
    trial = Trial(0)
    target: list[asyncio.Task[FlushResult]] = []
    scopes: list[anyio.CancelScope] = []

    def fire() -> None:
        if way == "scope":
            trial.fired = not target[0].done()
            scopes[0].cancel()
        else:
            trial.fired = target[0].cancel()

    steps = Steps(at, fire)

    async def scoped() -> FlushResult:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            return await flush_spool(spool, **options)
        raise asyncio.CancelledError  # as the task sees it that is cancelled itself

    before = set(threading.enumerate())

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(steps.factory)
        target.append(asyncio.create_task(scoped() if way == "scope" else flush_spool(spool, **options)))
        try:
            trial.result = await target[0]
        except asyncio.CancelledError:
            trial.cancelled = True
        for thread in set(threading.enumerate()) - before:
            if thread.name.startswith("cirron-spool"):
                thread.join(SAFETY_NET)  # it has said that it is done, and may still be on its way out
                assert not thread.is_alive(), f"left running: {thread.name}"
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert others == [], f"left pending: {others}"

    asyncio.run(main())
    trial.steps = steps.count
    return trial


def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # the listing's own
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@dataclass(frozen=True)
class Scenario:
    """What a flush of `BATCHES` meets."""

    answers: Sequence[AnswerLike] = ()
    options: tuple[tuple[str, object], ...] = ()
    log_in: bool = False  # an access token that the platform refuses, and a refresh token
    held_bytes: int | None = None  # larger bodies than this are streamed
    may_repeat: int = 1  # batches acknowledged, and still in the spool when the cancellation has ended
    aside: int = 0


SCENARIOS = {
    "plain": Scenario(),
    "retried": Scenario([ok(), Answer(503), ok(cut_after=20), ok()]),
    "refreshed": Scenario([ok(), Answer(401), ok()], log_in=True),
    "window": Scenario(options=(("in_flight", 3),), may_repeat=3),
    "streamed": Scenario(held_bytes=1, options=(("verify", False),)),
    "set aside": Scenario([ok(), Answer(400), ok()], options=(("quarantine", True),), aside=1),
}


def trial_at(
    at: int | None, scenario: Scenario, tmp_path: Path, way: str, patch: pytest.MonkeyPatch
) -> Trial:
    """One flush, cancelled or not, and everything that must hold after it."""
    spool = tmp_path / f"{at}" / "spool"
    if scenario.held_bytes is None:
        batches = sdk_batches(spool, BATCHES, spans=(0, 30), seed=at or 0)
    else:
        for number in range(BATCHES):
            write_batch(spool, number, f"{number:02x}", random.Random(number).randbytes(300_000))
        batches = snapshot(spool)
    config = tmp_path / f"{at}" / "config.json"
    token: str | None = "access-0"
    if scenario.log_in:
        token = None
        auth = {"accessToken": "access-0", "refreshToken": "refresh-0", "expiresAt": "2020-01-01T00:00:00Z"}
        config.write_text(json.dumps({"auth": auth}))
        config.chmod(0o600)
    if scenario.held_bytes is not None:
        # Sixty megabytes a batch would only be read; what is streamed is not held, whatever its size.
        patch.setattr("cirron_spool.pipeline.batch_reader.HELD_BYTES", scenario.held_bytes)
    ledger.forget()
    threads = set(threading.enumerate())
    before = descriptors()
    with watch_deletes() as watch:
        with ScriptedServer(*scenario.answers) as server:
            common = {"api_url": server.url, "token": token, "config_path": config}
            trial = run_cancelled(spool, at, way=way, **common, **dict(scenario.options))
            # Connections are accepted in order: now it knows, and will close, every one that was cancelled early.
            call(server, "GET", "/elsewhere")
        for thread in set(threading.enumerate()) - threads:  # the loop's pool has been told to end
            thread.join(SAFETY_NET)
            assert not thread.is_alive(), f"{thread.name} does not end"
        assert descriptors() == before
        if scenario.held_bytes is not None:
            assert all(request.chunked for request in server.uploads)
        check(trial, way, scenario, batches, server, spool)
        if not scenario.log_in:
            finish(batches, server, spool, config)
    assert [deletion.how for deletion in watch.deletions].count("overwrite") == 0
    return trial


def check(
    trial: Trial, way: str, scenario: Scenario, batches: list[Sealed], server: ScriptedServer, spool: Path
) -> None:
    if way == "task":  # a scope may be left before anybody waits again
        assert trial.cancelled is trial.fired, "the cancellation was lost"
    left = snapshot(spool)
    aside = snapshot(spool.parent / "quarantine")
    assert len(aside) <= scenario.aside
    assert left == batches[len(batches) - len(left) :], "not the newest ones, unchanged"
    gone = batches[: len(batches) - len(left)]
    for batch in gone:
        assert batch in aside or server.delivered[batch.batch_id] == batch.data
    assert len([batch for batch in left if batch.batch_id in server.delivered]) <= scenario.may_repeat
    assert sorted(os.listdir(spool)) == sorted(batch.name for batch in left), (
        "the lock, or something else, is left"
    )
    if trial.result is not None:
        assert (trial.result.uploaded, trial.result.quarantined) == (BATCHES - len(aside), len(aside))


def finish(batches: list[Sealed], first: ScriptedServer, spool: Path, config: Path) -> None:
    """A second flush takes the lock and delivers the rest."""
    aside = snapshot(spool.parent / "quarantine")
    rest = snapshot(spool)
    with ScriptedServer() as server:
        result = asyncio.run(flush_spool(spool, api_url=server.url, token="access-0", config_path=config))
    assert (result.uploaded, result.exit_code) == (len(rest), 0)
    everything = {**first.delivered, **server.delivered, **{batch.batch_id: batch.data for batch in aside}}
    assert everything == {batch.batch_id: batch.data for batch in batches}
    assert snapshot(spool) == []


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "way"), [*((name, "task") for name in SCENARIOS), ("plain", "scope"), ("window", "scope")]
)
def test_cancelled_at_every_await(
    name: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trial_at(None, SCENARIOS[name], tmp_path, way, monkeypatch)
    assert whole.result is not None
    failed: list[str] = []
    at = missed = 0
    # How often a thread is waited for differs from run to run: the end is where three runs were over before.
    while missed < 3:
        at += 1
        try:
            missed = 0 if trial_at(at, SCENARIOS[name], tmp_path, way, monkeypatch).fired else missed + 1
        except AssertionError as error:
            failed.append(f"at suspension {at}: {error}")
    assert failed == []
    assert at > 20


# -- cancelled where something is slow -------------------------------------------------------------------------------


class Held:
    """A blocking method that waits, in its thread, until it is released."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.entered, self.released, self.left = threading.Event(), threading.Event(), threading.Event()
        real = getattr(owner, name)

        def held(*args: Any, **more: Any) -> Any:
            self.entered.set()
            assert self.released.wait(SAFETY_NET)
            try:
                return real(*args, **more)
            finally:
                self.left.set()

        patch.setattr(owner, name, held)

    @staticmethod
    async def seen(event: threading.Event) -> None:
        assert await asyncio.to_thread(event.wait, SAFETY_NET)


async def settle() -> None:
    """Let the loop do what it has to do, many times over."""
    for _ in range(100):
        await asyncio.sleep(0)


async def cancel_meanwhile(task: asyncio.Task[Any], held: Held) -> None:
    """Cancel `task` while a thread is in `held`, which goes on then, and wait for its end."""
    await held.seen(held.entered)
    task.cancel()
    await settle()
    held.released.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    "method",
    [
        "open",
        "has_batches",
        "check_writable",
        "lock",
        "listing",
        "size_of",
        "open_batch",
        "delete",
        "unlock",
    ],
)
def test_cancelled_while_a_thread_is_slow(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(tmp_path, 2, spans=TINY)
    before = descriptors()
    with watch_deletes():
        with ScriptedServer() as server:

            async def main() -> None:
                held = Held(monkeypatch, SpoolDirectory, method)
                task = asyncio.create_task(
                    flush_spool(tmp_path, api_url=server.url, token="t", on_event=lambda _: None)
                )
                await cancel_meanwhile(task, held)
                await held.seen(held.left)

            asyncio.run(main())
            call(server, "GET", "/elsewhere")  # as above
        assert descriptors() == before
        left = snapshot(tmp_path)
        assert sorted(os.listdir(tmp_path)) == [batch.name for batch in left]
        assert left == {"delete": batches[1:], "unlock": []}.get(method, batches)
        monkeypatch.undo()
        finish(batches, server, tmp_path, tmp_path.parent / "none.json")


def test_a_flush_that_is_given_up_before_it_begins_lists_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(tmp_path, 2, spans=TINY)
    listings: list[SpoolDirectory] = []

    def listing(spool: SpoolDirectory) -> None:
        listings.append(spool)

    monkeypatch.setattr(SpoolDirectory, "listing", listing)
    with ScriptedServer() as server:

        async def main() -> None:
            held = Held(monkeypatch, SpoolDirectory, "has_batches")
            task = asyncio.create_task(flush_spool(tmp_path, api_url=server.url, token="t"))
            await cancel_meanwhile(task, held)

        asyncio.run(main())
    assert (listings, server.requests) == ([], [])
    assert snapshot(tmp_path) == batches


@pytest.mark.parametrize("times", [1, 5])
def test_a_delete_that_follows_an_acknowledgement_completes(
    times: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = sdk_batches(tmp_path, 3, spans=TINY)
    deleted: list[bool] = []
    with watch_deletes() as watch, ScriptedServer() as server:

        async def main() -> None:
            held = Held(monkeypatch, SpoolDirectory, "delete")
            task = asyncio.create_task(flush_spool(tmp_path, api_url=server.url, token="t"))
            await held.seen(held.entered)
            for _ in range(times):
                task.cancel()
                await settle()
                assert not task.done(), "it did not wait for the delete"
            held.released.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            deleted.append(batches[0] not in snapshot(tmp_path))

        asyncio.run(main())
    assert deleted == [True]
    assert watch.names == [batches[0].name]
    assert snapshot(tmp_path) == batches[1:]


def test_waiting_for_the_deletes_does_not_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_batches(tmp_path, 1, spans=TINY)
    steps = Steps(None, lambda: None)
    with watch_deletes(), ScriptedServer() as server:

        async def main() -> None:
            held = Held(monkeypatch, SpoolDirectory, "delete")
            asyncio.get_running_loop().set_task_factory(steps.factory)
            task = asyncio.create_task(flush_spool(tmp_path, api_url=server.url, token="t"))
            await held.seen(held.entered)
            await settle()
            steps.count = 0
            await settle()
            held.released.set()
            await task

        asyncio.run(main())
    # In those hundred turns of the loop nothing happened: nobody had anything to wake up for.
    assert steps.count < 50


@pytest.mark.parametrize("kind", [Started, Sending, Retrying, Uploaded, Quarantined, Warned, Failed, Ended])
def test_cancelled_at_each_event(kind: type[FlushEvent], tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    batches = sdk_batches(spool, 4, spans=TINY)
    write_batch(spool, batches[1].created_ns + 1, "0e", b"")  # for a warning
    heard: list[FlushEvent] = []
    with watch_deletes(), ScriptedServer(ok(), Answer(503), ok(), Answer(400), Answer(404)) as server:

        async def main() -> None:
            def hear(event: FlushEvent) -> None:
                heard.append(event)
                if isinstance(event, kind):
                    task.cancel()

            task = asyncio.create_task(
                flush_spool(spool, api_url=server.url, token="t", on_event=hear, quarantine=True)
            )
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
    assert kind in map(type, heard)
    ended = heard[-1]
    assert isinstance(ended, Ended)
    left = {batch.name for batch in snapshot(spool) if batch.data}
    uploaded = {event.name for event in heard if isinstance(event, Uploaded)}
    aside = {batch.name for batch in snapshot(tmp_path / "quarantine")}
    assert ended.result.uploaded == len(uploaded)
    assert len(left) + len(uploaded) + len(aside) == 4
    assert left | uploaded | aside == {batch.name for batch in batches}


@pytest.mark.parametrize("in_flight", [1, 3])
def test_cancelled_while_answers_are_withheld(in_flight: int, tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path, 5, spans=TINY)
    gate = Gate()
    events: list[FlushEvent] = []
    acknowledged = asyncio.Event()

    def answer(request: Request) -> Answer:
        # By the batch, since several in flight arrive in any order.
        return ok() if request.batch_id == batches[0].batch_id else ok(stall_before=gate)

    def hear(event: FlushEvent) -> None:
        events.append(event)
        if isinstance(event, Uploaded):
            acknowledged.set()

    with (
        watch_deletes() as watch,
        ScriptedServer(*[answer] * 8) as server,
    ):

        async def main() -> None:
            task = asyncio.create_task(
                flush_spool(tmp_path, api_url=server.url, token="t", in_flight=in_flight, on_event=hear)
            )
            await server.arrived(1 + in_flight)
            await acknowledged.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.open()

        asyncio.run(main())
    assert snapshot(tmp_path) == batches[1:]
    assert watch.names == [batches[0].name]
    ended = events[-1]
    assert isinstance(ended, Ended)
    assert (ended.result.uploaded, ended.result.skipped, ended.result.failed) == (1, 4, 0)


def test_timeouts_and_groups_of_the_caller(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path, 2, spans=TINY)
    with watch_deletes(), ScriptedServer(*[ok(hang=True)] * 3) as server:

        async def flush() -> FlushResult:
            return await flush_spool(tmp_path, api_url=server.url, token="t")

        async def main() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(None) as limit:
                    group = asyncio.create_task(server.arrived(1))
                    group.add_done_callback(lambda _: limit.reschedule(0))
                    await flush()
            with anyio.CancelScope() as scope:
                group = asyncio.create_task(server.arrived(2))
                group.add_done_callback(lambda _: scope.cancel())
                await flush()
            assert scope.cancelled_caught
            task = asyncio.create_task(flush())
            await server.arrived(3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            # This task goes on as if nothing had been: no cancellation is left over in it.
            mine = asyncio.current_task()
            assert mine is not None
            assert mine.cancelling() == 0
            assert (await flush()).uploaded == 2

        asyncio.run(main())
    first = batches[0].batch_id
    assert [request.batch_id for request in server.uploads] == [
        first,
        first,
        first,
        first,
        batches[1].batch_id,
    ]


def test_complete_waits_whatever_happens() -> None:
    async def main() -> None:
        release = asyncio.Event()
        done: list[str] = []

        async def work() -> None:
            await release.wait()
            done.append("done")

        task = asyncio.create_task(complete(work()))
        for _ in range(3):
            await settle()
            task.cancel()
        await settle()
        assert not task.done()
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["done"]
        await complete(work())
        assert done == ["done", "done"]

        async def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await complete(fail())

    asyncio.run(main())


# -- processes and loops ---------------------------------------------------------------------------------------------


def run_script(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Forking beside threads is what these scripts are about: Python's warning of it is not for them."""
    return subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script, *args],
        capture_output=True,
        text=True,
        timeout=SAFETY_NET,
        check=False,
    )


# The program of another process that flushes the same spool.
_ANOTHER = """
import asyncio, sys
from cirron_spool import SpoolBusyError, flush_spool
try:
    asyncio.run(flush_spool(sys.argv[1], api_url=sys.argv[2], token="t"))
except SpoolBusyError:
    sys.exit(4)
"""

_FORKED = (
    f"own = {_ANOTHER!r}\n"
    """
import asyncio, os, subprocess, sys
from cirron_spool import Sending, flush_spool

spool, url = sys.argv[1:]
forked = []

def hear(event):
    if isinstance(event, Sending) and not forked:
        forked.append(True)
        child = os.fork()
        if child:
            print("child ended with", os.waitpid(child, 0)[1], flush=True)
            print("another:", subprocess.run([sys.executable, "-c", own, spool, url]).returncode, flush=True)

async def main():
    # The child shares the parent's epoll and takes the parent's connection out of it when it closes its own copy: the
    # parent hears no more of that one, and goes on after the silence limit.
    try:
        return await flush_spool(spool, api_url=url, token="t", on_event=hear, timeout_ms=500)
    except RuntimeError as error:
        print("error:", error, flush=True)
        os._exit(0)

result = asyncio.run(main())
print("uploaded", result.uploaded, flush=True)
"""
)


@pytest.mark.thorough
def test_a_forked_childs_use_of_the_flush_raises(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path, 3, spans=TINY)
    with watch_deletes(), ScriptedServer() as server:
        done = run_script(_FORKED, str(tmp_path), server.url)
    said = done.stdout.splitlines()
    assert said[0].startswith("error: "), done
    # What the child undid was its own: the parent's lock still holds.
    assert said[1:] == ["child ended with 0", "another: 4", "uploaded 3"], done
    assert server.delivered == {batch.batch_id: batch.data for batch in batches}
    assert os.listdir(tmp_path) == []


_CHILDS_OWN = (
    f"own = {_ANOTHER!r}\n"
    """
import asyncio, os, sys
from cirron_spool import Sending, flush_spool

spool, url = sys.argv[1:]
forked = []

def hear(event):
    if isinstance(event, Sending) and not forked:
        forked.append(True)
        child = os.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-c", own, spool, url])
        print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

print("uploaded", asyncio.run(flush_spool(spool, api_url=url, token="t", on_event=hear)).uploaded, flush=True)
"""
)


def test_a_childs_own_flush_finds_the_spool_busy(tmp_path: Path) -> None:
    sdk_batches(tmp_path, 3, spans=TINY)
    with ScriptedServer() as server:
        done = run_script(_CHILDS_OWN, str(tmp_path), server.url)
    assert done.stdout == "child 4\nuploaded 3\n", done
    assert len(server.uploads) == 3


_CLOSED_LOOP = """
import asyncio, os, sys
from cirron_spool import Sending, flush_spool

spool, url = sys.argv[1:]
loop = asyncio.new_event_loop()
sent = loop.create_future()

def hear(event):
    if isinstance(event, Sending):
        loop.call_soon(sent.set_result, None)

task = loop.create_task(flush_spool(spool, api_url=url, token="t", on_event=hear))
loop.run_until_complete(sent)
loop.close()
try:
    loop.run_until_complete(task)
except RuntimeError as error:
    print(error, flush=True)
os._exit(0)
"""


def test_a_closed_loop_raises_and_keeps(tmp_path: Path) -> None:
    batches = sdk_batches(tmp_path, 3, spans=TINY)
    with ScriptedServer(ok(hang=True)) as server:
        done = run_script(_CLOSED_LOOP, str(tmp_path), server.url)
        assert done.stdout == "Event loop is closed\n", done
        assert snapshot(tmp_path) == batches
        finish(batches, server, tmp_path, tmp_path.parent / "none.json")
