"""The bearer token: sign in, store, verify, refresh."""
