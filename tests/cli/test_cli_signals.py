"""Signals at any moment of any command: a graceful end, an end at once, and those that stay ignored."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cirron_spool.cli import signals as signals_module
from support.answers import Answer, Gate, ok
from support.cli import Running, clean_environment, command_line, spawn, spawn_cli, write_config
from support.scripted import ScriptedServer
from support.spools import TINY, Sealed, sdk_batches, snapshot
from support.terminal import run_pty

TOKEN = "sk-signals"
# Two of one kind that come close together can become one.
OTHER = {signal.SIGINT: signal.SIGTERM, signal.SIGTERM: signal.SIGHUP, signal.SIGHUP: signal.SIGINT}
NOTHING = "Uploaded: 0  Failed: 0  Skipped: {}\n"
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}

# Hangs its thread as a dead mount does: no signal ends the wait, and other threads run.
HANG = (
    "import ctypes\n"
    "def hang(*args, **options):\n"
    "    print('hangs', file=sys.stderr, flush=True)\n"
    "    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)\n"
    "    library.pthread_mutex_lock(mutex); library.pthread_mutex_lock(mutex)\n"
)
# A second signal that comes while the line about the first is being written.
SIGNAL_IN_A_WRITE = (
    "import signal\n"
    "from cirron_spool.cli import stdio\n"
    "write = stdio._Stream.write\n"
    "def interrupted(stream, data):\n"
    "    if b'Stopping:' in bytes(data): signal.raise_signal(signal.SIGTERM)\n"
    "    return write(stream, data)\n"
    "stdio._Stream.write = interrupted\n"
)
# A signal that has no effect on a read from the terminal, as one that comes just before the system call.
SIGNAL_BEFORE_A_READ = (
    "import os, signal, threading\n"
    "main = f'/proc/self/task/{os.getpid()}/syscall'\n"
    "def interrupt():\n"
    "    while open(main).read().split()[1:2] != ['0x0']: pass\n"
    "    signal.pthread_kill(threading.get_ident(), signal.SIGINT)\n"
    "threading.Thread(target=interrupt, daemon=True).start()\n"
)
RUN = "from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())\n"


@pytest.fixture
def batches(tmp_path: Path) -> list[Sealed]:
    return sdk_batches(tmp_path / ".cirron/spool", 3, spans=TINY)


def program(text: str, *args: str) -> list[str]:
    """The argv of the command in an interpreter that ``text`` has prepared."""
    return [sys.executable, "-c", f"import sys\n{text}\n{RUN}", *args]


def server_and_flush(server: ScriptedServer, tmp_path: Path, *args: str) -> Running:
    write_config(tmp_path, apiUrl=server.url, token=TOKEN)
    return spawn_cli("flush", *args, home=tmp_path, cwd=tmp_path)


@pytest.mark.parametrize("number", CODES)
def test_each_signal_stops_gracefully_with_its_own_code(
    tmp_path: Path, batches: list[Sealed], number: signal.Signals
) -> None:
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        with server_and_flush(server, tmp_path) as running:
            server.wait_for(1)
            running.send_signal(number)
            running.wait_for_text("Warning: Stopping", "stderr")
            answer.open()
            done = running.finish()
    assert (done.returncode, done.stdout) == (CODES[number], "Uploaded: 1  Failed: 0  Skipped: 2\n")
    assert snapshot(tmp_path / ".cirron/spool") == batches[1:]


@pytest.mark.thorough
@pytest.mark.parametrize("ignored", CODES)
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    tmp_path: Path, batches: list[Sealed], ignored: signal.Signals
) -> None:
    answer = Gate()
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = [
            "sh",
            "-c",
            f'trap "" {ignored.name[3:]}; exec "$@"',
            "sh",
            *command_line(["flush", "--verbose"]),
        ]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(ignored)
            running.send_signal(ignored)
            answer.open()
            done = running.finish()
    assert (done.returncode, done.stdout) == (0, "Uploaded: 3  Failed: 0  Skipped: 0\n")
    assert "Stopping" not in done.stderr


def test_a_signal_that_was_blocked_at_the_start_stays_blocked(tmp_path: Path, batches: list[Sealed]) -> None:
    answer = Gate()
    mask = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])"
    with ScriptedServer(ok(stall_before=answer)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn(program(mask, "flush"), home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGTERM)
            answer.open()
            done = running.finish()
    assert (done.returncode, done.stdout) == (0, "Uploaded: 3  Failed: 0  Skipped: 0\n")


@pytest.mark.skipif(not Path("/proc/self/syscall").exists(), reason="the kernel does not show system calls")
def test_a_signal_just_before_the_read_of_an_answer(tmp_path: Path, batches: list[Sealed]) -> None:
    spool = tmp_path / ".cirron/spool"
    done = run_pty(program(SIGNAL_BEFORE_A_READ, "clear", "--dir", str(spool)))
    assert done.returncode == 130
    assert done.text.endswith("(y/N) \r\n")  # the command ended its line: it was not ended from outside
    assert snapshot(spool) == batches


@pytest.mark.parametrize("form", ["--json", "--json-events", "--verbose"])
def test_a_second_signal_ends_at_once_in_every_form(tmp_path: Path, batches: list[Sealed], form: str) -> None:
    with ScriptedServer(Answer(hang=True)) as server:
        with server_and_flush(server, tmp_path, form) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGTERM)
            running.wait_for_text("Warning: Stopping", "stderr")
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert done.returncode == 143
    if form == "--verbose":
        assert done.stdout == NOTHING.format(3)
    else:
        assert '"skipped": 3' in done.stdout
        assert '"exitCode": 143' in done.stdout
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.thorough
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_the_token_is_read_from_a_pipe(
    tmp_path: Path, batches: list[Sealed], number: signal.Signals
) -> None:
    # The flush waits for the writer of a named pipe, then for its token.
    os.mkfifo(tmp_path / "token")
    with spawn_cli("flush", "--token-file", "token", home=tmp_path, cwd=tmp_path) as running:
        writer = os.open(tmp_path / "token", os.O_WRONLY)
        running.send_signal(number)
        done = running.finish()
        os.close(writer)
    assert (done.returncode, done.stdout, done.stderr) == (CODES[number], NOTHING.format(0), "")
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.thorough
@pytest.mark.parametrize("command", ["flush", "inspect", "clear", "receive --store store"])
@pytest.mark.parametrize("number", CODES)
def test_a_signal_while_modules_are_imported(
    tmp_path: Path, batches: list[Sealed], command: str, number: signal.Signals
) -> None:
    """The last module that the command imports waits for a signal."""
    late = {"flush": "aiohttp", "inspect": "cirron_spool.offline", "clear": "cirron_spool.offline"}
    waits = (
        "import time\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {late.get(command, 'cirron_spool.receiver.store')!r}:\n"
        "            print('importing', file=sys.stderr, flush=True); time.sleep(60)\n"
        "sys.meta_path.insert(0, Finder())"
    )
    with spawn(program(waits, *command.split()), home=tmp_path, cwd=tmp_path) as running:
        running.wait_for_text("importing", "stderr")
        running.send_signal(number)
        done = running.finish()
    assert (done.returncode, done.stderr) == (CODES[number], "importing\n")
    assert done.stdout == (NOTHING.format(0) if command == "flush" else "")
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.thorough
@pytest.mark.parametrize("number", CODES)
def test_a_signal_between_the_flush_and_the_end_of_the_process(
    tmp_path: Path, batches: list[Sealed], number: signal.Signals
) -> None:
    """While the interpreter ends, one signal is enough; the summary was printed once."""
    waits = (
        "import atexit, time\n"
        "atexit.register(lambda: (print('ending', file=sys.stderr, flush=True), time.sleep(60)))"
    )
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn(program(waits, "flush"), home=tmp_path, cwd=tmp_path) as running:
            running.wait_for_text("ending", "stderr")
            running.send_signal(number)
            done = running.finish()
    assert (done.returncode, done.stdout) == (CODES[number], "Uploaded: 3  Failed: 0  Skipped: 0\n")
    assert done.stderr == "ending\n"


@pytest.mark.thorough
@pytest.mark.parametrize("number", CODES)
def test_a_second_signal_while_the_event_loop_is_closed(
    tmp_path: Path, batches: list[Sealed], number: signal.Signals
) -> None:
    """A thread of the loop's executor hangs, and the loop's end waits for it."""
    hangs = (
        f"{HANG}"
        "import asyncio, cirron_spool.pipeline.runner as room\n"
        "begin = room.FlushRun.run\n"
        "async def run(self):\n"
        "    asyncio.get_running_loop().run_in_executor(None, hang)\n"
        "    return await begin(self)\n"
        "room.FlushRun.run = run\n"
    )
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn(program(hangs, "flush", "--verbose"), home=tmp_path, cwd=tmp_path) as running:
            running.wait_for_text("hangs", "stderr")
            server.wait_until(lambda: len(server.delivered) == 3, "third batch")
            running.wait_for_text("ended after", "stderr")
            running.send_signal(number)
            running.send_signal(OTHER[number])
            done = running.finish()
    assert done.returncode in (CODES[number], CODES[OTHER[number]])
    assert done.stdout == "Uploaded: 3  Failed: 0  Skipped: 0\n"


@pytest.mark.parametrize("command", ["inspect", "clear"])
@pytest.mark.parametrize("signals", [1, 2])
def test_a_main_thread_that_hangs_in_the_system(
    tmp_path: Path, batches: list[Sealed], command: str, signals: int
) -> None:
    """No handler runs there: a second signal ends the process all the same, and one after five seconds."""
    assert signals_module._STOPPED_WITHIN_S == 5
    sooner = "from cirron_spool.cli import signals; signals._STOPPED_WITHIN_S = 0.5"
    hangs = f"{HANG}import os; os.scandir = hang\n{sooner}"
    with spawn(program(hangs, command, "--json"), home=tmp_path, cwd=tmp_path) as running:
        running.wait_for_text("hangs", "stderr")
        for number in (signal.SIGTERM, signal.SIGHUP)[:signals]:
            running.send_signal(number)
        done = running.finish()
    assert done.returncode in (129, 143)
    assert done.stderr == "hangs\n"
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.thorough
def test_a_disk_that_hangs_does_not_keep_a_flush_from_ending(tmp_path: Path, batches: list[Sealed]) -> None:
    hangs = f"{HANG}import os; os.scandir = hang"
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        with spawn(program(hangs, "flush"), home=tmp_path, cwd=tmp_path) as running:
            running.wait_for_text("hangs", "stderr")
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert (done.returncode, done.stdout) == (143, NOTHING.format(0))
    assert snapshot(tmp_path / ".cirron/spool") == batches


@pytest.mark.thorough
def test_a_reader_that_does_not_read_cannot_hold_up_a_second_signal(
    tmp_path: Path, batches: list[Sealed]
) -> None:
    """The pipe behind standard error is full, and the flush waits in the midst of a line."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    while True:
        try:
            os.write(writer, bytes(65536))
        except BlockingIOError:
            break
    with ScriptedServer(Answer(422)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        process = subprocess.Popen(
            command_line(["flush"]),
            cwd=tmp_path,
            env=clean_environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=writer,
        )
        # The words about the first batch wait for room.
        server.wait_until(lambda: any(upload.answered for upload in server.uploads), "answer")
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
        os.close(writer)
        os.close(reader)
    assert process.returncode in (130, 143)
    assert re.fullmatch("Uploaded: 0  Failed: [01]  Skipped: [23]\n", out.decode())
    assert snapshot(tmp_path / ".cirron/spool") == batches


def test_a_receiver_ends_at_once_on_a_second_signal(tmp_path: Path) -> None:
    with spawn_cli("receive", "--port", "0", "--store", "store", home=tmp_path, cwd=tmp_path) as running:
        line = running.wait_for_text("storing in")
        port = int(line.partition("127.0.0.1:")[2].partition(",")[0])
        with socket.create_connection(("127.0.0.1", port)) as client:
            # A body that does not come: the first signal waits for it.
            client.sendall(
                b"POST /api/traces HTTP/1.1\r\nHost: x\r\nX-Cirron-Batch-Id: a\r\nContent-Length: 5\r\n"
            )
            client.sendall(b"Content-Type: application/json\r\n\r\n{")
            running.send_signal(signal.SIGHUP)
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert done.returncode in (129, 143)
    assert "Traceback" not in done.stderr


def test_the_next_program_has_the_signals_as_they_were(tmp_path: Path) -> None:
    other = tmp_path / "bin/cirron"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\ntrap > /dev/null\nexec grep -E 'Sig(Ign|Blk|Cgt)' /proc/self/status\n")
    other.chmod(0o755)
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc here")
    env = {"PATH": f"{other.parent}{os.pathsep}{os.environ['PATH']}"}
    with spawn_cli("projects", "list", cwd=tmp_path, env=env, prog="cirron") as running:
        done = running.finish()
    plain = subprocess.run([other], capture_output=True, check=True)
    assert _masks(done.stdout) == _masks(plain.stdout.decode())


def _masks(status: str) -> dict[str, int]:
    """The masks of the signals that a program can see; the C library keeps two real-time ones to itself."""
    return {name: int(mask, 16) & 0x7FFFFFFF for name, mask in re.findall(r"(\w+):\s*([0-9a-f]+)", status)}


@pytest.mark.thorough
@pytest.mark.parametrize("form", [[], ["--verbose"], ["--json"], ["--json-events"]], ids=" ".join)
def test_a_signal_in_the_midst_of_a_line_cuts_neither_it_nor_the_ending(
    tmp_path: Path, batches: list[Sealed], form: list[str]
) -> None:
    with ScriptedServer(Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = program(SIGNAL_IN_A_WRITE, "flush", *form)
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            server.wait_for(1)
            running.send_signal(signal.SIGTERM)
            done = running.finish()
    assert done.returncode == 143
    assert done.stderr.count("Warning: Stopping: ") == (form != ["--json-events"])
    if form in (["--json"], ["--json-events"]):
        ending = done.json() if form == ["--json"] else json.loads(done.lines[-1])
        assert isinstance(ending, dict)
        assert (ending["exitCode"], ending["skipped"]) == (143, 3)
    else:
        assert done.stdout == NOTHING.format(3)
    if form == ["--json-events"]:
        assert [json.loads(line)["event"] for line in done.lines] == ["start", "warning", "warning", "end"]
    assert snapshot(tmp_path / ".cirron/spool") == batches


def test_a_signal_while_the_bar_is_drawn_leaves_the_terminal_as_it_was(
    tmp_path: Path, batches: list[Sealed]
) -> None:
    with ScriptedServer(Answer(hang=True)) as server:
        write_config(tmp_path, apiUrl=server.url, token=TOKEN)
        argv = program(SIGNAL_IN_A_WRITE, "flush")
        done = run_pty(argv, home=tmp_path, cwd=tmp_path, answers=[(batches[0].name[:24], "\x03")])
    assert done.returncode == 130
    assert done.text.endswith(NOTHING.format(3).replace("\n", "\r\n"))
    assert done.text.rindex("\x1b[?25h") > done.text.rindex("\x1b[?25l")
    assert snapshot(tmp_path / ".cirron/spool") == batches
