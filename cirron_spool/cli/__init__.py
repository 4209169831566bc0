"""The commands and their output; only this folder prints."""
