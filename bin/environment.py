"""Makes and refreshes .venv for bin/setup. Standard library only: it runs before anything is installed.

A layer that is complete leaves a stamp in .venv that says for which checkout and which pyproject.toml, so
the next start has nothing to do, and a checkout that was moved or pulled is brought up to date. pip reads
its own configuration, as everywhere else. What a failed step printed is kept in .venv/set-up.log.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"

LAYERS = {
    "run": ("--editable", "."),
    "demo": ("--editable", ".", "--group", "demo"),
    "test": ("--group", "tox"),
    "dev": ("--editable", ".", "--group", "dev"),
}

# The first pip that reads the dependency groups of pyproject.toml (PEP 735).
PIP = "pip>=25.1"


class SetUpError(Exception):
    """Why the environment cannot be had, in one line."""


def main(arguments: Sequence[str]) -> int:
    """Set one layer up; return 0, 2 if it cannot be had, or 130 after Ctrl-C."""
    if len(arguments) != 1 or arguments[0] not in LAYERS:
        print(f"bin/setup: say one of: {' '.join(LAYERS)}", file=sys.stderr)
        return 2
    try:
        with one_at_a_time():
            set_up(arguments[0])
    except (SetUpError, OSError) as error:
        print(f"bin/setup: cannot set up {VENV}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bin/setup: interrupted; the next start goes on from here.", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let a second start wait for the first, instead of two pips writing to one environment."""
    folder = os.open(ROOT, os.O_RDONLY)
    try:
        # A file system without locks is no reason not to set up.
        with contextlib.suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def set_up(layer: str) -> None:
    """Make .venv if it is missing or does not run, and install the layer; nothing where it is complete."""
    stamp_file, wanted = VENV / f"set-up-{layer}", stamp()
    usable = runs(PYTHON)
    if usable and stamp_file.is_file() and stamp_file.read_text(encoding="utf-8") == wanted:
        return  # another start was quicker
    print(f"Setting up {VENV} for {layer!r}; the first time takes a minute ...", file=sys.stderr, flush=True)
    if not usable:
        run([sys.executable, "-I", "-m", "venv", "--clear", str(VENV)])
    elif not runs(PYTHON, "import pip"):
        run([str(PYTHON), "-I", "-m", "ensurepip", "--upgrade"])
    pip = [str(PYTHON), "-I", "-m", "pip", "install", "--disable-pip-version-check"]
    run([*pip, PIP])
    run([*pip, *LAYERS[layer]])
    stamp_file.write_text(wanted, encoding="utf-8")


def stamp() -> str:
    """Return what a complete layer is complete for; bin/setup builds the same text."""
    return f"{ROOT}\n{(ROOT / 'pyproject.toml').read_text(encoding='utf-8')}"


def runs(python: Path, statement: str = "") -> bool:
    """Tell whether `python` is there, starts, is new enough, and can run the statement."""
    check = f"import sys; assert sys.version_info >= (3, 11); {statement}"
    try:
        return subprocess.run([python, "-I", "-c", check], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def run(command: list[str]) -> None:
    """Run `command` in the checkout, silently; raise SetUpError with the reason it gave if it fails."""
    done = subprocess.run(
        command,
        cwd=ROOT,  # pip looks for the groups, and for ".", here
        env={**os.environ, "PIP_USER": "0"},  # PIP_USER=1 has no meaning in a virtual environment: pip stops
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if done.returncode == 0:
        return
    VENV.mkdir(exist_ok=True)
    log = VENV / "set-up.log"
    log.write_text(f"$ {' '.join(command)}\n{done.stdout}", encoding="utf-8")
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    reason = (errors or lines or [f"exit code {done.returncode}"])[-1]
    raise SetUpError(f"{reason} (all of it: {log})")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
