"""The commands. Each module has ``configure(parser)`` and ``run(session)``."""
