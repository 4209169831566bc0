"""The bar in a real terminal that wraps its lines again when it gets narrower, as most do.

The bar is at the bottom of the screen. From the top, tmux moves wrapped lines out of the screen, where nothing can be
wiped.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.answers import Answer, Gate
from support.cli import clean_environment, command_line
from support.scripted import ScriptedServer

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


class Tmux:
    """A tmux server of its own with one pane, whose output is read as it comes."""

    def __init__(self, folder: Path, columns: int) -> None:
        self._command = ["tmux", "-S", str(folder / "tmux"), "-f", os.devnull]
        self._output = folder / "output"
        os.mkfifo(self._output)
        shell = "env -i TERM=$TERM TMUX=$TMUX PATH=$PATH PS1= sh"
        self.tell("new-session", "-d", "-x", str(columns), "-y", "20", shell)
        self.tell("pipe-pane", f"cat > {shlex.quote(str(self._output))}")
        self._reader = os.open(self._output, os.O_RDONLY)

    def close(self) -> None:
        self.tell("kill-server")
        os.close(self._reader)

    def tell(self, *args: str) -> str:
        done = subprocess.run([*self._command, *args], capture_output=True, text=True, check=True)
        return done.stdout

    def wait_for(self, text: str) -> None:
        """Block until `text` has come out since the last call."""
        seen = b""
        while text.encode() not in seen:
            data = os.read(self._reader, 65536)
            assert data, seen
            seen += data

    @property
    def lines(self) -> list[str]:
        """The rows of the screen and those above it."""
        return self.tell("capture-pane", "-p", "-S", "-").rstrip().splitlines()


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    terminal = Tmux(tmp_path, 100)
    yield terminal
    terminal.close()


@pytest.mark.parametrize("columns", [60, 30, 12])
def test_a_terminal_that_gets_narrower_keeps_nothing_of_the_bar(
    tmux: Tmux, tmp_path: Path, columns: int
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    for digit in "ab":
        (spool / f"{1776486598051509000:020d}-{digit * 32}.json").write_text("{}", encoding="utf-8")
    gate = Gate()
    with ScriptedServer(Answer(stall_before=gate), Answer()) as platform:
        env = clean_environment(tmp_path)
        env |= {"CIRRON_API_KEY": "sk-try-it", "CIRRON_API_ENDPOINT": platform.url}
        script = tmp_path / "flush.sh"
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
        command = shlex.join(command_line(["flush", "--dir", str(spool)]))
        script.write_text(f"{exports}seq 40\necho before\n{command}\necho after\n", encoding="utf-8")
        tmux.tell("send-keys", f". {shlex.quote(str(script))}", "Enter")
        tmux.wait_for("0/2 batches")
        tmux.tell("resize-window", "-x", str(columns))
        tmux.wait_for("0/2")
        tmux.wait_for("0/2")
        gate.open()
        tmux.wait_for("after")
    # tmux breaks the lines again; a blank at the end of a row is not shown.
    left = "".join(tmux.lines).partition("before")[2].replace(" ", "")
    assert left.startswith("Uploaded:2Failed:0Skipped:0Sent:")
    assert left.endswith("after")
