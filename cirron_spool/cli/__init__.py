"""The command line: the parser, the commands, and the only place that prints."""
