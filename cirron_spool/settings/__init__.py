"""The settings from defaults, files, environment and arguments; each value knows its origin."""
