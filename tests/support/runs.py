"""Runs under the real ``ci.profile()``: nested scopes, threads, marks that diverge, snapshots, and a sudden end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .cli import SAFETY_NET, clean_environment
from .spools import FIRST_NS, snapshot, write_batch

_RUN = """
import os, sys, threading, time, uuid
import cirron as ci
from cirron.core.snapshot_buffer import get_default_snapshot_buffer
from cirron.snapshots.types import TraceSnapshot

epochs, steps, killed = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "killed"
ci.profile(frameworks=[], output="spool")

def load():
    for number in range(steps):
        with ci.scope("prefetch", index=number):
            pass

for epoch in range(epochs):
    with ci.scope("epoch", index=epoch) as scope:
        thread = threading.Thread(target=load)
        thread.start()
        for step in range(steps):
            with ci.scope("step", index=step, lr=0.1):
                with ci.scope("forward"):
                    pass
                with ci.scope("backward"):
                    pass
                ci.mark("loss", float("nan") if epoch == epochs - 1 else 1.0 / (step + 1), step=step)
        thread.join()
        ci.mark("accuracy", epoch / epochs, kind="summary")
        ci.mark("best", epoch % 2 == 0)
        bins = [number / 16 for number in range(17)]
        stats = {"mean": 0.5, "std": float("inf") if epoch == epochs - 1 else 0.1, "min": 0.0, "max": 1.0, "norm": 2.0,
                 "histogram": {"bins": bins, "counts": list(range(16))}}
        get_default_snapshot_buffer().append(TraceSnapshot(
            uuid.uuid4().hex, scope.id, "layer.weight", [4, 4], "float32", "stats", stats, None, time.time_ns()))
    ci.flush()
if killed:
    os._exit(0)
ci.shutdown()
"""


def traced_run(
    directory: Path, *, epochs: int = 3, steps: int = 4, rank: int | None = None, killed: bool = False
) -> Path:
    """Run a loop with a worker thread, marks and snapshots, whose last loss is NaN; return its spool.

    A ``killed`` run ends without its last batch, which has the session's root span.
    """
    directory.mkdir(parents=True, exist_ok=True)
    extra = {"CIRRON_OUTPUT_DIR": str(directory), "CIRRON_ENABLED": "1"}
    if rank is not None:
        extra["RANK"] = str(rank)
    command = [sys.executable, "-c", _RUN, str(epochs), str(steps), "killed" if killed else "closed"]
    done = subprocess.run(
        command,
        cwd=directory,
        env=clean_environment(directory, extra),
        capture_output=True,
        timeout=SAFETY_NET,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert snapshot(directory / "spool"), done.stderr.decode()
    return directory / "spool"


def span(
    id_: str, parent: str | None, name: str, start: int, end: int | None, **more: object
) -> dict[str, Any]:
    """A span as the SDK writes it, with times in ns behind the first batch's."""
    return {
        "id": id_,
        "name": name,
        "parent_id": parent,
        "index": None,
        "start_ns": FIRST_NS + start,
        "end_ns": None if end is None else FIRST_NS + end,
        "thread_id": 1,
        "pid": 7,
        "rank": 0,
        "attrs": {},
        "mark_ids": [],
        **more,
    }


def mark(id_: str, span_id: str, name: str, value: object, at: int, **more: object) -> dict[str, Any]:
    """A mark as the SDK writes it."""
    return {
        "id": id_,
        "span_id": span_id,
        "name": name,
        "value_type": "float",
        "value": value,
        "attrs": {},
        "ts_ns": FIRST_NS + at,
        "kind": "point",
        **more,
    }


def lay(spool: Path, number: int, document: Mapping[str, object] | bytes) -> Path:
    """Write a batch with these records, or these bytes, as number ``number`` of the spool."""
    whole = {
        "schema_version": 1,
        "sdk_version": "0.3.0",
        "batch_id": f"{number:032x}",
        "created_ns": FIRST_NS + number,
    }
    body = document if isinstance(document, bytes) else json.dumps({**whole, **document}).encode()
    return write_batch(spool, FIRST_NS + number, f"{number:032x}", body)
