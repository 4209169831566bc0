"""Coroutines that finish despite cancellation, and blocking work in daemon threads."""
