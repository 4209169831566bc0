"""The new batches of the known spools, as a watch of many spools finds them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cirron_spool.errors import SpoolError
from cirron_spool.fleet import search
from cirron_spool.fleet.search import Changes
from cirron_spool.spool.listing import list_names
from support.spools import TINY, sdk_batches

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_spool_that_could_not_be_listed_is_listed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = tmp_path / "spool"
    sdk_batches(spool, 2, spans=TINY)
    os.utime(spool, (1_000_000, 1_000_000))  # long ago: an unchanged time is enough for the next polls
    changes = Changes()

    def fail(*_: object) -> None:
        raise SpoolError("Cannot read the spool.")

    with monkeypatch.context() as patch:  # root may read anything
        patch.setattr(search, "list_names", fail)
        assert changes.poll([spool]) == []
    [found] = changes.poll([spool])
    assert found.batches == len(list_names(spool, None).names) == 2
    assert changes.poll([spool]) == []
