"""A small ingest server that speaks the platform's side of an upload and stores batches durably.

What it stores is itself a spool. :mod:`~cirron_spool.receiver.app` has the two ways to run it: ``serve`` until a
signal, and ``running`` inside a program's own event loop.

A body's way in: ``guard`` (the connection) -> ``app`` (route, token, headers) -> ``shaping`` (a slow link, if asked
for) -> ``store`` (one thread hop: ``body`` decompresses, ``jsontext`` checks, the disk keeps) -> the acknowledgement.
"""
