"""The traces in batches: records, sessions, statistics and exports. Reads only; no network, no event loop."""
