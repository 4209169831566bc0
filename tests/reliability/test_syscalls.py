"""System calls of the real command killed or failed, a sample: all end states are legal."""

from __future__ import annotations

from pathlib import Path

import pytest
import syscalls
from harness import new_seed


def test_a_sample_of_system_calls(tmp_path: Path) -> None:
    if why_not := syscalls.unavailable():
        pytest.skip(why_not)
    report = syscalls.run(tmp_path, 30, new_seed())
    print(report)
    assert report.run - report.idle >= 30
