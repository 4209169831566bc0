"""The exit codes of the commands, which errors, verdicts and results speak of, too."""

from __future__ import annotations

EXIT_OK = 0  # nothing is left to do
EXIT_LOOK = 1  # a person must look
EXIT_USAGE = 2  # wrong usage, or an unusable configuration
EXIT_AUTH = 3  # not authenticated
EXIT_LATER = 4  # running it again later is right
