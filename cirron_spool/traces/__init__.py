"""The records in the batches as sessions and trees.

Read only; no network, no event loop.
"""
