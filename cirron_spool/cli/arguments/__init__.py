"""The arguments of each command, and the help, man pages and completions made from them.

Nothing here has side effects.
"""
