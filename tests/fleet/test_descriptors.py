"""The limit of open files decides how many spools are flushed at once."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import pytest

from cirron_spool.fleet.descriptors import fitting_spools
from cirron_spool.pipeline.options import InFlight
from support.cli import SAFETY_NET, clean_environment, command_line, write_config
from support.scripted import ScriptedServer
from support.spools import write_batch


@pytest.mark.parametrize(
    ("spools", "in_flight", "limit", "fitting"),
    [
        (64, 1, None, 64),
        (64, 1, 1024, 64),
        (4, 1, 256, 4),
        (64, 1, 256, 26),
        (64, 64, 1024, 7),
        (4, 1, 10, 1),
    ],
)
def test_so_many_spools_fit(spools: int, in_flight: InFlight, limit: int | None, fitting: int) -> None:
    assert fitting_spools(spools, in_flight, limit) == fitting
    assert fitting_spools(spools, "auto", limit) <= spools


def test_a_low_limit_of_open_files_is_a_warning_and_all_is_sent(tmp_path: Path) -> None:
    for number in range(80):
        spool = tmp_path / "runs" / str(number) / ".cirron" / "spool"
        spool.mkdir(parents=True)
        write_batch(spool, 1, f"{number:04x}")
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-files")
        done = subprocess.run(
            command_line(["flush", "--discover", "runs", "--spools", "64", "--json"]),
            cwd=tmp_path,
            env=clean_environment(tmp_path),
            capture_output=True,
            timeout=SAFETY_NET,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)),
            check=False,
        )
    document = json.loads(done.stdout)
    assert (done.returncode, document["uploaded"]) == (0, 80), done.stderr
    said = "This process may open 128 files: 10 spools at once instead of 64. Raise the limit (ulimit -n) for more."
    assert said in os.fsdecode(done.stderr)
