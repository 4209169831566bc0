"""``cirron_spool.flush_spool`` as a harness would call it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib import import_module
from typing import Any

from benchmarks.contenders import harness
from cirron_spool import Tuning, flush_spool

# Imported by the first flush of a process, when it needs them; like every contender's imports they are not timed.
_FIRST_USED = ("anyio._backends._asyncio", "isal.isal_zlib")


def flush_options(job: harness.Job) -> dict[str, Any]:
    """The keyword arguments of ``flush_spool`` that the job asks for."""
    options = dict(job["options"])
    tuning = options.pop("tuning", {})
    return {"api_url": job["url"], "token": job["token"], "tuning": Tuning(**tuning), **options}


def import_all(job: harness.Job) -> None:
    """Import what the first flush of a process would import for ``job``."""
    library = job["options"].get("tuning", {}).get("gzip_library")
    for module in (*_FIRST_USED, *(["zlib_ng.zlib_ng"] if library == "zlib-ng" else [])):
        with suppress(ImportError):
            import_module(module)


async def deliver(job: harness.Job, clock: harness.Clock) -> None:
    """Flush the spool; time that."""
    options = flush_options(job)
    with clock.timed():
        result = await flush_spool(job["directory"], **options)
    if result.exit_code:
        raise SystemExit(f"the flush ended with exit code {result.exit_code}: {result.failures[:1]}")
    clock.outcome["batches"] = result.uploaded
    clock.outcome["sent_bytes"] = result.bytes_sent


def main() -> None:
    """Flush the spool and say what it took."""
    job = harness.job()
    import_all(job)
    clock = harness.Clock()
    asyncio.run(deliver(job, clock))
    clock.finish()


if __name__ == "__main__":
    main()
