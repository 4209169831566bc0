"""``flush --metrics-file`` and the receiver's ``/metrics``, read as Prometheus reads them."""

from __future__ import annotations

import re
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from support.answers import Answer, Gate, ok
from support.cli import SAFETY_NET, spawn, spawn_cli
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches

parser = pytest.importorskip("prometheus_client.parser")

TOKEN = "sk-metrics-secret"


def samples(text: str) -> dict[str, float]:
    """Each value by its name, and by its further label where it has one."""
    found = {}
    for metric in parser.text_string_to_metric_families(text):
        for sample in metric.samples:
            own = [value for name, value in sample.labels.items() if name != "spool"]
            found[".".join([sample.name.removeprefix("cirron_spool_"), *own])] = sample.value
    return found


def until(condition: Callable[[], bool]) -> None:
    """Look until it holds."""
    deadline = time.monotonic() + SAFETY_NET
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def environment(platform: ScriptedServer) -> dict[str, str]:
    return {"CIRRON_API_ENDPOINT": platform.url, "CIRRON_API_KEY": TOKEN}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cirron.prom"


def test_the_counters_go_on_from_one_flush_to_the_next(spool: Path, path: Path) -> None:
    batches = sdk_batches(spool, 3, spans=TINY)
    link = path.with_name("link.prom")
    link.symlink_to(path)
    with ScriptedServer(ok(), Answer(400)) as platform:
        flush = ("flush", "--dir", spool, "--metrics-file", link)
        first = run_cli(*flush, env=environment(platform))
        after_first = samples(path.read_text())
        second = run_cli(*flush, "--quarantine", env=environment(platform))
        after_second = samples(path.read_text())
    assert (first.returncode, second.returncode) == (1, 0)
    assert link.is_symlink()
    size = sum(len(batch.data) for batch in batches)
    expected = {
        "uploaded_batches_total": (1, 3),
        "uploaded_bytes_total": (len(batches[0].data), size),
        "sent_bytes_total": (len(batches[0].data), size),
        "failed_batches_total": (1, 1),
        "quarantined_batches_total": (0, 0),
        "retries_total": (0, 0),
        "flushes_total.1": (1, 1),
        "flushes_total.0": (None, 1),
        "last_flush_exit_code": (1, 0),
        "waiting_batches": (2, 0),
        "waiting_bytes": (size - len(batches[0].data), 0),
        "oldest_batch_timestamp_seconds": (pytest.approx(batches[1].created_ns / 1e9), None),
        "quarantine_batches": (0, 0),
        "watch_held_up.outage": (0, 0),
    }
    assert {name: (after_first.get(name), after_second.get(name)) for name in expected} == expected
    assert after_second["last_success_timestamp_seconds"] == after_second["last_flush_timestamp_seconds"]
    assert f'{{spool="{spool}"}}' in path.read_text()


def test_a_flush_that_cannot_begin_counts_and_shows_the_spool(spool: Path, path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    done = run_cli("flush", "--dir", spool, "--metrics-file", path)  # there is no token
    values = samples(path.read_text())
    assert (done.returncode, values["last_flush_exit_code"], values["flushes_total.3"]) == (3, 3, 1)
    assert (values["waiting_batches"], "last_success_timestamp_seconds" in values) == (2, False)
    odd = run_cli("flush", "--dir", path, "--metrics-file", path.with_suffix(".2"))  # a file is no spool
    assert (odd.returncode, samples(path.with_suffix(".2").read_text())["flushes_total.2"]) == (2, 1)


def test_a_watch_writes_while_it_goes_on(spool: Path, path: Path) -> None:
    sdk_batches(spool, 1, spans=TINY)
    gate = Gate()
    short = "from cirron_spool.telemetry import metrics_file; metrics_file._INTERVAL_S = 0.02; "
    program = f"import sys; {short}from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())"
    flush = [
        sys.executable,
        "-c",
        program,
        "flush",
        "--dir",
        str(spool),
        "--watch",
        "--metrics-file",
        str(path),
    ]
    with (
        ScriptedServer(ok(stall_before=gate)) as platform,
        spawn(flush, env=environment(platform)) as run,
    ):
        platform.wait_for(1)
        inodes: set[int] = set()

        def note_inode() -> bool:
            inodes.add(path.stat().st_ino)
            return len(inodes) > 2

        until(note_inode)  # each write is a new file
        assert samples(path.read_text())["waiting_batches"] == 1
        gate.open()
        until(lambda: samples(path.read_text())["uploaded_batches_total"] == 1)
        run.send_signal(signal.SIGTERM)
        done = run.finish()
    values = samples(path.read_text())
    assert (done.returncode, values["last_flush_exit_code"], values["waiting_batches"]) == (143, 143, 0)


@pytest.mark.parametrize("content", [b"import os\n", b"\x7fELF", b"# HELP other x\n"])
def test_a_file_that_holds_something_else_stays(spool: Path, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    done = run_cli("flush", "--dir", spool, "--metrics-file", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"Error: {path} is not a metrics file. Name another file.\n"
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("none/cirron.prom", "Error: Cannot write metrics to none/cirron.prom: No such file or directory."),
        (".", "Error: Cannot read .: Is a directory. Name another file."),
        ("/dev/null", "Error: /dev/null is not a metrics file. Name another file."),
    ],
)
def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path, place: str, said: str) -> None:
    done = run_cli("flush", "--metrics-file", place, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, f"{said}\n")


def test_a_broken_file_of_ours_begins_anew(spool: Path, path: Path) -> None:
    spool.mkdir()
    path.write_bytes(
        b"# HELP cirron_spool_uploaded_batches_total x\ncirron_spool_uploaded_batches_total{spool="
    )
    done = run_cli("flush", "--dir", spool, "--metrics-file", path)
    assert done.stderr == f"Warning: The metrics in {path} cannot be read. The counters begin at 0.\n"
    assert samples(path.read_text())["flushes_total.0"] == 1


def test_without_the_library_the_extra_is_named(spool: Path, path: Path) -> None:
    program = (
        "import sys; sys.modules['prometheus_client'] = None; "
        "from cirron_spool.cli.main import cirron_spool; sys.exit(cirron_spool())"
    )
    flush = [sys.executable, "-c", program, "flush", "--dir", str(spool), "--metrics-file", str(path)]
    with spawn(flush) as run:
        done = run.finish()
    assert (done.returncode, done.stderr) == (
        2,
        "Error: --metrics-file needs prometheus-client. Run pip install 'cirron-spool[metrics]', or leave it out.\n",
    )


def test_a_receiver_shows_its_counts_to_prometheus(spool: Path, tmp_path: Path) -> None:
    sdk_batches(spool, 2, spans=TINY)
    store = tmp_path / "received"
    with spawn_cli("receive", "--store", store, "--port", "0", "--token", TOKEN) as receiver:
        url = re.findall(r"http://\S+:\d+", receiver.wait_for_text("http://"))[0]
        for token in ("sk-wrong", TOKEN):
            run_cli("flush", "--dir", spool, env={"CIRRON_API_ENDPOINT": url, "CIRRON_API_KEY": token})
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            content_type, text = answer.headers["Content-Type"], answer.read().decode()
        values = samples(text)
        store.rename(tmp_path / "away")
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            gone = samples(answer.read().decode())
    assert content_type.startswith("text/plain; version=0.0.4")
    assert (values["receiver_batches_total"], values["receiver_stored_batches"]) == (2, 2)
    assert values["receiver_refused_requests_total.401"] >= 1
    assert (values["receiver_store_usable"], gone["receiver_store_usable"]) == (1, 0)
    assert "receiver_stored_batches" not in gone


def test_several_spools_are_summed_in_one_file(tmp_path: Path, path: Path) -> None:
    runs, receipts = tmp_path / "runs", tmp_path / "receipts.jsonl"
    for number in range(3):
        sdk_batches(runs / f"{number}/.cirron/spool", 2, spans=TINY, seed=number)
    shared = ("--metrics-file", path, "--receipts", receipts, "--bandwidth", "1M", "--limit", "1")
    with ScriptedServer() as platform:
        done = run_cli("flush", "--discover", runs, *shared, env=environment(platform))
    values = samples(path.read_text())
    assert done.returncode == 0, done.stderr
    assert (values["uploaded_batches_total"], values["waiting_batches"], values["flushes_total.0"]) == (
        3,
        3,
        1,
    )
    assert f'spool="{runs}"' in path.read_text()
    assert run_cli("receipts", "verify", receipts).lines[0] == "Receipts: 3  Batches: 3  Problems: 0"
