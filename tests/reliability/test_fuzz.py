"""Names, configurations, Retry-After and answers as nobody would write them: nothing uncaught."""

from __future__ import annotations

from pathlib import Path

import fuzz


def test_every_target(tmp_path: Path) -> None:
    tried = fuzz.run(tmp_path, 400)
    print(tried)
    assert set(tried) == {"names", "configuration", "retry-after", "verdict", "answers"}
