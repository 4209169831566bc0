"""The flush of several spools through one client: search, queue, results."""
