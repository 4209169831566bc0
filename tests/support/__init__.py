"""What the tests are made of: scripted peers, real spools, real processes, and monitors that can fail.

Nothing here imports ``cirron_spool``: the helpers judge it from outside, from the wire and the directory.
"""
