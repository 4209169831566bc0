"""The tour that bin/demo gives: a real spool, written, inspected, uploaded, and compared byte for byte.

Everything happens in one temporary folder with a home of its own: the user's spool, credentials and Cirron
variables are neither read nor touched, and nothing leaves the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent  # of the virtual environment: where its commands are

# An end for whatever hangs: each step takes seconds at most.
PATIENCE_S = 120


class DemoError(Exception):
    """What did not hold, in one line."""


def main() -> int:
    """Give the tour; return 0 only if all of it held, 1 if something did not, 130 or 143 if it was ended."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, ended)
    try:
        with tempfile.TemporaryDirectory(prefix="cirron-demo-") as folder:
            tour(Path(folder).resolve())
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing is left running.", file=sys.stderr)
        return 130
    return 0


def ended(number: int, _frame: object) -> NoReturn:
    """Leave through the `finally`s, so that the receiver and the temporary folder go too."""
    sys.exit(128 + number)


def tour(folder: Path) -> None:
    """Take the steps in `folder`; raise DemoError at the first that does not hold."""
    home, work, received = folder / "home", folder / "work", folder / "received"
    for each in (home, work):
        each.mkdir()
    spool = work / ".cirron" / "spool"
    environment = clean_environment(home)

    say("A training script runs under ci.profile(); the SDK spools what it sees, twice a second.")
    step(["python", str(HERE / "train.py"), "4"], work, environment, shown="python train.py")
    written = fingerprints(spool)
    if len(written) < 2:
        raise DemoError(f"the SDK wrote {len(written)} batches to {spool}, and the tour needs several")

    say("What has it left on this disk?")
    step(["cirron", "spool", "inspect"], work, environment)

    say("A receiver that speaks the platform's side starts on a free port of this machine ...")
    token = "sk-" + secrets.token_hex(16)
    with receiver(received, token, work, environment) as url:
        say("... and becomes the platform in a throw-away ~/.cirron/config.json. Upload:")
        configure(home, url, token)
        step(["cirron", "spool", "flush"], work, environment)
        step(["cirron", "spool", "inspect"], work, environment)

    say("What the receiver holds is a spool again:")
    step(
        ["cirron-spool", "inspect", "--dir", str(received)],
        work,
        environment,
        shown="cirron-spool inspect --dir received",
    )

    say("And is it what the SDK wrote?")
    compare(written, fingerprints(received))
    if left := fingerprints(spool):
        raise DemoError(f"{len(left)} batches are still in {spool}")
    size = sum(size for size, _ in written.values())
    print(
        f"Yes: {len(written)} batches, {size:,} bytes, the same byte for byte (SHA-256), and the spool is empty."
    )


def clean_environment(home: Path) -> dict[str, str]:
    """Return this environment with another home and without what would lead a command elsewhere."""
    leading = re.compile(r"CIRRON_.*|(https?|all)_proxy", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not leading.fullmatch(name)}
    # One thread is enough for the model, and two would only wait for each other on a busy machine.
    return {**kept, "HOME": str(home), "OMP_NUM_THREADS": "1"}


def configure(home: Path, url: str, token: str) -> None:
    """Write the configuration as `cirron auth login` would leave it: only its owner may read it."""
    folder = home / ".cirron"
    folder.mkdir(mode=0o700)
    file = folder / "config.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"apiUrl": url, "token": token}, indent=2) + "\n", encoding="utf-8")


def say(text: str) -> None:
    """Print a sentence between two commands."""
    print(f"\n# {text}", flush=True)


def step(command: list[str], work: Path, environment: dict[str, str], shown: str = "") -> None:
    """Show a command of the virtual environment and its own output; raise DemoError if it fails or hangs."""
    shown = shown or shlex.join(command)
    print(f"$ {shown}", flush=True)
    try:
        done = subprocess.run(
            [BIN / command[0], *command[1:]], cwd=work, env=environment, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DemoError(f"`{shown}` was still running after {PATIENCE_S} seconds") from None
    if done.returncode != 0:
        raise DemoError(f"`{shown}` ended with exit code {done.returncode}")


@contextlib.contextmanager
def receiver(store: Path, token: str, work: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a receiver for the block and yield its URL; raise DemoError if it does not start or end well."""
    # Answers as slow as over a real link: at a terminal, one sees the flush's progress.
    options = ["--port", "0", "--latency-ms", "100"]
    command = [str(BIN / "cirron-spool"), "receive", "--store", str(store), *options]
    print(f"$ cirron-spool receive --store received {' '.join(options)} &", flush=True)
    with subprocess.Popen(
        command,
        cwd=work,
        # Not as a flag: the list of processes is for everyone to read.
        env={**environment, "CIRRON_RECEIVE_TOKEN": token},
        stdout=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        watchdog = threading.Timer(PATIENCE_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            ready = process.stdout.readline() if process.stdout else ""
            url = re.search(r"http://[^\s,]+", ready)
            if url is None:
                raise DemoError(f"the receiver did not say where it listens, but {ready!r}")
            print(ready.rstrip(), flush=True)
            yield url[0]
            process.terminate()
            if (code := process.wait()) != 0:
                raise DemoError(f"the receiver ended with exit code {code}")
        finally:
            watchdog.cancel()
            process.kill()  # nothing, where it has ended


def fingerprints(spool: Path) -> dict[str, tuple[int, str]]:
    """Return the size and SHA-256 of every batch in a spool, by file name; nothing where there is no spool."""
    contents = ((file.name, file.read_bytes()) for file in sorted(spool.glob("*.json")))
    return {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in contents}


def compare(written: dict[str, tuple[int, str]], received: dict[str, tuple[int, str]]) -> None:
    """Show both sides of every batch; raise DemoError unless they are the same."""
    for name in sorted({*written, *received}):
        sides = [side.get(name, (0, "missing")) for side in (written, received)]
        if sides[0] == sides[1]:
            size, digest = sides[0]
            print(f"same  {size:>9,} B  {digest[:12]}  {name}")
        else:
            print(f"DIFFERENT: {name}, written {sides[0]}, received {sides[1]}")
    if written != received:
        raise DemoError("the receiver does not hold what the SDK wrote")


if __name__ == "__main__":
    sys.exit(main())
