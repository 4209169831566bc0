"""The settings: defaults, files, environment and arguments. Each value knows its origin."""
