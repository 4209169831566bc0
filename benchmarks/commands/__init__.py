"""The commands of ``python -m benchmarks``, one a module: ``configure(parser)`` and ``run(session)``."""
