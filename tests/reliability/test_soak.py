"""A long spool through a server that fails one upload in twenty: once by id, in order, memory and descriptors flat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import soak
from harness import new_seed


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_2000_batches(tmp_path: Path) -> None:
    report = soak.run(tmp_path, 2000, new_seed())
    print(report)
    assert sum(report.faults.values()) > 40 and len(report.faults) > 8
    assert report.refreshes > 0
    first, second = report.halves(report.memory)
    assert second - first < 4 * 1024, "memory grows with the number of batches"
    assert max(report.descriptors) - min(report.descriptors) <= 3, "descriptors leak"
