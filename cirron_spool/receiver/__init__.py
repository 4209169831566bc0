"""A small platform for trials and closed networks: ingest, snapshots, sign-in.

Its store is itself a spool. :mod:`~cirron_spool.receiver.app` runs a receiver: ``serve`` until a signal, ``running`` in
the event loop of a program.

The path of a body:

1. ``connections`` reads the socket, and ``http1`` parses the bytes.
2. ``routes`` finds the handler, ``ingest`` or ``snapshots``, which checks token and headers.
3. ``intake`` reads the body, at the rate of ``shaping``.
4. ``incoming`` runs in a thread: ``body`` decompresses, ``jsontext`` checks, ``store`` writes.
5. ``journal`` counts the acknowledgement.

The path of a sign-in:

1. ``device_flow`` starts it in ``device_codes``.
2. ``device_page`` approves it. ``pages`` has the HTML. ``form_guard`` and ``guess_limit`` protect the page.
3. ``device_flow`` returns the ``tokens``. ``account`` renews them.

The receiver parses HTTP itself. The two parsers of aiohttp tolerate different faults, and aiohttp has no documented
limits for all waits of a connection.
"""
