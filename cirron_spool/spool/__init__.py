"""The spool directory on disk: names, listing, lock and lease, quarantine.

Blocking; no event loop, no network.
"""
