"""``await cirron_spool.flush_spools(…)`` on the spools below the job's folder."""

from __future__ import annotations

import asyncio

import cirron_spool
from benchmarks.contenders import harness


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Flush the spools and time the flush. ``options``: ``spools``, the number at once."""
    flush = cirron_spool.flush_spools
    with clock.timed():
        result = await flush(job["directory"], api_url=job["url"], token=job["token"], **job["options"])
    assert result.exit_code == 0, result.warnings
    clock.outcome["batches"] = result.uploaded
    clock.outcome["sent_bytes"] = result.bytes_sent


def main() -> None:
    """Deliver the job's spools and print the outcome."""
    clock = harness.Clock()
    asyncio.run(deliver(harness.read_job(), clock))
    clock.report()


if __name__ == "__main__":
    main()
