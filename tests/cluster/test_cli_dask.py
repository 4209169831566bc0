"""``flush --discover ROOT --scheduler ADDRESS``, as a person and as a program run it."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytest.importorskip("trustme")

from support.answers import ok
from support.cli import spawn_cli
from support.dask_cluster import DaskCluster, dask_cluster
from support.fork_server import run_cli
from support.scripted import Gate, ScriptedServer
from support.spools import TINY, sdk_batches, snapshot

TOKEN = "sk-sent-0123456789abcdefWXYZ"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Five spools of three batches."""
    return spools(tmp_path, 5)


def spools(folder: Path, count: int) -> Path:
    root = folder / "runs"
    for number in range(count):
        sdk_batches(root / f"{number}" / ".cirron" / "spool", 3, spans=TINY, seed=number)
    return root


def left(root: Path) -> int:
    return sum(len(snapshot(path)) for path in root.glob("*/.cirron/spool"))


def test_flush_with_a_scheduler(cluster: DaskCluster, tmp_path: Path, root: Path) -> None:
    with ScriptedServer(check_auth=True) as server:
        words = ["flush", "--discover", root, "--scheduler", cluster.address, "--api-url", server.url]
        plan = run_cli(*words, "--dry-run", home=tmp_path)
        assert server.uploads == []
        done = run_cli(*words, "--json-events", home=tmp_path)
        again = run_cli(*words, home=tmp_path)
    assert plan.returncode == 0
    assert plan.lines[-1].startswith("Dry run: 15 files")
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.lines]
    uploaded = [event for event in events if event["event"] == "uploaded"]
    assert len(uploaded) == 15
    assert {event["dir"] for event in uploaded} == {
        str(root / f"{n}" / ".cirron" / "spool") for n in range(5)
    }
    assert (events[-1]["uploaded"], events[-1]["exitCode"], len(events[-1]["spools"])) == (15, 0, 5)
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == "No spool files to flush in 5 spools\n"


def test_ctrl_c_ends_cleanly(cluster: DaskCluster, tmp_path: Path) -> None:
    root = spools(tmp_path, 10)
    gate = Gate()
    with ScriptedServer(*[ok(stall_before=gate)] * 8) as server:
        words = ["flush", "--discover", root, "--scheduler", cluster.address, "--api-url", server.url]
        with spawn_cli(*words, home=tmp_path) as flush:
            server.wait_for(8)  # one of each thread
            flush.send_signal(signal.SIGINT)
            flush.wait_for_text("Stopping: waiting up to 4 s", "stderr")
            gate.open()
            done = flush.finish()
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    uploaded = int(re.findall(r"Uploaded: (\d+)", done.stdout)[0])
    assert uploaded >= 8
    assert left(root) == 30 - uploaded
    assert left(root) > 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--discover", "ROOT", "--scheduler", "foo"], 2, "foo is not a scheduler"),
        (
            ["--discover", "ROOT", "--scheduler", "tcp://127.0.0.1:1"],
            4,
            "answers at tcp://127.0.0.1:1 within 0.3 s.",
        ),
        (["--scheduler", "tcp://h:1"], 2, "--scheduler needs --discover ROOT, or --dir"),
        (["--discover", "ROOT", "--scheduler", "tcp://h:1", "--watch"], 2, "--watch exclude each other"),
        (["--discover", "ROOT", "--scheduler", "tcp://h:1", "--spools", "2"], 2, "--spools exclude"),
        (
            ["--discover", "ROOT", "--scheduler", "tcp://h:1", "--token-file", "t"],
            2,
            "Add --send-credentials",
        ),
        (["--send-credentials"], 2, "--send-credentials is for a Dask cluster"),
        (
            ["--discover", "ROOT", "--scheduler", "tcp://h:1", "--send-credentials"],
            2,
            "an encrypted scheduler",
        ),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, root: Path, arguments: list[str], code: int, words: str
) -> None:
    (tmp_path / "t").write_text(TOKEN)
    given = [str(root) if word == "ROOT" else word for word in arguments]
    if code == 4:
        given += ["--scheduler-timeout", "300ms"]
    done = run_cli("flush", *given, home=tmp_path, cwd=tmp_path, env={"CIRRON_API_KEY": TOKEN})
    assert done.returncode == code
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert left(root) == 15


def test_without_dask_the_extra_is_named(tmp_path: Path, root: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('No module named distributed')")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = run_cli(
        "flush", "--discover", root, "--scheduler", "tcp://h:1", home=tmp_path, env={"PYTHONPATH": path}
    )
    assert done.returncode == 2
    assert "Install cirron-spool[dask]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


# -- credentials over TLS


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Dask's own configuration, with an authority of our own."""
    import trustme

    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
        folder / "all.pem"
    )
    settings = {"CA_FILE": folder / "ca.pem"}
    for role in ("SCHEDULER", "WORKER", "CLIENT"):
        settings |= {f"{role}__CERT": folder / "all.pem", f"{role}__KEY": folder / "all.pem"}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(path) for name, path in settings.items()}


def test_credentials_travel_over_tls_and_show_nowhere(
    tmp_path: Path, root: Path, tls: dict[str, str]
) -> None:
    debug = {"DASK_LOGGING__DISTRIBUTED": "debug", **tls}
    with (
        ScriptedServer(check_auth=True, access_token=TOKEN) as server,
        # The workers have a login that the platform refuses.
        dask_cluster(tmp_path, config={"token": "access-0"}, protocol="tls", env=debug, workers=1) as cluster,
    ):
        assert cluster.address.startswith("tls://")
        words = [
            "flush",
            "--discover",
            root,
            "--scheduler",
            cluster.address,
            "--api-url",
            server.url,
            "--verbose",
        ]
        env = {"CIRRON_API_KEY": TOKEN, **tls}
        refused = run_cli(*words, home=tmp_path, env=env)
        blocked = root / "0" / ".cirron" / "spool"
        done = run_cli(*words, "--send-credentials", home=tmp_path, env=env)
        plain = run_cli(*words, "--send-credentials", home=tmp_path, env={"CIRRON_API_KEY": TOKEN})
        logs = cluster.scheduler.output("stderr") + cluster.workers[0].output("stderr")
    assert refused.returncode == 3
    assert "Authentication invalid" in refused.stderr
    assert "access-0" not in refused.stderr
    assert done.returncode == 0
    assert "Uploaded: 15" in done.stdout
    assert snapshot(blocked) == []
    assert plain.returncode == 2
    assert "certificates in Dask's configuration" in plain.stderr
    for text in (logs, done.stderr, done.stdout):
        assert TOKEN not in text
    assert "flush_on_worker" in logs or "cirron-spool-flush" in logs
