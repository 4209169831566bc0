"""A new event loop, coroutines that finish despite cancellation, and blocking work in daemon threads."""
