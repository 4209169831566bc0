"""The real SDK writes and evicts while the spool is flushed: nothing is lost, and the SDK does not notice."""

from __future__ import annotations

from pathlib import Path

import alongside
from harness import new_seed


def test_two_writers_with_a_small_cap(tmp_path: Path) -> None:
    report = alongside.run(tmp_path, 1200, 2, alongside.CAP_BYTES, new_seed())
    print(report)
    # Both happened: batches were taken from under the flush, and batches were delivered.
    assert report.evicted > 50
    assert report.acknowledged > 50


def test_four_writers_without_a_cap_in_reach(tmp_path: Path) -> None:
    report = alongside.run(tmp_path, 800, 4, 1_000_000_000, new_seed())
    print(report)
    assert report.evicted == 0
    assert report.acknowledged == report.written
