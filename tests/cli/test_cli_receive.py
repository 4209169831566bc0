"""``receive`` as a command: it comes up, takes what ``flush`` sends, refuses the rest, and goes down cleanly."""

from __future__ import annotations

import re
import signal
import socket
import stat
from pathlib import Path

import pytest

from support.cli import Running, spawn_cli
from support.fork_server import run_cli
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-receive-0123456789"


def ready(running: Running, store: Path) -> str:
    """The address in the one line that says that the receiver is ready."""
    out = running.wait_for_text("\n")
    found = re.fullmatch(
        rf"Receiving on (http://127\.0\.0\.1:\d+), storing in {re.escape(str(store))}\n", out
    )
    assert found is not None, out
    return found[1]


def test_what_is_flushed_to_it_is_a_spool_again(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", tmp_path / "store"
    written = sdk_batches(spool, 5)
    with spawn_cli("receive", "--store", "store", "--port", "0", "--token", TOKEN, cwd=tmp_path) as receiver:
        url = ready(receiver, store)
        flushed = run_cli("flush", "--dir", spool, "--api-url", url, env={"CIRRON_API_KEY": TOKEN})
        assert (flushed.returncode, flushed.stderr) == (0, "")
        assert run_cli("inspect", "--dir", store).lines[0].startswith(f"Spool: {store}  (5 files, ")
        receiver.send_signal(signal.SIGTERM)
        done = receiver.finish()
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert re.fullmatch(r"Received 5 batches \([^)]+\), 0 duplicates, 0 refused\.\n", done.stderr)
    assert snapshot(store) == written
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert TOKEN not in done.stdout + done.stderr


def test_a_wrong_token_is_refused_and_the_right_one_may_come_from_the_environment(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", tmp_path / "store"
    written = sdk_batches(spool, 2, spans=TINY)
    environment = {"CIRRON_RECEIVE_TOKEN": TOKEN}
    with spawn_cli("receive", "--store", store, "--port", "0", env=environment) as receiver:
        url = ready(receiver, store)
        for args, line in (
            ([], "Error: Authentication invalid. Run cirron auth login first."),
            (["--no-verify"], f"Error: Auth rejected (401) for {written[0].name}. Run cirron auth login."),
        ):
            refused = run_cli(
                "flush", *args, "--dir", spool, "--api-url", url, env={"CIRRON_API_KEY": "sk-other"}
            )
            assert refused.returncode == 3
            assert refused.stderr.splitlines()[0] == line
        assert snapshot(spool) == written
        assert snapshot(store) == []
        assert (
            run_cli("flush", "--dir", spool, "--api-url", url, env={"CIRRON_API_KEY": TOKEN}).returncode == 0
        )
        receiver.send_signal(signal.SIGTERM)
        done = receiver.finish()
    assert done.returncode == 0
    assert TOKEN not in done.stdout + done.stderr
    assert snapshot(store) == written


def test_what_it_says_without_a_token_and_with_verbose(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", tmp_path / "store"
    [batch] = sdk_batches(spool, 1, spans=TINY)
    with spawn_cli("receive", "--store", store, "--port", "0", "--verbose") as receiver:
        url = ready(receiver, store)
        assert receiver.wait_for_text("\n", "stderr") == "No token is set: every request is accepted.\n"
        assert (
            run_cli("flush", "--dir", spool, "--api-url", url, env={"CIRRON_API_KEY": TOKEN}).returncode == 0
        )
        receiver.wait_for_text(batch.batch_id, "stderr")
        receiver.send_signal(signal.SIGINT)
        done = receiver.finish()
    assert done.returncode == 0
    assert TOKEN not in done.stdout + done.stderr


def test_a_batch_above_its_limit_is_rejected(tmp_path: Path) -> None:
    spool, store = tmp_path / "spool", tmp_path / "store"
    [batch] = sdk_batches(spool, 1)
    with spawn_cli("receive", "--store", store, "--port", "0", "--max-bytes", "1000") as receiver:
        url = ready(receiver, store)
        done = run_cli("flush", "--dir", spool, "--api-url", url, env={"CIRRON_API_KEY": TOKEN})
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: Rejected {batch.name}: HTTP 413 ")
    assert "larger than 1000 bytes" in done.stderr
    assert snapshot(store) == []


def test_a_second_receiver_on_the_same_store_or_port(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with spawn_cli("receive", "--store", store, "--port", "0") as receiver:
        port = ready(receiver, store).rpartition(":")[2]
        same_store = run_cli("receive", "--store", store, "--port", "0")
        same_port = run_cli("receive", "--store", tmp_path / "other", "--port", port)
        receiver.send_signal(signal.SIGTERM)
        assert receiver.finish().returncode == 0
    line = f"Error: Another receiver stores in {store}. Stop it or choose another --store.\n"
    assert (same_store.returncode, same_store.stdout, same_store.stderr) == (4, "", line)
    line = f"Error: Cannot listen on 127.0.0.1:{port}: Address already in use. Choose another --host or --port.\n"
    assert (same_port.returncode, same_port.stdout, same_port.stderr) == (2, "", line)
    with spawn_cli("receive", "--store", store, "--port", "0") as again:
        ready(again, store)


def test_a_store_that_cannot_be_one_and_a_host_that_is_not_here(tmp_path: Path) -> None:
    file = tmp_path / "fi\x1ble"
    file.write_bytes(b"precious")
    for store in (file, file / "below"):
        done = run_cli("receive", "--store", store, "--port", "0")
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"Error: Cannot store in [^\n]*fi\\x1ble[^\n]*: [^\n]+\n", done.stderr)
    assert file.read_bytes() == b"precious"
    # TEST-NET-1 is nobody's address.
    done = run_cli("receive", "--store", tmp_path / "store", "--host", "192.0.2.1", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: Cannot listen on 192.0.2.1:0: ")


@pytest.mark.parametrize("token", ["", "\x1b[31m"])
def test_a_token_that_could_never_be_presented(tmp_path: Path, token: str) -> None:
    done = run_cli("receive", "--store", tmp_path / "store", "--port", "0", "--token", token)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "store").exists()


def test_an_idle_client_does_not_hold_up_its_end(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with spawn_cli("receive", "--store", store, "--port", "0") as receiver:
        host, _, port = ready(receiver, store).removeprefix("http://").rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"POST /api/traces HTTP/1.1\r\nHost: x\r\nContent-Le")
            receiver.send_signal(signal.SIGTERM)
            done = receiver.finish()
    assert done.returncode == 0
    assert list(store.glob(".incoming*")) == []


@pytest.mark.parametrize("token", ["", "a b", "tok\u00e9n", "x" * 9000])
def test_a_token_that_nobody_could_present(tmp_path: Path, token: str) -> None:
    done = run_cli("receive", "--port", "0", "--store", tmp_path / "store", "--token", token)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: The token must .*\. Correct --token or CIRRON_RECEIVE_TOKEN\.\n", done.stderr
    )
    assert not (tmp_path / "store").exists()
