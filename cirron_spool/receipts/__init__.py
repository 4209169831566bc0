"""The chained receipts of acknowledged batches: written before the delete, verified later.

Blocking.
"""
