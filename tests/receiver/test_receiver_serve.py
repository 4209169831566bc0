"""The receiver as a command: its lines, its exit codes, its end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from cirron_spool.receiver.app import ReceiverOptions
from cirron_spool.receiver.app import serve as serve_here

from .conftest import TOKEN, Serve, serve_command, serve_environment

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_cleanly(serve: Serve, tmp_path: Path, number: signal.Signals) -> None:
    async with serve(ends_itself=True) as (process, peer):
        assert peer.folder == tmp_path / "store"
        assert (await peer.post(b'{"created_ns":1}')).status == 200
        assert (await peer.post(b"{}", token="wrong")).status == 401
        process.send_signal(number)
        out, err = await process.communicate()
        totals = b"Received 1 batch (16 B), 0 duplicates, 1 refused (1 for the token).\n"
        assert (process.returncode, out, err) == (0, b"", totals)
        assert peer.names == ["00000000000000000001-ab.json"]


async def test_what_it_has_acknowledged_survives_a_kill(serve: Serve, tmp_path: Path) -> None:
    async with serve(ends_itself=True) as (process, peer):
        for number in range(5):
            assert (await peer.post(b'{"created_ns":1}', f"{number:x}")).status == 200
        process.kill()
        await process.wait()
        (tmp_path / "store" / ".incoming-0123456789abcdef.part").write_bytes(b"{")
    async with serve() as (_, peer):
        assert len(peer.names) == 5
        assert (await peer.post(b'{"created_ns":1}', "4")).body["duplicate"] is True


async def test_it_says_that_it_has_no_token(serve: Serve) -> None:
    async with serve(token=None, ends_itself=True) as (process, peer):
        assert (await peer.post(b"{}", token=None)).status == 200
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert err.startswith(b"No token is set: every request is accepted.\nReceived 1 batch (2 B), ")


async def test_it_warns_when_others_can_connect_without_a_token(serve: Serve) -> None:
    async with serve("host='0.0.0.0'", token=None, ends_itself=True) as (process, peer):
        assert peer.receiver.url.startswith("http://0.0.0.0:")
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert err.startswith(b"Warning: No token is set and other machines can connect")


async def test_verbose_lines_go_to_standard_error(serve: Serve) -> None:
    async with serve("verbose=True", ends_itself=True) as (process, peer):
        await peer.post(b'{"created_ns":1}')
        process.send_signal(signal.SIGTERM)
        out, err = await process.communicate()
        assert out == b""
        line, totals, end = err.split(b"\n")
        assert b"Z Stored 00000000000000000001-ab.json (16 B) from 127.0.0.1:" in line
        assert (totals, end) == (b"Received 1 batch (16 B), 0 duplicates, 0 refused.", b"")


async def test_a_reader_that_has_gone_does_not_end_it(serve: Serve) -> None:
    async with serve("verbose=True", ends_itself=True) as (process, peer):
        assert process.stderr is not None
        process.stderr._transport.close()  # type: ignore[attr-defined]
        assert (await peer.post(b"{}", "a1")).status == 200
        assert (await peer.post(b"{}", "a2")).status == 200
        process.send_signal(signal.SIGTERM)
        await process.wait()
        assert process.returncode == 0


async def test_through_the_command_line(tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = [sys.executable, "-m", "cirron_spool", "receive", "--store", str(store), "--port", "0"]
    process = await asyncio.create_subprocess_exec(
        *command, "--token", "t", env=serve_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        ready = (await process.stdout.readline()).decode()
        url = ready.removeprefix("Receiving on ").partition(",")[0]
        head = {"Authorization": "Bearer t", "X-Cirron-Batch-Id": "ab"}
        async with aiohttp.ClientSession() as session:
            async with session.post(f"{url}/api/traces", data=b'{"created_ns":1}', headers=head) as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGINT)
        assert await process.communicate() == (b"", b"Received 1 batch (16 B), 0 duplicates, 0 refused.\n")
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    spool = await asyncio.to_thread(
        subprocess.run,
        [*command[:3], "inspect", "--dir", str(store), "--json"],
        env=serve_environment(),
        capture_output=True,
        check=True,
    )
    assert [entry["name"] for entry in json.loads(spool.stdout)["entries"]] == [
        "00000000000000000001-ab.json"
    ]


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of descriptors")
async def test_more_clients_than_it_has_descriptors_for(tmp_path: Path) -> None:
    """It leaves itself what the store needs, and says nothing of those that wait."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -n 80; exec "$@"', "sh", *serve_command(tmp_path / "store")),
        env=serve_environment(CIRRON_RECEIVE_TOKEN=TOKEN),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        port = int((await process.stdout.readline()).partition(b",")[0].rpartition(b":")[2])
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(120)]
        head = f"POST /api/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        answers = []
        for number, (reader, writer) in enumerate(clients):
            writer.write(f"{head}X-Cirron-Batch-Id: {number:x}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
            answers.append((await reader.readline()).split()[1])
            if answers[-1] == b"503":
                writer.close()  # makes room for one that waits
        assert answers[:5] == [b"200"] * 5
        assert set(answers) <= {b"200", b"503"}
        for _, writer in clients:
            writer.close()
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        stored = answers.count(b"200")
        assert err.startswith(f"Received {stored} batches ({2 * stored} B), 0 duplicates, ".encode())
        assert err.count(b"\n") == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_is_cut_at_the_end_is_no_event(serve: Serve) -> None:
    async with serve("grace_s=0.1", ends_itself=True) as (process, peer):
        _, writer = await peer.connect()
        head = f"POST /api/traces HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nX-Cirron-Batch-Id: ab\r\n"
        writer.write(f"{head}Content-Length: 9000000\r\n\r\n".encode() + b'{"a":"' + b"x" * 1_000_000)
        while not peer.names:
            await peer.request("GET", "/health")
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert (process.returncode, err) == (0, b"Received 0 batches (0 B), 0 duplicates, 0 refused.\n")
        assert peer.names == []
        writer.close()


async def test_a_host_without_an_address(tmp_path: Path) -> None:
    for host in ("no such host", "x" * 80):
        code, line = failed(tmp_path / "store", f"host={host!r}")
        assert (code, line.startswith(f"Error: Cannot listen on {host}:0: "), "Errno" in line) == (
            2,
            True,
            False,
        )


def failed(store: Path, options: str = "") -> tuple[int, str]:
    done = subprocess.run(
        serve_command(store, options), env=serve_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


async def test_what_cannot_work_is_one_line_and_an_exit_code(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    code, line = failed(tmp_path / "file")
    assert (code, line.count("Cannot store in")) == (2, 1)
    assert failed(tmp_path / "other", "token='a b'")[0] == 2
    async with serve() as (_, peer):
        code, line = await asyncio.to_thread(failed, peer.folder)
        assert (code, "Another receiver stores in" in line) == (4, True)
        code, line = await asyncio.to_thread(failed, tmp_path / "other", f"port={peer.port}")
        assert (code, "Address already in use" in line) == (2, True)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a place where even root cannot write")
def test_a_folder_that_cannot_be_written() -> None:
    for folder in ("/proc/self", "/proc/no/store"):
        code, line = failed(Path(folder))
        assert (code, line.startswith(f"Error: Cannot store in {folder}: ")) == (2, True)


def test_in_the_calling_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same with a signal to ourselves, once the line is out: the caller's own handlers are back afterwards."""
    monkeypatch.setenv("CIRRON_RECEIVE_TOKEN", "")
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    class Line:
        def write(self, text: str) -> int:
            if text.startswith("Receiving on"):
                os.kill(os.getpid(), signal.SIGTERM)
            return len(text)

        def flush(self) -> None:
            pass

    monkeypatch.setattr(sys, "stdout", Line())
    assert serve_here(ReceiverOptions(store=tmp_path / "store", verbose=True)) == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert capsys.readouterr().err == (
        "No token is set: every request is accepted.\nReceived 0 batches (0 B), 0 duplicates, 0 refused.\n"
    )

    taken = socket.create_server(("127.0.0.1", 0))
    with taken:
        options = ReceiverOptions(store=tmp_path / "store", port=taken.getsockname()[1])
        assert serve_here(options) == 2
    assert capsys.readouterr().err.startswith("Error: Cannot listen on 127.0.0.1:")


def test_without_a_token_on_every_interface(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        """A standard output that nobody reads any more."""

        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            raise BrokenPipeError(text)

    monkeypatch.delenv("CIRRON_RECEIVE_TOKEN", raising=False)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert serve_here(ReceiverOptions(store=tmp_path / "store", host="0.0.0.0")) == 0
    assert capsys.readouterr().err.startswith("Warning: No token is set")
