"""Benchmarks of a flush: what it costs above the link, beside its peers, and on the machine that it runs on.

``python -m benchmarks --help`` says what can be measured; the README beside this file says how to read it.
"""
