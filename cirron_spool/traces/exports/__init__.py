"""A trace in the formats of other tools.

Each export is written in pieces.
"""
