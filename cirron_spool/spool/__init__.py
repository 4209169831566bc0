"""The spool directory on disk: names, listing, lock, quarantine. Blocking; no event loop, no network."""
