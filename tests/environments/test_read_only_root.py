"""A system whose root directory is read-only, as containers have it: only the spool can be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import command_line, spawn, write_config
from support.environments import in_namespace
from support.scripted import ScriptedServer
from support.spools import TINY, sdk_batches, snapshot


@pytest.mark.parametrize("writable", [True, False], ids=["spool writable", "spool read-only"])
def test_a_flush_on_a_read_only_system(tmp_path: Path, writable: bool) -> None:
    spool = tmp_path / ".cirron/spool"
    written = sdk_batches(spool, 2, spans=TINY)
    # A mount of its own keeps its own mode when the one around it becomes read-only.
    setup = (
        f"mount --bind '{tmp_path}' '{tmp_path}'; mount --bind '{spool}' '{spool}'; "
        f"mount -o remount,bind,ro '{tmp_path}'; mount -o remount,bind,ro /"
    )
    if not writable:
        setup += f"; mount -o remount,bind,ro '{spool}'"
    namespace = in_namespace(network=False, setup=setup)
    with ScriptedServer() as server:
        write_config(tmp_path, apiUrl=server.url, token="sk-read-only")
        argv = [*namespace, *command_line(["flush"])]
        with spawn(argv, home=tmp_path, cwd=tmp_path) as running:
            done = running.finish()
        assert len(server.delivered) == (2 if writable else 0)
    if writable:
        assert (done.returncode, done.stdout, done.stderr) == (0, "Uploaded: 2  Failed: 0  Skipped: 0\n", "")
        assert snapshot(spool) == []
    else:
        assert done.returncode == 1
        assert "Error: " in done.stderr
        assert "Traceback" not in done.stderr
        assert snapshot(spool) == written
