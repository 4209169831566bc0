"""Environments that a real machine can give: another Python, another user, fewer resources, another network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import cirron_spool

DEBIANS_PYTHON = Path("/usr/bin/python3")


@dataclass(frozen=True)
class Installation:
    """The package and what it needs, in a folder that any user may read, and an interpreter that any user may run."""

    python: Path
    site: Path

    def command(self, *args: str) -> list[str]:
        """The argv of ``cirron-spool``."""
        return [str(self.python), "-m", "cirron_spool", *args]

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Variables for it, without a home; ``extra`` is put on top."""
        path = {"PATH": os.defpath, "PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}
        return {**path, **(extra or {})}

    def run(
        self,
        *args: str,
        uid: int | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run ``cirron-spool args`` to its end, as another user with ``uid``."""
        return subprocess.run(
            self.command(*args),
            cwd=cwd or self.site,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )


@contextmanager
def installation(python: Path) -> Iterator[Installation]:
    """Copy the package and its dependencies for ``python``. Skips where that cannot run what is installed here."""
    if not python.exists():
        pytest.skip(f"no {python} here")
    said = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=True
    )
    if said.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{python} is another version than the libraries that are installed here are for")
    site = Path(tempfile.mkdtemp(prefix="cirron-spool-site-"))
    try:
        site.chmod(0o755)
        for name in _needed("cirron-spool", set()) - {"cirron-spool"}:
            _copy(name, site)
        shutil.copytree(Path(cirron_spool.__file__).parent, site / "cirron_spool", symlinks=True)
        yield Installation(python, site)
    finally:
        shutil.rmtree(site)


def python_for_everybody() -> Path:
    """An interpreter of this version that any user may run. Skips where there is none."""
    real = Path(sys.executable).resolve()
    for python in (real, DEBIANS_PYTHON):
        if python.exists() and all(folder.stat().st_mode & 0o001 for folder in python.parents):
            return python
    pytest.skip("no interpreter that another user may run")


def _needed(name: str, known: set[str]) -> set[str]:
    """The distributions that ``name`` needs, itself included."""
    if name not in known:
        known.add(name)
        for line in distribution(name).requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                _needed(requirement.name, known)
    return known


def _copy(name: str, site: Path) -> None:
    for file in distribution(name).files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def in_namespace(*, network: bool, setup: str) -> list[str]:
    """The first words of an argv that runs the rest of it in a mount namespace, and a network one, after ``setup``.

    ``setup`` is a shell's. Skips where this user may not have one.
    """
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    unshare = ["unshare", "--mount", *(["--net"] if network else []), *as_root]
    script = f'set -e; {setup}\nexec "$@"'
    tried = subprocess.run([*unshare, "sh", "-c", script, "sh", "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this system refuses such a namespace: {tried.stderr.decode().strip()}")
    return [*unshare, "sh", "-c", script, "sh"]


@contextmanager
def pids_cgroup(limit: int) -> Iterator[list[str]]:
    """The first words of an argv whose process, with all its threads and children, may be ``limit`` tasks.

    Skips where this user may not make a control group.
    """
    group = _group_for(limit)
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        group.rmdir()


def _group_for(limit: int) -> Path:
    for root in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
        group = root / f"cirron-spool-test-{os.getpid()}-{limit}"
        with suppress(OSError):
            group.mkdir()
            try:
                (group / "pids.max").write_text(str(limit), encoding="ascii")
            except OSError:
                group.rmdir()
                raise
            return group
    pytest.skip("this system lets us make no control group for pids")
