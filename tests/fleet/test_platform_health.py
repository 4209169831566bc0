"""The failures of some spools that end the flush of all."""

from __future__ import annotations

from pathlib import Path

import pytest

from cirron_spool import FlushResult
from cirron_spool.fleet.platform_health import PlatformHealth
from cirron_spool.protocol.verdict import Action, Verdict

FINE = (FlushResult(Path("a"), uploaded=1), None)
REJECTED = (FlushResult(Path("a"), failed=1), Verdict(Action.REJECTED, 422))
SET_ASIDE = (FlushResult(Path("a"), quarantined=1), None)
EMPTY = (FlushResult(Path("a")), None)
OUTAGE = (FlushResult(Path("a"), failed=1), Verdict(Action.RETRY, 503))
LATER = (FlushResult(Path("a"), failed=1), Verdict(Action.RETRY, 429, later_s=600.0))
NO_ROUTE = (FlushResult(Path("a"), uploaded=5, failed=1), Verdict(Action.STOP, 404))
REFUSED = (FlushResult(Path("a"), failed=1), Verdict(Action.REFRESH, 401))


@pytest.mark.parametrize(
    ("spools", "words"),
    [
        ([FINE, EMPTY] * 20, ""),
        ([NO_ROUTE], "The answer is the same"),
        ([REFUSED], "The answer is the same"),
        ([LATER], "The answer is the same"),
        ([OUTAGE, OUTAGE], ""),
        ([OUTAGE, OUTAGE, FINE, OUTAGE, OUTAGE], ""),
        ([OUTAGE, EMPTY, OUTAGE, REJECTED, OUTAGE], "3 spools in a row"),
        ([REJECTED] * 9, ""),
        ([REJECTED, SET_ASIDE] * 4 + [FINE] + [REJECTED] * 9, ""),
        ([REJECTED, SET_ASIDE] * 5, "10 spools in a row were rejected"),
    ],
)
def test_only_trouble_of_the_platform_ends_all(
    spools: list[tuple[FlushResult, Verdict | None]], words: str
) -> None:
    health = PlatformHealth()
    reasons = [health.judge(*spool) for spool in spools]
    assert not any(reasons[:-1])
    assert words in reasons[-1]
    assert bool(words) == bool(reasons[-1])
