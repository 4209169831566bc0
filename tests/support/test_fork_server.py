"""A forked command does what a started one does, and a hang, an exit code and a gone owner are seen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import cli, fork_server, tls
from support.answers import Answer
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot


@pytest.mark.thorough
@pytest.mark.parametrize("prog", ["cirron-spool", "cirron"])
@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["--version"], None),
        (["flush", "--help"], None),
        (["inspect", "--dir", "."], None),
        (["no-such-command"], None),
        (["clear", "--dir", "spool"], "n\n"),
        (["flush", "--dir", "spool"], None),
    ],
    ids=str,
)
def test_a_fork_ends_as_a_started_python_does(
    tmp_path: Path, prog: cli.Prog, words: list[str], given: str | None
) -> None:
    batches = sdk_batches(tmp_path / "spool", 2, spans=TINY)
    if prog == "cirron" and words != ["--version"]:
        words = ["spool", *words]
    env = {"COLUMNS": "60", "CIRRON_API_ENDPOINT": "http://127.0.0.1:9"}
    started, forked = (
        run(*words, home=tmp_path, cwd=tmp_path, env=env, input=given, prog=prog)
        for run in (cli.run_cli, fork_server.run_cli)
    )
    assert (forked.returncode, forked.out, forked.err) == (started.returncode, started.out, started.err)
    assert forked.out or forked.err
    assert snapshot(tmp_path / "spool") == batches


@pytest.mark.parametrize(("answers", "code"), [([], 0), ([Answer(404)], 1)])
def test_a_fork_sends_and_deletes(tmp_path: Path, answers: list[Answer], code: int) -> None:
    batches = sdk_batches(tmp_path / ".cirron/spool", 2, spans=TINY)
    with ScriptedServer(*answers) as server:
        env = {"CIRRON_API_KEY": "sk-fork", "CIRRON_API_ENDPOINT": server.url}
        done = fork_server.run_cli("flush", "--no-verify", home=tmp_path, cwd=tmp_path, env=env)
        delivered = list(server.delivered)
    assert done.returncode == code
    assert delivered == ([] if code else [batch.batch_id for batch in batches])
    assert snapshot(tmp_path / ".cirron/spool") == (batches if code else [])


def test_one_process_forks_all_commands() -> None:
    server = fork_server._server_for({})
    assert server is not None
    assert server is fork_server._server_for({"CIRRON_API_KEY": "x", "https_proxy": "y", "HOME": "z"})


def test_a_command_that_hangs_is_killed_and_fails_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork_server.run_cli("--version")
    with (
        monkeypatch.context() as patch,
        pytest.raises(AssertionError, match=r"still runs after 0\.5 s; stdout"),
    ):
        patch.setattr(cli, "SAFETY_NET", 0.5)
        fork_server.run_cli("receive", "--store", tmp_path, "--port", "0")
    assert fork_server.run_cli("--version").returncode == 0


@pytest.mark.thorough
def test_what_is_read_at_a_start_has_a_process_of_its_own(tmp_path: Path) -> None:
    trusted = {"CIRRON_API_KEY": "sk-fork", "SSL_CERT_FILE": str(tls.AUTHORITY)}
    with ScriptedServer(tls=tls.server_context()) as server:
        for env, code in ([(trusted, 0)] * 3) + [({**trusted, "SSL_CERT_FILE": ""}, 1)] * 3:
            sdk_batches(tmp_path / ".cirron/spool", 1, spans=TINY)
            done = fork_server.run_cli("flush", "--api-url", server.url, home=tmp_path, cwd=tmp_path, env=env)
            assert done.returncode == code, done.stderr
    assert len(server.delivered) == 1
    servers = [fork_server._server_for(env) for env in ({}, trusted, {"SSL_CERT_FILE": ""})]
    assert len(set(map(id, servers))) == 3


def test_the_servers_end_with_their_owner() -> None:
    code = (
        "from support import fork_server\n"
        "for _ in range(3): fork_server.run_cli('--version', env={'SSL_CERT_FILE': ''})\n"
        "fork_server.run_cli('--version')\n"
        "print(*(server._process.pid for server in fork_server._servers.values()))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
