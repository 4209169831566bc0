"""Coroutines that outlive a cancellation, and work in threads that nobody waits for."""
