"""How far a flush is: within a batch, from event to event, on a terminal and in a log."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cirron_spool import (
    Ended,
    Failed,
    FlushEvent,
    FlushResult,
    Progress,
    Quarantined,
    Retrying,
    Sending,
    Started,
    Uploaded,
    flush_spool,
)
from cirron_spool.cli import views
from cirron_spool.cli.arguments.build import parse
from cirron_spool.cli.console import Console
from cirron_spool.cli.flush import _choose_view
from cirron_spool.cli.main import cirron_spool
from cirron_spool.cli.views import FlushView, JsonEvents, Lines, Log
from cirron_spool.display.meter import Meter
from support.answers import Answer, Gate, ok
from support.cli import spawn, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, write_batch
from support.terminal import Exchange, run_cli_pty

TOKEN = "sk-1"
# Not to be compressed. What is above 8 MiB is read and compressed while it is sent, and its length is not known.
HELD, STREAMED = 6_000_000, 12_000_000
HERE = Path("/spool")
A, B = "1-0a.json", "2-0b.json"


def slow(spool: Path, size: int) -> str:
    """A batch of `size` bytes in the spool; its name."""
    return write_batch(spool, 1, "ab", os.urandom(size)).name


# -- the event -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("size", [HELD, STREAMED])
async def test_a_listener_hears_of_the_bytes_within_a_batch(spool: Path, size: int) -> None:
    name = slow(spool, size)
    gate = Gate()
    heard: list[Progress] = []
    events: list[FlushEvent] = []

    def listen(event: FlushEvent) -> None:
        events.append(event)
        if isinstance(event, Progress):
            heard.append(event)
            gate.open()

    # The server reads a third and waits for the first word of it.
    with ScriptedServer(ok(read_only=size // 3, stall_before=gate), ok(), receive_buffer=65536) as server:
        result = await flush_spool(spool, api_url=server.url, token=TOKEN, on_event=listen)
    assert result.uploaded == 1
    assert {(event.name, event.total) for event in heard} == {(name, size)}
    assert 0 < heard[0].sent < size * 0.9
    assert all(0 <= event.sent <= size for event in heard)
    assert [event for event in events if not isinstance(event, Progress)][-1:] == [Ended(result)]


@pytest.mark.anyio
async def test_a_listener_that_raises_keeps_the_watch_going(spool: Path) -> None:
    slow(spool, HELD)
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def listen(event: FlushEvent) -> None:
        if isinstance(event, Progress):
            raise RuntimeError("mine")  # noqa: TRY004

    with ScriptedServer(Answer(read_only=HELD // 3, hang=True), receive_buffer=65536) as server:
        result = await flush_spool(
            spool, api_url=server.url, token=TOKEN, on_event=listen, timeout_ms=1000, retries=0
        )
    assert [failure.message.partition(": ")[2] for failure in result.failures] == ["timed out after 1000ms"]
    assert {str(context["exception"]) for context in told} == {"mine"}


# -- the figures ---------------------------------------------------------------------------------------------------


def meter(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Meter]:
    monkeypatch.setattr("cirron_spool.display.meter.time.monotonic", lambda: clock[0])
    made = Meter()

    def after(seconds: float, *events: FlushEvent) -> Meter:
        clock[0] += seconds
        for event in events:
            made.note(event)
        return made

    return after


def test_bytes_rate_and_time_left_move_within_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    after = meter([100.0], monkeypatch)
    after(0, Started(HERE, 2, 4 << 20), Sending(A, 3 << 20))
    assert after(0).parts() == ["0/2 batches", "0 B / 4.00 MB"]
    assert after(1, Progress(A, 1 << 20, 3 << 20)).parts() == [
        "0/2 batches",
        "1.00 MB / 4.00 MB",
        "1.00 MB/s",
        "0:03 left",
    ]
    assert after(1, Progress(A, 2 << 20, 3 << 20)).done == 2 << 20
    assert after(1, Uploaded(A, 3 << 20, 3 << 20)).parts() == [
        "1/2 batches",
        "3.00 MB / 4.00 MB",
        "1.00 MB/s",
        "0:01 left",
    ]
    after(0, Sending(B, 1 << 20))
    assert after(1, Progress(B, 1 << 20, 1 << 20)).parts()[1] == "4.00 MB / 4.00 MB"
    assert after(0, Uploaded(B, 1 << 20, 1 << 20)).done == 4 << 20


def test_a_retry_starts_again_from_nothing_and_the_link_is_not_slower_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 1, 10 << 20), Sending(A, 10 << 20))
    after(2, Progress(A, 4 << 20, 10 << 20))
    assert after(0).parts()[1:] == ["4.00 MB / 10.00 MB", "2.00 MB/s", "0:03 left"]
    waiting = after(0, Retrying(A, 503, f"Upload of {A} failed: HTTP 503 Busy", 2.0, 2, "HTTP 503 Busy"))
    assert waiting.waits
    assert waiting.parts()[1:] == ["0 B / 10.00 MB", "2.00 MB/s", "0:05 left"]
    assert waiting.now() == f"retry in 2 s (attempt 2): HTTP 503 Busy  {A}"
    assert after(2).parts()[1:] == ["0 B / 10.00 MB", "2.00 MB/s", "0:05 left"]
    going = after(1, Progress(A, 2 << 20, 10 << 20))
    assert not going.waits
    assert going.now() == f"attempt 2  {A}"
    assert going.parts()[1:] == ["2.00 MB / 10.00 MB", "2.00 MB/s", "0:04 left"]
    failed = after(0, Failed(A, 503, "no"))
    assert failed.done == 0


def test_several_in_flight_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 2, 200), Sending(A, 100), Sending(B, 100))
    assert after(1, Progress(A, 40, 100), Progress(B, 70, 100)).done == 110
    assert after(0, Retrying(B, None, "cut", 1.0, 2)).done == 40
    assert after(0, Progress(A, 90, 100)).waits  # the other one still waits
    assert after(0, Uploaded(A, 100, 100)).done == 100
    assert after(0).waits  # another batch's end does not end the wait


def test_a_late_end_of_one_batch_leaves_the_wait_of_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is deleted beside the next request, so its Uploaded may follow the next batch's Retrying."""
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 2, 200), Sending(A, 100), Sending(B, 100))
    after(0, Retrying(B, 503, f"Upload of {B} failed: HTTP 503 Busy", 4.0, 2, "HTTP 503 Busy"))
    waiting = after(1, Uploaded(A, 100, 100))
    assert waiting.now() == f"retry in 3 s (attempt 2): HTTP 503 Busy  {B}"
    assert not after(1, Uploaded(B, 100, 100)).waits


def test_a_platform_that_says_nothing_is_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 2, 200))
    assert after(2).now() == ""
    assert after(3).now() == "waiting for the platform or the disk for 5 s"
    sending = after(0, Sending(A, 100))
    assert (sending.now(), sending.waits) == (A, False)
    after(1, Progress(A, 60, 100))
    # The same figure again is no movement.
    silent = after(4, Progress(A, 60, 100))
    assert (silent.now(), silent.waits) == (f"waiting for the platform for 4 s  {A}", True)
    assert after(0, Uploaded(A, 100, 100)).waits is False


def test_the_wait_for_a_retry_and_a_suspension_are_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 1, 100), Sending(A, 100))
    after(0, Retrying(A, 503, f"Upload of {A} failed: HTTP 503 Busy", 8.0, 2, "HTTP 503 Busy"))
    assert after(7).now() == f"retry in 1 s (attempt 2): HTTP 503 Busy  {A}"
    assert after(3).now() == f"attempt 2  {A}"
    assert after(2).now() == f"waiting for the platform for 4 s  attempt 2  {A}"
    after(100).leave_out(100)
    assert after(2).now() == f"attempt 2  {A}"
    assert after(1).now() == f"waiting for the platform for 3 s  attempt 2  {A}"


def test_the_time_left_leaves_out_what_will_not_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    after = meter([0.0], monkeypatch)
    after(0, Started(HERE, 3, 30 << 20), Sending(A, 10 << 20))
    after(10, Progress(A, 10 << 20, 10 << 20), Uploaded(A, 10 << 20, 10 << 20))
    assert after(0).parts()[-1] == "0:20 left"
    assert after(0, Sending(B, 10 << 20), Failed(B, 503, "no")).parts()[-1] == "0:10 left"
    assert after(0, Sending("3-0c.json", 10 << 20)).left == 10 << 20
    assert after(0, Quarantined("3-0c.json", 400, "no", HERE)).parts()[-1] == "0:00 left"


# -- the bar -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("size", [HELD, STREAMED])
def test_the_bar_moves_within_a_batch(tmp_path: Path, size: int) -> None:
    slow(tmp_path / ".cirron/spool", size)
    gate = Gate()
    whole = f"{size / (1 << 20):.2f} MB"
    # The gate opens only once some, and not all, of the bytes were shown.
    seen: list[Exchange] = [(f" MB / {whole}  ", lambda _: gate.open())]
    with ScriptedServer(ok(read_only=size // 3, stall_before=gate), receive_buffer=65536) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        done = run_cli_pty("flush", home=tmp_path, cwd=tmp_path, columns=200, answers=seen)
        assert len(server.delivered) == 1
    assert done.returncode == 0
    shown = {float(found) for found in re.findall(rf"([\d.]+) MB / {re.escape(whole)}", done.text)}
    assert any(0 < megabytes < size / (1 << 20) for megabytes in shown), shown


# -- lines ---------------------------------------------------------------------------------------------------------


class Awaited(io.StringIO):
    """Standard error that opens a gate once a text has been written."""

    def __init__(self, text: str, gate: Gate) -> None:
        super().__init__()
        self._text = text
        self._gate = gate

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._text in self.getvalue():
            self._gate.open()
        return written


@pytest.mark.parametrize("args", [["--json"], ["--verbose"], []], ids=str)
def test_a_long_flush_in_a_pipe_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str]
) -> None:
    spool = tmp_path / "spool"
    sdk_batches(spool, 2, spans=TINY)
    gate = Gate()
    told = Awaited("Progress: 1/2 batches, ", gate)
    monkeypatch.setattr("cirron_spool.cli.views._PERIOD_S", 0.02)
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.setenv("CIRRON_API_KEY", TOKEN)
    with ScriptedServer(ok(), ok(stall_before=gate)) as server:
        assert cirron_spool(["flush", "--dir", str(spool), "--api-url", server.url, *args]) == 0
    lines = [line for line in told.getvalue().splitlines() if line.startswith("Progress: ")]
    assert re.fullmatch(r"Progress: 1/2 batches, \d+ B / \d+ (B|KB), \d+ (B|KB)/s, \d:\d\d left", lines[-1])
    if not args:
        assert told.getvalue().splitlines() == lines


def test_it_says_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = tmp_path / "spool"
    [batch] = sdk_batches(spool, 1, spans=TINY)
    monkeypatch.setattr("cirron_spool.cli.views._PERIOD_S", 0.02)
    told = Awaited("retry in ", Gate())
    monkeypatch.setattr(sys, "stderr", told)
    monkeypatch.setenv("CIRRON_API_KEY", TOKEN)
    with ScriptedServer(Answer(503)) as server:
        assert cirron_spool(["flush", "--dir", str(spool), "--api-url", server.url]) == 0
    line = rf"Progress: 0/1 batches, 0 B / \d+ B; retry in \d s \(attempt 2\): HTTP 503 \w+ \w+  {batch.name}"
    assert re.search(line, told.getvalue()), told.getvalue()


@pytest.mark.thorough
def test_after_ten_seconds_and_not_before(tmp_path: Path) -> None:
    """One second stands for ten, in a command that is otherwise the real one."""
    assert views._PERIOD_S == 10
    program = (
        "import sys\n"
        "from cirron_spool.cli import main, views\n"
        "views._PERIOD_S = 1\n"
        "sys.exit(main.cirron_spool())\n"
    )
    sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
    gate = Gate()
    with ScriptedServer(ok(stall_before=gate)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn([sys.executable, "-c", program, "flush"], home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            said = running.wait_for_text("Progress: ", "stderr")
            gate.open()
            done = running.finish()
    assert re.match(r"Progress: 0/1 batches, \d+ B / \d+ B(, .+)?(; waiting .+)?\n", said)
    assert (done.returncode, done.stdout) == (0, "Uploaded: 1  Failed: 0  Skipped: 0\n")
    assert all(line.startswith("Progress: ") for line in done.stderr.splitlines())


def test_who_gets_lines(tmp_path: Path) -> None:
    def view(*args: str) -> FlushView:
        return _choose_view(parse("cirron-spool", ["flush", *args]), Console(args))

    assert type(view()) is type(view("--json")) is Lines
    assert type(view("--verbose")) is Log
    assert type(view("--quiet")) is FlushView
    assert type(view("--json-events")) is JsonEvents
    assert not issubclass(JsonEvents, Lines)
    # A short flush says nothing.
    assert run_cli("flush", cwd=tmp_path).stderr == ""


def test_the_lines_end_with_the_flush() -> None:
    async def flush() -> None:
        view = Lines(Console())
        with view:
            view.show(Started(HERE, 1, 1))
            view.show(Ended(FlushResult(HERE)))
        assert view._next is not None
        assert view._next.cancelled()

    asyncio.run(flush())
