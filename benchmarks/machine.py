"""Facts of this machine without names or paths, and the environment of child processes."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = ("cirron-spool", "aiohttp", "anyio", "aiofiles", "isal", "zlib-ng", "cirron-sdk")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def child_environment(home: Path) -> dict[str, str]:
    """The environment with another home, without the user's configuration and proxies."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CIRRON_") and name.lower() not in _PROXIES and name != "PYTHONTRACEMALLOC"
    }
    paths = [str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return kept | {"HOME": str(home), "PYTHONPATH": os.pathsep.join(paths), "NO_COLOR": "1"}


@cache
def node() -> str | None:
    """The path of ``node``, or None."""
    return shutil.which("node")


@cache
def facts() -> dict[str, Any]:
    """Processors, memory, system, interpreter and library versions. ``load_before`` is the load of the last minute."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        "load_before": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "node": _node_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def one_line() -> str:
    """The facts in one line."""
    known = facts()
    libraries = ", ".join(f"{name} {version}" for name, version in known["libraries"].items())
    busy = f", load {known['load_before']} before" if known["load_before"] > known["cpus"] / 4 else ""
    gib = known["memory_bytes"] / (1 << 30)
    machine = f"{known['cpus']} CPUs ({known['cpu']}{busy}), {gib:.0f} GiB, {known['system']}"
    return f"{machine}; {known['python']}; Node {known['node'] or 'is not installed'}; {libraries}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _node_version() -> str | None:
    program = node()
    if program is None:
        return None
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.strip().removeprefix("v") or None
