"""Commands in pipes and on terminals: awaited, answered, signalled, and caught when they hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.cli import clean_environment, run_cli, spawn, write_config
from support.terminal import Exchange, run_pty


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_commands_see_nothing_of_the_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CIRRON_API_KEY", "https_proxy", "HTTP_PROXY", "NO_COLOR", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, "outside")
    env = clean_environment(tmp_path, {"CIRRON_API_ENDPOINT": "http://x"})
    assert "outside" not in env.values()
    assert env["HOME"] == str(tmp_path)
    assert env["CIRRON_API_ENDPOINT"] == "http://x"


def test_config_is_private(tmp_path: Path) -> None:
    path = write_config(tmp_path, apiUrl="http://x", auth={"accessToken": "t"})
    assert json.loads(path.read_text()) == {"apiUrl": "http://x", "auth": {"accessToken": "t"}}
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_command_is_awaited_signalled_and_collected() -> None:
    code = (
        "import signal, sys\n"
        "def stop(*_): print('stopped', file=sys.stderr); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print(sys.stdin.readline(), end='', flush=True)\n"
        "while True: signal.pause()\n"
    )
    with spawn(python(code), stdin=subprocess.PIPE) as run:
        run.write(b"ready\n")
        assert run.wait_for_text("ready") == "ready\n"
        run.send_signal(signal.SIGTERM)
        done = run.finish()
    assert (done.returncode, done.stdout, done.stderr) == (143, "ready\n", "stopped\n")


def test_a_command_that_hangs_or_says_nothing_fails_the_test() -> None:
    with spawn(python("import signal; print('here', flush=True); signal.pause()")) as run:
        run.wait_for_text("here")
        with pytest.raises(AssertionError, match="still runs after 0 s; stdout b'here"):
            run.finish(0)
    with spawn(python("print('short')")) as run, pytest.raises(AssertionError, match="no 'long' on stdout"):
        run.wait_for_text("long")
    assert run.process.returncode == 0


def test_a_closed_stdout_is_closed() -> None:
    with spawn(python("import os; os.write(1, b'x')"), closed_stdout=True) as run:
        done = run.finish()
    assert "BrokenPipeError" in done.stderr


def test_run_cli_runs_this_interpreter() -> None:
    done = run_cli("--no-such-flag")
    assert done.returncode != 0
    assert done.stderr


def test_the_terminal_is_one() -> None:
    code = (
        "import os, sys\n"
        "print(*os.get_terminal_size(), sys.stdin.isatty(), sys.stderr.isatty(), os.environ['TERM'])\n"
        "print('hello', input('name? '))\n"
    )
    done = run_pty(python(code), columns=123, rows=45, answers=[("name? ", "Ann\n")])
    assert done.text.replace("\r", "") == "123 45 True True xterm-256color\nname? Ann\nhello Ann\n"
    assert done.returncode == 0


def test_what_is_not_the_terminal_is_apart() -> None:
    code = "import sys; print(sys.stdout.isatty()); print(sys.stderr.isatty(), file=sys.stderr)"
    done = run_pty(python(code), terminal=["stderr"])
    assert (done.out, done.screen, done.err) == (b"False\n", b"True\r\n", b"")


def test_control_c_on_the_terminal_and_signals_by_pid() -> None:
    code = (
        "import signal\n"
        "try: print('one', flush=True); signal.pause()\n"
        "except KeyboardInterrupt: print('two', flush=True); signal.pause()\n"
    )
    kill: list[Exchange] = [("one", b"\x03"), ("two", lambda pid: os.kill(pid, signal.SIGKILL))]
    done = run_pty(python(code), answers=kill)
    assert done.returncode == -signal.SIGKILL


def test_a_text_that_never_appears_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"b?'password' never appeared; screen b'login"):
        run_pty(python("print('login')"), answers=[("password", "x")])
