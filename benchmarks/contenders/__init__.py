"""The ways to deliver a spool that are timed against each other, each in a process of its own.

A contender is ``python -m benchmarks.contenders.NAME JOB`` (Node's is ``benchmarks/peers/flush.mjs JOB``), where JOB is
the name of a file with a :class:`~benchmarks.contenders.harness.Job` as JSON; it delivers the spool and writes an
:class:`~benchmarks.contenders.harness.Outcome` as one line of JSON. Nothing is imported here, so that no contender
carries what another needs.
"""
