"""The configuration of the tests of tokens."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def config(tmp_path: Path) -> Path:
    folder = tmp_path / "home" / ".cirron"
    folder.mkdir(mode=0o700, parents=True)
    return folder / "config.json"
