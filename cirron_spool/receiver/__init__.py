"""A small platform for trials and closed networks: ingest, snapshots, sign-in.

Its store is itself a spool. :mod:`~cirron_spool.receiver.app` has the two ways to run it: ``serve`` until a signal,
and ``running`` inside a program's own event loop.

A body's way in: ``connections`` (the socket; ``http1`` reads the bytes) -> ``routes`` (the table) -> a handler
(``ingest``, ``snapshots``: token and headers) -> ``intake`` (reads the body, at the rate of ``shaping``) ->
``incoming`` (one thread hop: ``body`` decompresses, ``jsontext`` checks, ``store`` keeps) -> the acknowledgement,
which ``journal`` counts.

A sign-in: ``device_flow`` starts it in ``device_codes``; ``device_page`` approves it (``pages`` has the HTML,
``form_guard`` and ``guess_limit`` protect it); ``device_flow`` hands out the ``tokens``, which ``account`` renews.

HTTP is read by the receiver's own strict reader, not by aiohttp: that has two parsers, which tolerate different
faults. Nothing documented bounds all waits of a connection.
"""
