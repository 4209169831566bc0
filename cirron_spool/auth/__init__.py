"""The bearer token: sign in, store, verify, renew."""
