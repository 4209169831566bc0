"""Spools of the tests have the shape of a real run."""

from __future__ import annotations

import json
import os
from pathlib import Path

from support import spools


def test_sdk_batches_are_the_sdks(tmp_path: Path) -> None:
    typical = spools.sdk_batches(tmp_path / "a", 8)
    assert spools.sdk_batches(tmp_path / "b", 8) == typical
    assert spools.sdk_batches(tmp_path / "c", 8, seed=1) != typical
    assert all(20_000 <= len(batch.data) <= 105_000 for batch in typical)
    assert [batch.name for batch in typical] == sorted(os.listdir(tmp_path / "a"))
    assert len({batch.created_ns for batch in typical}) == 8
    for batch in typical:
        document = json.loads(batch.data)
        assert document["batch_id"] == batch.batch_id
        assert document["created_ns"] == batch.created_ns
        ids = {span["id"] for span in document["spans"]}
        assert all(mark["span_id"] in ids for mark in document["marks"])
    assert all(len(batch.data) < 1024 for batch in spools.sdk_batches(tmp_path / "t", 5, spans=spools.TINY))
    left = spools.sdk_batches(tmp_path / "e", 20, max_bytes=200_000)
    assert 0 < len(left) < 20


def test_a_real_run_has_the_same_shape(tmp_path: Path) -> None:
    sealed = spools.profiled_run(tmp_path / "run")
    assert len(sealed) >= 3
    real = json.loads(sealed[0].data)
    made = json.loads(spools.sdk_batches(tmp_path / "made", 1)[0].data)
    assert real.keys() == made.keys()
    for kind in ("spans", "marks"):
        assert real[kind][0].keys() == made[kind][0].keys()
