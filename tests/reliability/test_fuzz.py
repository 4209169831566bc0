"""Names, configurations, Retry-After and answers as nobody would write them: nothing uncaught."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fuzz
import pytest

from support.monitor import DeleteWatch, watch_deletes


@pytest.fixture(autouse=True)
def deletes() -> Iterator[DeleteWatch]:
    """The fuzzer's own server decides what it acknowledged, and the target checks every delete against that."""
    with watch_deletes(acknowledged=lambda name: True) as watch:
        yield watch


def test_every_target(tmp_path: Path) -> None:
    tried = fuzz.run(tmp_path, 200)
    print(tried)
    assert set(tried) == {"names", "configuration", "retry-after", "verdict", "answers"}
