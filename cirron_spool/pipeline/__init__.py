"""The delivery of one spool: read ahead, encode, upload in order, settle."""
