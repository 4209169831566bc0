"""A network whose name servers swallow every question, as after a VPN has dropped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import Running, command_line, spawn, write_config
from support.environments import in_namespace
from support.spools import TINY, Sealed, sdk_batches, snapshot

# Takes the questions and gives no answer; says when the first has come, and of which process.
SILENCE = """
import os, socket, subprocess, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
process = subprocess.Popen(sys.argv[1:])
server.recv(512)
print("asked", process.pid, file=sys.stderr, flush=True)
sys.exit(process.wait() % 256)
"""


@pytest.fixture
def batches(tmp_path: Path) -> list[Sealed]:
    return sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)


def silent_network(tmp_path: Path) -> list[str]:
    """The first words of an argv that runs the rest of it in such a network."""
    resolv = tmp_path / "resolv.conf"
    # A resolver that asks for minutes: nothing but our own doing can end the command.
    resolv.write_text("nameserver 127.0.0.1\noptions timeout:30 attempts:5\n", encoding="ascii")
    setup = f"ip link set lo up; mount --bind '{resolv}' /etc/resolv.conf"
    return [*in_namespace(network=True, setup=setup), sys.executable, "-c", SILENCE]


def flush(tmp_path: Path, *args: str) -> tuple[Running, int]:
    """A flush that waits for a name server, and its process id."""
    write_config(tmp_path, apiUrl="https://api.platform.example", token="sk-dead", retries=0)
    running = spawn([*silent_network(tmp_path), *command_line(["flush", *args])], home=tmp_path, cwd=tmp_path)
    said = running.wait_for_text("asked ", "stderr")
    return running, int(said.split("asked ")[1].split()[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("args", [[], ["--no-verify"]], ids=["verify", "upload"])
def test_one_signal_ends_the_flush_with_its_summary(
    tmp_path: Path, batches: list[Sealed], number: signal.Signals, args: list[str]
) -> None:
    running, pid = flush(tmp_path, *args)
    with running:
        os.kill(pid, number)
        done = running.finish()
    assert (done.returncode, done.stdout) == (128 + number, "Uploaded: 0  Failed: 0  Skipped: 2\n")
    assert "Traceback" not in done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == batches


def test_a_second_signal_ends_it_at_once(tmp_path: Path, batches: list[Sealed]) -> None:
    running, pid = flush(tmp_path, "--no-verify")
    with running:
        os.kill(pid, signal.SIGTERM)
        running.wait_for_text("Stopping", "stderr")
        os.kill(pid, signal.SIGTERM)
        done = running.finish()
    assert (done.returncode, done.stdout) == (143, "Uploaded: 0  Failed: 0  Skipped: 2\n")
    assert snapshot(tmp_path / ".cirron/spool") == batches


def test_without_a_signal_the_silence_limit_ends_it(tmp_path: Path, batches: list[Sealed]) -> None:
    running, _ = flush(tmp_path, "--timeout", "1000")
    with running:
        done = running.finish()
    assert done.returncode == 4
    assert done.stdout == "Uploaded: 0  Failed: 1  Skipped: 1\n"
    assert snapshot(tmp_path / ".cirron/spool") == batches


def test_the_library_can_be_cancelled(tmp_path: Path, batches: list[Sealed]) -> None:
    program = (
        "import asyncio, sys\n"
        "from cirron_spool import flush_spool\n"
        "async def main():\n"
        "    work = asyncio.ensure_future(flush_spool(sys.argv[1], token='sk-dead',\n"
        "        api_url='https://api.platform.example'))\n"
        "    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)\n"
        "    work.cancel()\n"
        "    await asyncio.wait([work])\n"
        "    print('cancelled', work.cancelled())\n"
        "asyncio.run(main())\n"
    )
    argv = [*silent_network(tmp_path), sys.executable, "-c", program, str(tmp_path / ".cirron/spool")]
    with spawn(argv, home=tmp_path, cwd=tmp_path, stdin=subprocess.PIPE) as running:
        running.wait_for_text("asked ", "stderr")
        running.write(b"now\n")
        done = running.finish()
    assert (done.returncode, done.stdout) == (0, "cancelled True\n"), done.stderr
    assert snapshot(tmp_path / ".cirron/spool") == batches
