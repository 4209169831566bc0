"""``await cirron_spool.flush_spool(…)``."""

from __future__ import annotations

import asyncio

import cirron_spool
from benchmarks.contenders import harness


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Flush the spool and time the flush. ``options``: ``in_flight``, and ``tuning`` with the fields of Tuning."""
    options = dict(job["options"])
    if "tuning" in options:
        options["tuning"] = cirron_spool.Tuning(**options["tuning"])
    with clock.timed():
        result = await cirron_spool.flush_spool(
            job["directory"], api_url=job["url"], token=job["token"], **options
        )
    if result.exit_code:
        raise SystemExit(f"the flush ended with exit code {result.exit_code}: {result.failures[:1]}")
    clock.outcome["batches"] = result.uploaded
    clock.outcome["sent_bytes"] = result.bytes_sent


def main() -> None:
    """Deliver the job's spool and print the outcome. The imports of a first flush are not timed."""
    import cirron_spool.flush  # noqa: F401  # its import is not part of the measured flush

    clock = harness.Clock()
    asyncio.run(deliver(harness.read_job(), clock))
    clock.report()


if __name__ == "__main__":
    main()
