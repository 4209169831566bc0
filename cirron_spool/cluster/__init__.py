"""The flush of many spools on many machines: a spool as a task, and Dask as the built-in engine."""
