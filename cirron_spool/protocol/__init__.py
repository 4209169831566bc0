"""The upload contract as pure decisions: answers, verdicts, delays.

No clock, no socket, no disk.
"""
