"""Spools, results and traces as HTML."""
