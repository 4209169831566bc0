"""The machine that measures, as facts that say nothing about whose it is; and what children are started with."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
LIBRARIES = ("cirron-spool", "aiohttp", "anyio", "aiofiles", "isal", "zlib-ng", "cirron-sdk")

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def child_environment(home: Path) -> dict[str, str]:
    """The environment of every child: a home of its own, no configuration or proxy of the user's."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CIRRON_") and name.lower() not in _PROXIES and name != "PYTHONTRACEMALLOC"
    }
    kept["HOME"] = str(home)
    kept["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    kept["NO_COLOR"] = "1"
    return kept


@cache
def node() -> str | None:
    """The ``node`` to run peers with, when there is one."""
    return shutil.which("node")


@cache
def facts() -> dict[str, Any]:
    """What figures depend on: processors, memory, system, interpreter, libraries."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.machine()}",
        # Of the minute before: on a busy machine the figures are of the others' work as well.
        "load_before": round(os.getloadavg()[0], 2),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "node": _node_version(),
        "libraries": {name: version for name in LIBRARIES if (version := _version(name))},
    }


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
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return told.stdout.strip().removeprefix("v") or None


def one_line() -> str:
    """The facts as a line to print above a table."""
    known = facts()
    libraries = ", ".join(f"{name} {version}" for name, version in known["libraries"].items())
    runtime = f"{known['python']}" + (f", Node {known['node']}" if known["node"] else ", no Node")
    gib = known["memory_bytes"] / (1 << 30)
    busy = f", load {known['load_before']} before" if known["load_before"] > known["cpus"] / 4 else ""
    machine = f"{known['cpus']} CPUs ({known['cpu']}{busy}), {gib:.0f} GiB, {known['system']}"
    return f"{machine}; {runtime}; {libraries}"


def interpreter() -> str:
    """The interpreter that runs everything in Python here."""
    return sys.executable
