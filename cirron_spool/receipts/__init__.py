"""Receipts: a chained line for each acknowledged batch, written before its file is deleted, and the check of them."""
