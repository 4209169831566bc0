"""Ways to deliver a spool, each in its own process: ``python -m benchmarks.contenders.NAME JOB``.

JOB is a file with a :class:`~benchmarks.contenders.harness.Job` as JSON. The contender delivers the spool and prints an
:class:`~benchmarks.contenders.harness.Outcome` as a line of JSON. This module imports nothing, so that no contender
carries the imports of another one.
"""
