"""``status``: one screen about spool, login and platform; looking changes nothing."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.answers import Answer, html, json_answer
from support.background import closed_port
from support.cli import CliResult, command_line, spawn, spawn_cli, write_config
from support.fork_server import run_cli
from support.scripted import ScriptedServer
from support.spools import sdk_batches
from support.terminal import run_cli_pty
from support.users import powerless

STATUS = ("GET", "/api/cli/status")
NAME = f"{1776486598051509000:020d}-{{}}.json"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run, with three batches in its spool."""
    spool = tmp_path / "run" / ".cirron" / "spool"
    spool.mkdir(parents=True)
    for digit in "abc":
        (spool / NAME.format(digit * 32)).write_text("{}" * 600, encoding="utf-8")
    return tmp_path / "run"


def spool_of(run_dir: Path) -> Path:
    return run_dir / ".cirron" / "spool"


def status(
    home: Path, run_dir: Path, *args: str, platform: ScriptedServer | None = None, **env: str
) -> CliResult:
    if platform is not None:
        env = {"CIRRON_API_ENDPOINT": platform.url, **env}
    return run_cli("status", *args, home=home, cwd=run_dir, env=env)


def document(done: CliResult) -> dict[str, Any]:
    shown = json.loads(done.stdout)
    assert isinstance(shown, dict)
    assert shown["exitCode"] == done.returncode
    return shown


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_screen(home: Path, run_dir: Path) -> None:
    path = write_config(home, token="sk-long-lived")
    before = contents(run_dir) | contents(home)
    with ScriptedServer() as platform:
        done = status(home, run_dir, platform=platform)
        assert not platform.uploads
    assert done.returncode == 0, done.stderr
    lines = [line.partition(" answers in ")[0] for line in done.lines]
    free = next(line for line in lines if line.startswith("Free disk: "))
    lines.remove(free)
    assert lines == [
        f"Spool: {spool_of(run_dir)}  (3 batches, 4 KB)",
        "Oldest: 2026-04-18T04:29:58.051Z   Newest: 2026-04-18T04:29:58.051Z",
        "SDK limit: 953.67 MB, 0 % full",
        "Quarantine: empty",
        "Snapshots: none",
        f"Account: Alice <alice@example.com> (Example), token from {path} (key token)",
        f"Platform: {platform.url} (CIRRON_API_ENDPOINT)",
        "Next: Run cirron-spool flush to send 3 batches.",
    ]
    assert contents(run_dir) | contents(home) == before


def test_the_form_for_a_program(home: Path, run_dir: Path) -> None:
    write_config(home, token="sk-long-lived")
    with ScriptedServer() as platform:
        shown = document(status(home, run_dir, "--json", platform=platform))
    assert shown["files"] == 3
    assert shown["oldest"]["name"] == NAME.format("a" * 32)
    assert shown["platform"]["answers"] is True
    assert shown["platform"]["milliseconds"] >= 0
    assert shown["account"]["user"] == {"email": "alice@example.com", "name": "Alice"}
    assert shown["next"] == ["Run cirron-spool flush to send 3 batches."]
    assert "sk-long-lived" not in json.dumps(shown)


def test_the_real_spool_of_the_sdk(home: Path, tmp_path: Path) -> None:
    spool = tmp_path / "run" / ".cirron" / "spool"
    sdk_batches(spool, 2)
    shown = document(status(home, tmp_path / "run", "--offline", "--json"))
    assert shown["files"] == 2


def test_offline_asks_nobody_and_needs_no_login(home: Path, run_dir: Path) -> None:
    with ScriptedServer() as platform:
        done = status(home, run_dir, "--offline", platform=platform)
        shown = document(status(home, run_dir, "--offline", "--json", platform=platform))
        assert not platform.requests
    assert done.returncode == 0, done.stderr
    assert f"Platform: {platform.url} (CIRRON_API_ENDPOINT), not asked" in done.stdout
    assert shown["platform"] == {"apiUrl": platform.url, "answers": None}


def test_signed_out(home: Path, run_dir: Path) -> None:
    with ScriptedServer() as platform:
        done = status(home, run_dir, platform=platform)
        shown = document(status(home, run_dir, "--json", platform=platform))
    assert done.returncode == 3
    assert "Account: signed out" in done.stdout
    assert "Next: Run cirron auth login." in done.stdout
    assert done.stderr.startswith("Warning: There is no token in CIRRON_API_KEY, ")
    assert "Error: Not authenticated. Run cirron auth login first.\n" in done.stderr
    assert shown["error"]["type"] == "NotAuthenticatedError"


@pytest.mark.parametrize(
    ("answer", "exit_code", "kind"),
    [
        (Answer(401), 3, "AuthInvalidError"),
        (Answer(503), 4, "PlatformError"),
        (html(), 4, "PlatformError"),
        (json_answer([]), 4, "PlatformError"),
    ],
    ids=["refused", "503", "page", "list"],
)
def test_a_platform_that_does_not_accept_the_token(
    home: Path, run_dir: Path, answer: Answer, exit_code: int, kind: str
) -> None:
    write_config(home, token="sk-long-lived")
    with ScriptedServer() as platform:
        platform.on(*STATUS, default=answer)
        done = status(home, run_dir, "--json", platform=platform)
    shown = document(done)
    assert (done.returncode, shown["error"]["type"]) == (exit_code, kind)
    assert done.stderr.startswith("Error: ")
    assert "sk-long-lived" not in done.stdout + done.stderr


def test_a_platform_that_is_away(home: Path, run_dir: Path) -> None:
    write_config(home, token="sk-long-lived")
    done = status(home, run_dir, CIRRON_API_ENDPOINT=f"http://127.0.0.1:{closed_port()}")
    assert done.returncode == 4
    assert "does not answer" in done.stdout
    assert "Next: Check the network and the address." in done.stdout


def quarantine(run_dir: Path) -> None:
    folder = run_dir / ".cirron" / "quarantine"
    folder.mkdir()
    (folder / NAME.format("d" * 32)).write_text("{", encoding="utf-8")


def empty_batch(run_dir: Path) -> None:
    (spool_of(run_dir) / NAME.format("e" * 32)).touch()


def stranger(run_dir: Path) -> None:
    (spool_of(run_dir) / NAME.format("f" * 32)).mkdir()


@pytest.mark.parametrize(
    ("make", "kind", "line"),
    [
        (quarantine, "Quarantined", "Warning: The platform rejected 1 batch, which is in quarantine.\n"),
        (
            empty_batch,
            "EmptyBatch",
            f"Warning: 1 empty batch cannot be sent, such as {NAME.format('e' * 32)}",
        ),
        (stranger, "NotABatch", "is not a regular file.\n"),
    ],
)
def test_a_problem_that_can_be_seen_beforehand(
    home: Path, run_dir: Path, make: Callable[[Path], None], kind: str, line: str
) -> None:
    make(run_dir)
    done = status(home, run_dir, "--offline", "--json")
    assert (done.returncode, document(done)["error"]["type"]) == (1, kind)
    assert line in done.stderr


def test_a_spool_that_is_nearly_full_by_the_sdks_own_limit(home: Path, run_dir: Path) -> None:
    done = status(home, run_dir, "--offline", CIRRON_SPOOL_MAX_BYTES="4000")
    assert (done.returncode, "SDK limit: 4 KB, 90 % full" in done.stdout) == (1, True)
    assert "The SDK deletes the oldest batches beyond its limit." in done.stderr
    folder = home / ".cirron"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text("[default]\nspool_max_bytes = 3600\n", encoding="utf-8")
    assert "SDK limit: 4 KB, 100 % full" in status(home, run_dir, "--offline").stdout


@pytest.mark.parametrize("value", ["", "x", "-1", "0", "1e9"])
def test_a_limit_that_the_sdk_could_not_use(home: Path, run_dir: Path, value: str) -> None:
    assert "SDK limit: 953.67 MB" in status(home, run_dir, "--offline", CIRRON_SPOOL_MAX_BYTES=value).stdout


def test_snapshots_that_stay_behind(home: Path, run_dir: Path) -> None:
    place = run_dir / ".cirron" / "snapshots" / "span"
    place.mkdir(parents=True)
    (place / "weights.safetensors").touch()
    done = status(home, run_dir, "--offline")
    assert done.returncode == 0
    assert f"Snapshots: 1 file in {place.parent}\n" in done.stdout


@pytest.mark.thorough
def test_a_flush_that_is_at_work(home: Path, run_dir: Path) -> None:
    write_config(home, token="sk-long-lived")
    with ScriptedServer(Answer(hang=True)) as platform:
        env = {"CIRRON_API_ENDPOINT": platform.url}
        with spawn_cli("flush", home=home, cwd=run_dir, env=env) as running:
            platform.wait_for(1)
            shown = document(status(home, run_dir, "--json", platform=platform))
            running.send_signal(signal.SIGTERM)
            running.finish()
        after = document(status(home, run_dir, "--json", platform=platform))
    assert (shown["atWork"], after["atWork"]) == (True, False)
    assert shown["next"] == ["Wait until the running flush or clear ends."]


def test_looking_never_makes_a_flush_believe_that_the_spool_is_busy(home: Path, run_dir: Path) -> None:
    (spool_of(run_dir) / ".cirron-spool.lock").touch()  # left over from a killed flush
    write_config(home, token="sk-long-lived")
    done = status(home, run_dir, "--offline", "--json")
    assert document(done)["atWork"] is False
    assert (spool_of(run_dir) / ".cirron-spool.lock").exists()


def test_a_spool_that_cannot_be_written(home: Path, run_dir: Path) -> None:
    spool_of(run_dir).chmod(0o500)
    command = command_line(["status", "--offline"])
    argv = powerless(command) if os.geteuid() == 0 else command
    with spawn(argv, home=home, cwd=run_dir) as running:
        done = running.finish()
    spool_of(run_dir).chmod(0o700)
    assert done.returncode == 1
    assert "No write permission on" in done.stderr


def test_a_corrupt_configuration(home: Path, run_dir: Path) -> None:
    path = write_config(home)
    path.write_text("{", encoding="utf-8")
    done = status(home, run_dir)
    assert done.returncode == 2
    assert f"Error: {path} is not valid JSON." in done.stderr
    empty = status(home, run_dir, "--dir", str(run_dir / "nosuch"))
    assert (empty.returncode, "Next: Correct the problem below.\n" in empty.stdout) == (2, True)
    assert "(3 batches, 4 KB)" in done.stdout  # the spool is shown nevertheless


def test_no_spool(home: Path, tmp_path: Path) -> None:
    done = run_cli("status", "--offline", "--dir", tmp_path / "nosuch", home=home)
    assert done.returncode == 0
    assert f"Spool: {tmp_path / 'nosuch'}  (does not exist yet)" in done.stdout
    assert "Warning: " in done.stderr
    assert "Next: Nothing is left to do." in done.stdout


def test_cirron_has_it_too_and_a_terminal_shows_it_plainly(home: Path, run_dir: Path) -> None:
    shown = run_cli_pty("status", "--offline", home=home, cwd=run_dir, prog="cirron")
    assert shown.returncode == 0
    assert "\x1b" not in shown.text
    assert "Next: Run cirron-spool flush to send 3 batches." in shown.text
