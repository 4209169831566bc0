"""The pages of the documentation: their blocks, and a throw-away world in which these are run."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .cli import PYTHON_SCRIPT, Running, spawn, spawn_cli

# The pages have these in place of this run's folder and port.
FOLDER = "/home/alice/resnet50"
PORT = "8787"
TOKEN = "sk-try-it"


class NamedFile(NamedTuple):
    """A file that a page shows: its language in the fence, and its text."""

    language: str
    text: str


def blocks(language: str, text: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def named_files(text: str) -> dict[str, NamedFile]:
    """The blocks that have a file name of their own line before them, by that name."""
    found = re.findall(r"^`([^`\n]+)`\n\n```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return {name: NamedFile(language, content) for name, language, content in found}


class World:
    """A throw-away home with a working directory in it, and the commands first on a PATH without another cirron."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.home = self.root / "home"
        self.work = self.home / "resnet50"
        self.port = PORT
        programs = self.root / "bin"
        for folder in (self.work, programs):
            folder.mkdir(parents=True)
        for name in ("cirron", "cirron-spool"):
            entry = name.replace("-", "_")
            program = programs / name
            # As pip writes a console script.
            program.write_text(
                f"{PYTHON_SCRIPT}import sys\nfrom cirron_spool.cli.main import {entry}\nsys.exit({entry}())\n",
                encoding="utf-8",
            )
            program.chmod(0o755)
        self.env = {"PATH": os.pathsep.join([str(programs), "/usr/bin", "/bin"])}

    def here(self, text: str) -> str:
        """The README's ``text`` with this run's folder and port."""
        return text.replace(FOLDER, str(self.work)).replace(PORT, self.port)

    def there(self, text: str) -> str:
        """Output of this run as the README would show it."""
        shown = text.replace(str(self.work), FOLDER).replace(f":{self.port}", f":{PORT}")
        return shown.replace(str(self.home), os.path.dirname(FOLDER))

    def start(self, command: str) -> Running:
        """Run a line in a shell, both of its streams as one, as on a terminal."""
        argv = ["/bin/sh", "-c", f"exec 2>&1; {command}"]
        return spawn(argv, cwd=self.work, home=self.home, env=self.env)


@contextmanager
def ended(running: Running) -> Iterator[Running]:
    """A receiver in the background, which ends on a signal with exit code 0."""
    with running:
        yield running
        running.send_signal(signal.SIGTERM)
        assert running.finish().returncode == 0


@contextmanager
def receiving(world: World) -> Iterator[Path]:
    """A receiver whose address and token are in the world's environment; its store."""
    store = world.root / "store"
    with ended(spawn_cli("receive", "--store", store, "--port", "0", "--token", TOKEN)) as receiver:
        found = re.search(r"http://\S+:\d+", receiver.wait_for_text("\n"))
        assert found is not None
        world.env.update(CIRRON_API_ENDPOINT=found[0], CIRRON_API_KEY=TOKEN)
        yield store
