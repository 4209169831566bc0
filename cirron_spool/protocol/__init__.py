"""The upload contract as decisions: answers, verdicts, delays. Pure: no clock, no socket, no disk."""
