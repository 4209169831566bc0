"""Many spools on many machines: one spool as a task for any engine, and Dask as the engine that is built in."""
