"""The bearer token: store, verify, refresh."""
