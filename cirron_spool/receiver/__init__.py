"""A small ingest server that speaks the platform's side of an upload and stores batches durably.

Its store is itself a spool. :mod:`~cirron_spool.receiver.app` has the two ways to run it: ``serve`` until a signal,
and ``running`` inside a program's own event loop.

A body's way in: ``connections`` (the socket; ``http1`` reads the bytes) -> ``routes`` (route, token, headers) ->
``shaping`` (a slow link, if asked for) -> ``store`` (one thread hop: ``body`` decompresses, ``jsontext`` checks, the
disk keeps) -> the acknowledgement, which ``journal`` counts.

HTTP is read by the receiver's own strict reader, not by aiohttp: that has two parsers, which tolerate different
faults. Nothing documented bounds all waits of a connection.
"""
