"""The arguments of every command, without side effects: help, man pages and completions come from them."""
