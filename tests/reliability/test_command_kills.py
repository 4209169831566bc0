"""The real command, killed at any instant, loses nothing and resends two batches at most."""

from __future__ import annotations

from pathlib import Path

import command_kills
from harness import new_seed


def test_50_kills_of_the_command(tmp_path: Path) -> None:
    report = command_kills.run(tmp_path, 50, new_seed())
    print(report)
    assert report.by_mode["instant"] > 5 and report.by_mode["upload"] > 5
    assert report.seen_on_disk[1] > 1
