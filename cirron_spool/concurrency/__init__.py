"""Event loops, shields against cancellation, daemon threads, and checks of other processes."""
