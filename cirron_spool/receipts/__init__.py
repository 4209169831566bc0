"""The chained receipts of acknowledged batches. A receipt is written before the delete, and verified later.

Blocking.
"""
